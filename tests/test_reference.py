"""References: statistics files checked, images streamed, identities by content."""

import zipfile

import numpy as np
import pytest
import torch
from extractors import DIM, fake_extractor, some_images, write_images

from seedsbench.metrics import reference_main
from seedsbench.metrics.reference import (
    image_names,
    of_images,
    read_reference,
    read_statistics,
    statistics_id,
    write_statistics,
)

IMAGES = some_images(11)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def gaussian(seed=0):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((DIM, DIM))
    return {"mu": rng.standard_normal(DIM), "sigma": root @ root.T}


def zipped(path, folder):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    return path


def test_statistics_are_read_and_known_by_their_numbers(tmp_path):
    arrays = gaussian()
    first = read_statistics(npz(tmp_path / "a.npz", **arrays), fake_extractor())
    np.savez_compressed(
        tmp_path / "b.npz", sigma=np.asfortranarray(arrays["sigma"]), mu=arrays["mu"], fid=1.0
    )
    again = read_statistics(tmp_path / "b.npz", fake_extractor())
    assert first.id == again.id == statistics_id(arrays["mu"], arrays["sigma"])
    assert (first.name, again.name, first.features) == ("a.npz", "b.npz", None)
    np.testing.assert_array_equal(first.moments.sigma, arrays["sigma"])
    other = read_statistics(
        npz(tmp_path / "c.npz", **{**arrays, "mu": arrays["mu"] + 1e-12}), fake_extractor()
    )
    assert other.id != first.id


def wrong(**changes):
    arrays = {**gaussian(), **changes}
    return {name: value for name, value in arrays.items() if value is not None}


ASYMMETRIC = gaussian()["sigma"] + 0.01 * np.triu(np.ones((DIM, DIM)), 1)
NEGATIVE = gaussian()["sigma"] - 100 * np.diag(np.eye(DIM)[2])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (wrong(mu=None), r"it has no mu \(it has sigma\)"),
        ({"x": np.zeros(2)}, r"no mu nor sigma \(it has x\)"),
        (wrong(mu=np.zeros(DIM + 1)), r"mu and sigma have shapes \(7,\) and \(6, 6\); fake has 6 features"),
        (wrong(sigma=np.zeros((2048, DIM))), r"\(2048, 6\)"),
        (wrong(mu=np.array([0, 1, np.nan, 0, 0, 0])), r"mu is not finite at \[2\]"),
        (wrong(sigma=np.full((DIM, DIM), np.inf)), r"sigma is not finite at \[0, 0\]"),
        (wrong(sigma=ASYMMETRIC), "sigma differs from its transpose by 0.01"),
        (wrong(sigma=NEGATIVE), "negative variance at 2"),
        (wrong(mu=np.array(["a"] * DIM)), "mu is of type <U1; expected numbers"),
        (wrong(extractor_id="0123", extractor="inception-v3"), "was made with inception-v3 0123"),
        (wrong(mu=np.array([None] * DIM, dtype=object)), "no statistics file: .*pickle"),
    ],
)
def test_what_cannot_be_the_extractors_statistics_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_reference(npz(tmp_path / "bad.npz", **arrays), fake_extractor())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.npz is no statistics file"):
        read_reference(tmp_path / "bad.npz", fake_extractor())


def test_a_path_of_another_kind_says_what_would_work(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give an .npz with mu and sigma, or a folder or zip"):
        read_reference(tmp_path / "none.npz", fake_extractor())
    (tmp_path / "refs.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"of type '.pkl'"):
        read_reference(tmp_path / "refs.pkl", fake_extractor())


# Images


def test_moments_of_images_are_those_of_their_features(tmp_path):
    folder = write_images(tmp_path / "images", IMAGES)
    found = of_images(folder, fake_extractor(), features=True)
    features = fake_extractor().extract(IMAGES)[0]
    assert found.features is not None
    assert torch.equal(found.features, features)
    values = features.double().numpy()
    assert found.moments.n == 11
    np.testing.assert_allclose(found.moments.mu, values.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.moments.sigma, np.cov(values, rowvar=False), atol=1e-5)


def test_the_extractor_always_sees_whole_blocks(tmp_path):
    extractor = fake_extractor(block=4)
    seen = []
    of_images(write_images(tmp_path / "images", IMAGES), extractor, progress=seen.append)
    assert extractor.extract.sizes == [4, 4, 4]
    assert seen == [4, 4, 3]


def test_order_names_packing_and_blocks_change_neither_numbers_nor_identity(tmp_path):
    plain = write_images(tmp_path / "plain", IMAGES)
    nested = write_images(
        tmp_path / "nested", IMAGES.flip(0), [f"{i % 3}/x{i}.{'png' if i % 2 else 'bmp'}" for i in range(11)]
    )
    (nested / "readme.txt").write_text("no image")
    (nested / ".hidden.png").write_bytes(b"no image")
    (nested / "__MACOSX").mkdir()
    (nested / "__MACOSX" / "a.png").write_bytes(b"no image")
    found = [
        of_images(plain, fake_extractor()),
        of_images(zipped(tmp_path / "z.zip", plain), fake_extractor()),
    ]
    found += [of_images(nested, fake_extractor()), of_images(plain, fake_extractor(block=3))]
    assert len({reference.id for reference in found}) == 1
    for other in found[1:]:
        np.testing.assert_array_equal(other.moments.mu, found[0].moments.mu)
        np.testing.assert_array_equal(other.moments.sigma, found[0].moments.sigma)


def test_other_images_or_another_extractor_are_another_reference(tmp_path):
    changed = IMAGES.clone()
    changed[3, 0, 0, 0] ^= 1
    folders = [write_images(tmp_path / "a", IMAGES), write_images(tmp_path / "b", changed)]
    ids = {of_images(folder, fake_extractor()).id for folder in folders}
    ids |= {of_images(folders[0], fake_extractor("other")).id}
    ids |= {of_images(write_images(tmp_path / "c", IMAGES[:-1]), fake_extractor()).id}
    assert len(ids) == 4


def test_grey_and_transparent_images_become_rgb(tmp_path):
    from PIL import Image

    folder = write_images(tmp_path / "images", IMAGES[:2])
    Image.new("L", (8, 8), 7).save(folder / "grey.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 0)).save(folder / "clear.png")
    Image.new("P", (8, 8)).save(folder / "palette.png")
    assert of_images(folder, fake_extractor()).moments.n == 5


def test_unusable_images_are_named(tmp_path):
    folder = write_images(tmp_path / "images", IMAGES)
    write_images(folder, some_images(1, size=9), ["z.png"])
    with pytest.raises(ValueError, match=r"z.png has 9 x 9 pixels, 0000.png has 8 x 8"):
        of_images(folder, fake_extractor())
    (folder / "z.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"z.png is no readable image"):
        of_images(folder, fake_extractor())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds 0 images"):
        image_names(tmp_path / "empty")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        image_names(tmp_path / "bad.zip")


# The console entry


@pytest.fixture
def fake_main(monkeypatch):
    monkeypatch.setitem(reference_main.EXTRACTORS, "inception", fake_extractor)


@pytest.mark.parametrize("features", [False, True])
def test_the_command_writes_what_the_benchmark_reads(tmp_path, fake_main, capsys, features):
    folder = write_images(tmp_path / "images", IMAGES)
    out = tmp_path / "out.npz"
    flags = ["--features"] if features else []
    reference_main.main([str(folder), str(out), "--device", "cpu", "--block", "5", *flags])
    assert "11 images, fake" in capsys.readouterr().out
    direct = of_images(folder, fake_extractor(), features=True)
    found = read_statistics(out, fake_extractor(), features=features)
    np.testing.assert_array_equal(found.moments.mu, direct.moments.mu)
    np.testing.assert_array_equal(found.moments.sigma, direct.moments.sigma)
    assert found.moments.n == 11
    if features:
        assert torch.equal(found.features, direct.features)
    else:
        with pytest.raises(ValueError, match="--features"):
            read_statistics(out, fake_extractor(), features=True)
    with pytest.raises(ValueError, match="make it again with seedsbench-reference"):
        read_statistics(out, fake_extractor("other"))


def test_features_of_another_width_are_refused(tmp_path):
    path = npz(tmp_path / "a.npz", **gaussian(), features=np.zeros((4, 5), dtype=np.float32))
    with pytest.raises(ValueError, match=r"features have shape \(4, 5\); expected \(n, 6\)"):
        read_statistics(path, fake_extractor(), features=True)


@pytest.mark.parametrize(
    ("images", "output", "message"),
    [
        ("nowhere", "out.npz", "nowhere is not there"),
        ("images", "out.txt", "must end in .npz"),
        ("images", "no/out.npz", "is no folder"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(tmp_path, fake_main, capsys, images, output, message):
    write_images(tmp_path / "images", IMAGES[:2])
    with pytest.raises(SystemExit, match="2"):
        reference_main.main([str(tmp_path / images), str(tmp_path / output), "--device", "cpu"])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_written_statistics_are_plain_arrays(tmp_path):
    found = of_images(write_images(tmp_path / "images", IMAGES), fake_extractor())
    write_statistics(tmp_path / "out.npz", found, fake_extractor())
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert set(file.files) == {"mu", "sigma", "n", "extractor", "extractor_id", "images"}
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
