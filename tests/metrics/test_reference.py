"""References: statistics files checked, images streamed, identities by content."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from seedsbench.cli import reference as reference_main
from seedsbench.metrics.moments import Moments
from seedsbench.metrics.reference import (
    Reference,
    doubts,
    holds_images,
    of_images,
    read_reference,
    read_statistics,
    statistics_id,
    write_statistics,
)
from tests.support.extractors import DIM, fake_extractor, some_images, write_images

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


def refused(path, message, kind=ValueError):
    with pytest.raises(kind, match=message) as caught:
        read_reference(path, fake_extractor())
    assert "\n" not in str(caught.value)


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
        (wrong(mu=np.array([0, 1, np.nan, 0, 0, 0])), r"its mean is not finite at \[2\]"),
        (wrong(sigma=np.full((DIM, DIM), np.inf)), r"its covariance is not finite at \[0, 0\]"),
        (wrong(sigma=ASYMMETRIC), "covariance differs from its transpose by 0.01"),
        (wrong(sigma=NEGATIVE), "negative variance at 2"),
        (wrong(mu=np.array(["a"] * DIM)), "no statistics file: .*<U1"),
        (wrong(extractor_id="0123", extractor="inception-v3"), "was made with inception-v3 0123"),
        (wrong(mu=np.array([None] * DIM, dtype=object)), "no statistics file: .*pickle"),
    ],
)
def test_what_cannot_be_the_extractors_statistics_is_refused(tmp_path, arrays, message):
    refused(npz(tmp_path / "bad.npz", **arrays), message)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    refused(tmp_path / "bad.npz", r"bad.npz is no statistics file")


def test_a_path_of_another_kind_says_what_would_work(tmp_path):
    advice = "give an .npz with mu and sigma, or a folder or zip of images"
    refused(tmp_path / "none.npz", f"is not there: {advice}", FileNotFoundError)
    (tmp_path / "refs.pkl").write_bytes(b"")
    refused(tmp_path / "refs.pkl", f"of type '.pkl': {advice}")


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


def test_ordinary_images_keep_the_id_they_always_had(tmp_path):
    """RGB, grey, 1-bit, palette; PNG, BMP, TIFF: the id is of what Pillow's convert("RGB") makes."""
    values = (np.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3) * 37 % 256).astype(np.uint8)
    Image.fromarray(values[0]).save(tmp_path / "rgb.png")
    Image.fromarray(values[1, ..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(values[2, ..., 0] > 99).save(tmp_path / "bits.png")
    palette = Image.frombytes("P", (8, 8), (values[3, ..., 0] % 4).tobytes())
    palette.putpalette([9, 8, 7, 200, 100, 0, 0, 50, 255, 30, 60, 90])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(values[1]).save(tmp_path / "b.bmp")
    Image.fromarray(values[2]).save(tmp_path / "t.tif")
    assert of_images(tmp_path, fake_extractor()).id == "05cbfbc6987251b2"


# What is known of the images


def grey_images(n, size=8):
    return some_images(n, size)[:, :1].expand(-1, 3, -1, -1)


def save_16_bits(folder, images):
    """The first channel as 16-bit grey PNGs whose upper bytes are the images."""
    for i, image in enumerate(images):
        values = image[0].numpy().astype(np.uint16) * 257
        Image.fromarray(values).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("colours", [3, 1])
def test_facts_of_images_are_kept_with_their_statistics(tmp_path, colours):
    images = IMAGES if colours == 3 else grey_images(11)
    made = of_images(write_images(tmp_path / "images", images), fake_extractor())
    assert (made.shape, made.bits, made.facts) == ((colours, 8, 8), 8, f"{colours}x8x8")
    write_statistics(tmp_path / "out.npz", made, fake_extractor())
    read = read_statistics(tmp_path / "out.npz", fake_extractor())
    assert (read.shape, read.bits, read.moments.n) == (made.shape, made.bits, 11)


def test_one_coloured_image_makes_a_set_of_colour(tmp_path):
    mixed = torch.cat([grey_images(5), IMAGES[:1], grey_images(5)])
    assert of_images(write_images(tmp_path / "images", mixed), fake_extractor()).facts == "3x8x8"


def test_sixteen_bits_are_a_fact(tmp_path):
    folder = write_images(tmp_path / "images", grey_images(8))
    eight = of_images(folder, fake_extractor())
    (tmp_path / "deep").mkdir()
    sixteen = of_images(save_16_bits(tmp_path / "deep", grey_images(8)), fake_extractor())
    assert (eight.bits, sixteen.bits) == (8, 16)
    assert sixteen.id == eight.id
    assert doubts(sixteen, DIM) == ("deep is of 16-bit images, of which the upper 8 bits were used",)


def test_statistics_from_elsewhere_say_nothing_of_their_images(tmp_path):
    found = read_statistics(npz(tmp_path / "a.npz", **gaussian()), fake_extractor())
    assert (found.shape, found.bits, found.facts) == (None, None, "unknown")
    assert doubts(found, DIM, (3, 32, 32)) == ()


@pytest.mark.parametrize("shape", [[8, 8], [2, 8, 8], "3x8x8"])
def test_facts_that_cannot_be_are_refused(tmp_path, shape):
    path = npz(tmp_path / "a.npz", **gaussian(), image_shape=shape, image_bits=8)
    with pytest.raises(ValueError, match=r"a.npz: image_shape is .* expected \[1 or 3, height, width\]"):
        read_statistics(path, fake_extractor())


@pytest.mark.parametrize(
    ("n", "reference", "samples", "said"),
    [
        (7, (3, 8, 8), (3, 8, 8), []),
        (7, (3, 8, 8), None, []),
        (6, (3, 8, 8), (3, 8, 8), ["r is of 6 images for 6 features: its covariance is singular"]),
        (0, (3, 8, 8), (3, 8, 8), []),
        (7, (3, 8, 4), (3, 8, 8), ["r is of images of 4 x 8 pixels, the samples have 8 x 8: "]),
        (7, (3, 8, 8), (1, 8, 8), ["r is of colour images, the samples are grey"]),
        (7, (1, 8, 8), (3, 8, 8), ["r is of grey images, the samples are colour"]),
        (2, (3, 64, 64), (1, 8, 8), ["r is of 2 images", "r is of images of 64 x 64", "r is of colour"]),
    ],
)
def test_what_differs_from_the_samples_is_said(n, reference, samples, said):
    moments = Moments(n, np.zeros(DIM), np.eye(DIM))
    found = doubts(Reference(moments, "id", "r", shape=reference, bits=8), DIM, samples)
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True))


# Images in an .npz


def samples(path, images, **more):
    """As guided-diffusion leaves them: arr_0 (n, H, W, 3)."""
    return npz(path, arr_0=images.permute(0, 2, 3, 1).numpy(), **more)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_of_samples_is_the_folder_of_the_same_images(tmp_path, save):
    save(tmp_path / "s.npz", IMAGES.permute(0, 2, 3, 1).contiguous().numpy(), np.arange(11))
    found = read_reference(tmp_path / "s.npz", fake_extractor(), features=True)
    folder = read_reference(write_images(tmp_path / "f", IMAGES), fake_extractor(), features=True)
    assert (found.id, found.shape, found.bits) == (folder.id, (3, 8, 8), 8)
    assert torch.equal(found.features, folder.features)
    np.testing.assert_array_equal(found.moments.sigma, folder.moments.sigma)


def test_an_npz_of_grey_samples_is_the_folder_of_grey_images(tmp_path):
    npz(tmp_path / "s.npz", arr_0=grey_images(7)[:, 0, :, :, None].numpy())
    (tmp_path / "f").mkdir()
    for i, image in enumerate(grey_images(7)):
        Image.fromarray(image[0].numpy()).save(tmp_path / "f" / f"{i}.png")
    found, folder = (read_reference(tmp_path / name, fake_extractor()) for name in ("s.npz", "f"))
    assert (found.id, found.facts) == (folder.id, "1x8x8")


def test_of_an_npz_with_both_the_wanted_statistics_win(tmp_path):
    path = samples(tmp_path / "both.npz", IMAGES, **gaussian())
    assert read_reference(path, fake_extractor()).shape is None
    assert read_reference(path, fake_extractor(), features=True).shape == (3, 8, 8)
    assert not holds_images(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), r"arr_0 is float32 .* save \(127.5 \* x \+ 128\)"),
        (np.zeros((4, 3, 8, 8), np.uint8), r"arr_0 is uint8 \(4, 3, 8, 8\).*use transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 8, 8), np.uint8), r"arr_0 is uint8 \(4, 8, 8\); images are uint8 \(n, height, width"),
        (np.zeros((4, 8, 8, 4), np.uint8), "save it so with numpy.savez"),
        (np.zeros((4, 0, 8, 3), np.uint8), "save it so with numpy.savez"),
        (np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8)), "by columns"),
        (np.zeros((1, 8, 8, 3), np.uint8), "holds 1 images"),
        (np.array([None]), "arr_0 is object"),
    ],
)
def test_other_arrays_are_refused_with_what_would_work(tmp_path, array, message):
    refused(npz(tmp_path / "s.npz", arr_0=array), message)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_array_is_refused(tmp_path, save):
    save(tmp_path / "s.npz", IMAGES.permute(0, 2, 3, 1).contiguous().numpy())
    data = bytearray((tmp_path / "s.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "s.npz").write_bytes(data)
    refused(tmp_path / "s.npz", r"s.npz: arr_0.* is no readable (image|array)")


def test_unusable_images_are_named(tmp_path):
    folder = write_images(tmp_path / "images", IMAGES)
    write_images(folder, some_images(1, size=9), ["z.png"])
    refused(folder, r"z.png has 9 x 9 pixels, 0000.png has 8 x 8")
    (folder / "z.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(folder, r"z.png is no readable image")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"empty holds 0 images")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    refused(tmp_path / "bad.zip", "neither a folder nor a zip")


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
    assert "out.npz: 11 images, 3x8x8, 8 bits a channel, fake" in capsys.readouterr().out
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


def test_the_command_takes_samples_says_what_is_odd_and_keeps_them(tmp_path, fake_main, capsys):
    path = samples(tmp_path / "few.npz", IMAGES[:5])
    reference_main.main([str(path), str(tmp_path / "out.npz"), "--device", "cpu"])
    shown = capsys.readouterr().out.splitlines()
    assert "out.npz: 5 images, 3x8x8, 8 bits a channel, fake" in shown[0]
    assert shown[1:] == ["note: few.npz is of 5 images for 6 features: its covariance is singular"]
    with pytest.raises(SystemExit, match="2"):
        reference_main.main([str(path), str(path), "--device", "cpu"])
    assert "few.npz holds the images themselves" in capsys.readouterr().err


def test_the_command_says_which_files_it_passed_over(tmp_path, fake_main, capsys):
    folder = write_images(tmp_path / "images", IMAGES)
    Image.new("RGB", (8, 8)).save(folder / "a.gif")
    for name in ("dataset.json", "b.gif", ".hidden"):
        (folder / name).write_text("")
    reference_main.main([str(folder), str(tmp_path / "out.npz"), "--device", "cpu"])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "note: images has 3 files that are no images of a kind read here (.gif .json)"
    ]


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
        who, what = {"mu", "sigma", "n"}, {"images", "image_shape", "image_bits"}
        assert set(file.files) == who | {"extractor", "extractor_id"} | what
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
