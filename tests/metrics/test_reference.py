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
FAKE = fake_extractor()


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", IMAGES)


def npz(path, save=np.savez, **arrays):
    save(path, **arrays)
    return path


def gaussian(**changes):
    """mu and sigma, with changes; None takes one away."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((DIM, DIM))
    arrays = {"mu": rng.standard_normal(DIM), "sigma": root @ root.T, **changes}
    return {name: value for name, value in arrays.items() if value is not None}


def refused(path, message, kind=ValueError, features=False):
    with pytest.raises(kind, match=message) as caught:
        read_reference(path, FAKE, features=features)
    assert "\n" not in str(caught.value)


def same_numbers(one, other):
    np.testing.assert_array_equal(one.moments.mu, other.moments.mu)
    np.testing.assert_array_equal(one.moments.sigma, other.moments.sigma)
    return one.id == other.id


# Statistics files


def test_statistics_are_read_and_known_by_their_numbers(tmp_path):
    arrays = gaussian()
    first = read_statistics(npz(tmp_path / "a.npz", **arrays), FAKE)
    by_columns = np.asfortranarray(arrays["sigma"])
    again = npz(tmp_path / "b.npz", np.savez_compressed, sigma=by_columns, mu=arrays["mu"], fid=1.0)
    assert same_numbers(first, read_statistics(again, FAKE))
    assert first.id == statistics_id(arrays["mu"], arrays["sigma"])
    assert (first.name, first.features) == ("a.npz", None)
    np.testing.assert_array_equal(first.moments.sigma, arrays["sigma"])
    assert (first.shape, first.bits, first.facts) == (None, None, "unknown"), "nothing is said of its images"
    assert doubts(first, DIM, (3, 32, 32)) == ()
    other = npz(tmp_path / "c.npz", **gaussian(mu=arrays["mu"] + 1e-12))
    assert read_statistics(other, FAKE).id != first.id


ASYMMETRIC = gaussian()["sigma"] + 0.01 * np.triu(np.ones((DIM, DIM)), 1)
NEGATIVE = gaussian()["sigma"] - 100 * np.diag(np.eye(DIM)[2])
SHAPE = r"a.npz: image_shape is .* expected \[1 or 3, height, width\]"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (gaussian(mu=None), r"it has no mu \(it has sigma\)"),
        ({"x": np.zeros(2)}, r"no mu nor sigma \(it has x\)"),
        (gaussian(mu=np.zeros(DIM + 1)), r"have shapes \(7,\) and \(6, 6\); fake has 6 features"),
        (gaussian(sigma=np.zeros((2048, DIM))), r"\(2048, 6\)"),
        (gaussian(mu=np.array([0, 1, np.nan, 0, 0, 0])), r"its mean is not finite at \[2\]"),
        (gaussian(sigma=np.full((DIM, DIM), np.inf)), r"its covariance is not finite at \[0, 0\]"),
        (gaussian(sigma=ASYMMETRIC), "covariance differs from its transpose by 0.01"),
        (gaussian(sigma=NEGATIVE), "negative variance at 2"),
        (gaussian(mu=np.array(["a"] * DIM)), "no statistics file: .*<U1"),
        (gaussian(extractor_id="0123", extractor="inception-v3"), "was made with inception-v3 0123"),
        (gaussian(mu=np.array([None] * DIM, dtype=object)), "no statistics file: .*pickle"),
        (gaussian(image_shape=[8, 8], image_bits=8), SHAPE),
        (gaussian(image_shape=[2, 8, 8], image_bits=8), SHAPE),
        (gaussian(image_shape="3x8x8", image_bits=8), SHAPE),
    ],
)
def test_what_cannot_be_the_extractors_statistics_is_refused(tmp_path, arrays, message):
    refused(npz(tmp_path / "a.npz", **arrays), message)


def test_damaged_files_and_paths_of_another_kind_say_what_would_work(tmp_path):
    wide = npz(tmp_path / "wide.npz", **gaussian(features=np.zeros((4, 5), dtype=np.float32)))
    refused(wide, r"features have shape \(4, 5\); expected \(n, 6\)", features=True)
    for content in (b"", b"PK\x03\x04 no zip", b"\x93NUMPY"):
        (tmp_path / "bad.npz").write_bytes(content)
        refused(tmp_path / "bad.npz", r"bad.npz is no statistics file")
    advice = "give an .npz with mu and sigma, or a folder or zip of images"
    refused(tmp_path / "none.npz", f"is not there: {advice}", FileNotFoundError)
    (tmp_path / "refs.txt").write_bytes(b"")
    refused(tmp_path / "refs.txt", f"of type '.txt': {advice}")


# Images


def test_moments_of_images_are_those_of_their_features(folder):
    found = of_images(folder, FAKE, features=True)
    features = FAKE.extract(IMAGES)[0]
    assert torch.equal(found.features, features)
    assert found.moments.n == 11
    values = features.double().numpy()
    np.testing.assert_allclose(found.moments.mu, values.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.moments.sigma, np.cov(values, rowvar=False), atol=1e-5)


def test_the_extractor_always_sees_whole_blocks(folder):
    extractor, seen = fake_extractor(block=4), []
    of_images(folder, extractor, progress=seen.append)
    assert extractor.extract.sizes == [4, 4, 4]
    assert seen == [4, 4, 3]


def test_order_names_packing_and_blocks_change_neither_numbers_nor_identity_and_images_do(tmp_path, folder):
    first = of_images(folder, FAKE)
    names = [f"{i % 3}/x{i}.{'png' if i % 2 else 'bmp'}" for i in range(11)]
    nested = write_images(tmp_path / "nested", IMAGES.flip(0), names)
    (nested / "__MACOSX").mkdir()
    for name in ("readme.txt", ".hidden.png", "__MACOSX/a.png"):
        (nested / name).write_bytes(b"no image")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    for path, block in ((tmp_path / "z.zip", 4), (nested, 4), (folder, 3)):
        assert same_numbers(of_images(path, fake_extractor(block=block)), first)
    changed = IMAGES.clone()
    changed[3, 0, 0, 0] ^= 1
    others = [write_images(tmp_path / "b", changed), write_images(tmp_path / "c", IMAGES[:-1])]
    ids = {of_images(path, FAKE).id for path in others} | {of_images(folder, fake_extractor("other")).id}
    assert len(ids | {first.id}) == 4, "other images or another extractor are another reference"


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
    assert of_images(tmp_path, FAKE).id == "05cbfbc6987251b2"


def test_unusable_images_are_named(tmp_path, folder):
    write_images(folder, some_images(1, size=9), ["z.png"])
    refused(folder, r"z.png has 9 x 9 pixels, 0000.png has 8 x 8")
    (folder / "z.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(folder, r"z.png is no readable image")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"empty holds 0 images")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    refused(tmp_path / "bad.zip", "neither a folder nor a zip")


# What is known of the images

GREY = IMAGES[:, :1].expand(-1, 3, -1, -1)
MIXED = torch.cat([GREY[:5], IMAGES[:1], GREY[5:]])


@pytest.mark.parametrize(
    ("images", "shape"),
    [(IMAGES, (3, 8, 8)), (GREY, (1, 8, 8)), (MIXED, (3, 8, 8))],
    ids=["rgb", "grey", "one"],
)
def test_facts_of_images_are_kept_with_their_statistics(tmp_path, images, shape):
    made = of_images(write_images(tmp_path / "images", images), FAKE)
    assert (made.shape, made.bits, made.facts) == (shape, 8, "x".join(map(str, shape)))
    write_statistics(tmp_path / "out.npz", made, FAKE)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        kept = "mu sigma n extractor extractor_id images image_shape image_bits"
        assert set(file.files) == set(kept.split())
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
    read = read_statistics(tmp_path / "out.npz", FAKE)
    assert (read.shape, read.bits, read.moments.n) == (made.shape, made.bits, len(images))


def test_sixteen_bits_are_a_fact(tmp_path):
    eight = of_images(write_images(tmp_path / "images", GREY), FAKE)
    (tmp_path / "deep").mkdir()
    for i, image in enumerate(GREY):  # the upper bytes are the images
        Image.fromarray(image[0].numpy().astype(np.uint16) * 257).save(tmp_path / "deep" / f"{i}.png")
    sixteen = of_images(tmp_path / "deep", FAKE)
    assert (eight.bits, sixteen.bits) == (8, 16)
    assert sixteen.id == eight.id
    assert doubts(sixteen, DIM) == ("deep is of 16-bit images, of which the upper 8 bits were used",)


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


# Images in an .npz, as guided-diffusion leaves them: arr_0 (n, H, W, 3)

ARRAY = IMAGES.permute(0, 2, 3, 1).contiguous().numpy()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(("array", "images"), [(ARRAY, IMAGES), (ARRAY[..., :1], GREY)])
def test_an_npz_of_samples_is_the_folder_of_the_same_images(tmp_path, array, images, save):
    save(tmp_path / "s.npz", array, np.arange(11))
    found = read_reference(tmp_path / "s.npz", FAKE, features=True)
    wanted = read_reference(write_images(tmp_path / "f", images), FAKE, features=True)
    assert same_numbers(found, wanted)
    assert (found.shape, found.bits) == ((array.shape[3], 8, 8), 8)
    assert torch.equal(found.features, wanted.features)


def test_of_an_npz_with_both_the_wanted_statistics_win(tmp_path):
    path = npz(tmp_path / "both.npz", arr_0=ARRAY, **gaussian())
    assert read_reference(path, FAKE).shape is None
    assert read_reference(path, FAKE, features=True).shape == (3, 8, 8)
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
        (np.array([None]), "holds Python objects"),
    ],
)
def test_other_arrays_are_refused_with_what_would_work(tmp_path, array, message):
    refused(npz(tmp_path / "s.npz", arr_0=array), message)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_array_is_refused(tmp_path, save):
    data = bytearray(npz(tmp_path / "s.npz", save, arr_0=ARRAY).read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "s.npz").write_bytes(data)
    refused(tmp_path / "s.npz", r"s.npz: arr_0.* is no readable (image|array)")


# The console entry


@pytest.fixture
def command(monkeypatch, capsys):
    """seedsbench-reference with the fake extractor: what it prints; of its failures, one line."""
    monkeypatch.setitem(reference_main.EXTRACTORS, "inception", fake_extractor)

    def run(*words, fails=False):
        assert reference_main.main([*map(str, words), "--device", "cpu"]) == (2 if fails else 0)
        told = capsys.readouterr()
        lines = (told.err if fails else told.out).splitlines()
        assert len(lines) == 1 or not fails
        return lines

    return run


@pytest.mark.parametrize("features", [False, True])
def test_the_command_writes_what_the_benchmark_reads(tmp_path, command, folder, features):
    out = tmp_path / "out.npz"
    (said,) = command(folder, out, "--block", "5", *(["--features"] if features else []))
    assert "out.npz: 11 images, 3x8x8, 8 bits a channel, fake" in said
    direct = of_images(folder, FAKE, features=True)
    found = read_statistics(out, FAKE, features=features)
    same_numbers(found, direct)
    assert found.moments.n == 11
    if features:
        assert torch.equal(found.features, direct.features)
    else:
        refused(out, "--features", features=True)
    with pytest.raises(ValueError, match="make it again with seedsbench-reference"):
        read_statistics(out, fake_extractor("other"))


def test_the_command_takes_samples_says_what_is_odd_and_keeps_them(tmp_path, command):
    path = npz(tmp_path / "few.npz", arr_0=ARRAY[:5])
    shown = command(path, tmp_path / "out.npz")
    assert "out.npz: 5 images, 3x8x8, 8 bits a channel, fake" in shown[0]
    assert shown[1:] == ["note: few.npz is of 5 images for 6 features: its covariance is singular"]
    assert "few.npz holds the images themselves" in command(path, path, fails=True)[0]


def test_the_command_says_which_files_it_passed_over(tmp_path, command, folder):
    Image.new("RGB", (8, 8)).save(folder / "a.gif")
    for name in ("dataset.json", "b.gif", ".hidden"):
        (folder / name).write_text("")
    assert command(folder, tmp_path / "out.npz")[1:] == [
        "note: images has 3 files that are no images of a kind read here (.gif .json)"
    ]


@pytest.mark.parametrize(
    ("images", "output", "message"),
    [
        ("nowhere", "out.npz", "nowhere is not there"),
        ("images", "out.txt", "must end in .npz"),
        ("images", "no/out.npz", "is no folder"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(tmp_path, command, folder, images, output, message):
    assert message in command(tmp_path / images, tmp_path / output, fails=True)[0]


def test_a_missing_folder_is_said_before_the_extractors_file_is_looked_for(tmp_path, capsys):
    missing, weights = tmp_path / "nope", tmp_path / "no-weights.pth"
    assert reference_main.main([f"{missing}/", str(tmp_path / "o.npz"), "--weights", str(weights)]) == 2
    assert f"{missing} is not there: give a folder" in capsys.readouterr().err
