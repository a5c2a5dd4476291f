"""References that mean harm: one line, at once, and no memory for what they only declare."""

import io
import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scripts.faults.hostile import locked
from seedsbench.data.pictures import decoded, image_names, pictures
from seedsbench.metrics.reference import read_reference
from tests.support.extractors import DIM, fake_extractor, some_images, write_images

ROOT = Path(__file__).parents[2]
FAKE = fake_extractor()


def refused(path, message, features=False, kind=ValueError):
    start = time.monotonic()
    with pytest.raises(kind, match=message) as caught:
        read_reference(path, FAKE, features=features)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert time.monotonic() - start < 5


def gaussian(path, **changes):
    np.savez(path, **{"mu": np.zeros(DIM), "sigma": np.eye(DIM), **changes})
    return path


def header(shape, descr="<f8", version=1, more=b""):
    """The header of an .npy that declares these."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + more + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def good(name):
    buffer = io.BytesIO()
    np.save(buffer, {"mu": np.zeros(DIM), "sigma": np.eye(DIM)}[name])
    return buffer.getvalue()


@pytest.mark.parametrize(
    "n", [-5, "many", 2.5, 2**60, True, [1, 2], float("nan"), np.uint64(2**64 - 1), "\x1b[2Jx\ny"]
)
def test_a_number_of_images_that_is_none(tmp_path, n):
    refused(gaussian(tmp_path / "a.npz", n=n), "a.npz: n is .* expected a whole number of images, or 0")


@pytest.mark.parametrize("shape", [[3, -1, 8], [3, 0, 8], [3, 2**40, 8], [3, 8.0, 8.0], [3, 8, 8, 8]])
def test_a_shape_of_images_that_is_none(tmp_path, shape):
    refused(gaussian(tmp_path / "a.npz", image_shape=shape, image_bits=8), "image_shape is .* expected")


DECLARED = {
    "more than it holds": (header((10**9, 10**9)), "is not what its"),
    "no memory has so much": (header((10**30,)), "is not what its"),
    "negative": (header((-DIM,)), "is not what its|no statistics file"),
    "objects": (header((DIM,), "|O"), "holds Python objects"),
    "a header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 1000, "write it with numpy.savez"),
    "a deep header": (header((), more=b"(" * 9000), "no statistics file"),
    "text of a gigabyte": (header((DIM,), "<U250000000"), "is not what its"),
    "not a shape": (header("x"), "no statistics file"),
    "cut": (good("mu")[:-3], "is not what its"),
    "empty": (b"", "no statistics file"),
}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("member", ["mu", "sigma", "features", "n"])
def test_arrays_that_declare_what_they_are_not(tmp_path, name, member):
    data, said = DECLARED[name]
    members = {"mu.npy": good("mu"), "sigma.npy": good("sigma"), f"{member}.npy": data}
    refused(zipped(tmp_path / "a.npz", members), said, features=member == "features")


def test_small_arrays_stay_small(tmp_path):
    refused(gaussian(tmp_path / "a.npz", extractor="x" * 10_000), "extractor has 40000 bytes, over 4096")


@pytest.mark.parametrize("kind", ["statistics", "pictures", "array"])
def test_locked_and_oddly_packed_zip_files(tmp_path, kind):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    array = io.BytesIO()
    np.save(array, np.zeros((4, 8, 8, 3), np.uint8))
    name, members = {
        "statistics": ("a.npz", {"mu.npy": good("mu"), "sigma.npy": good("sigma")}),
        "pictures": ("a.zip", {"a.png": picture.getvalue(), "b.png": picture.getvalue()}),
        "array": ("a.npz", {"arr_0.npy": array.getvalue()}),
    }[kind]
    path = zipped(tmp_path / name, members)
    path.write_bytes(locked(path.read_bytes()))
    refused(path, "is encrypted: pack it without a password")
    for compression, number in ((zipfile.ZIP_LZMA, 14), (zipfile.ZIP_BZIP2, 12)):
        refused(zipped(tmp_path / name, members, compression), f"packed by method {number}")


def test_members_with_odd_names(tmp_path):
    folder = write_images(tmp_path / "f", some_images(3))
    first, second, third = (path.read_bytes() for path in sorted(folder.glob("*.png")))
    wanted = read_reference(folder, FAKE).id
    odd = {"/etc/a.png": first, "c:\\d.png": second, "e/": b"", "../../passed over.png": b"", "f.png": third}
    assert read_reference(zipped(tmp_path / "b.zip", odd), FAKE).id == wanted, "names lead nowhere"
    twice = zipped(tmp_path / "c.zip", {"a.png": first, "b.png": second})
    twice.write_bytes(twice.read_bytes().replace(b"b.png", b"a.png"))
    refused(twice, "two of its members have the name a.png")
    refused(zipped(tmp_path / "d.zip", {"\x1b[2Ja\nb.png": b"", "b.png": b""}), r"\\x1b.*no readable image")


def png(width, height, mode="1"):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_are_judged_by_their_header(tmp_path):
    for name, sizes, said in (
        ("large", [(13_000, 13_000)] * 2, "0.png has 13000 x 13000 pixels, over"),
        ("other", [(8, 8), (5000, 3000)], "1.png has 5000 x 3000 pixels, 0.png has 8 x 8|over"),
        ("long", [(2**20, 8)] * 2, "over"),
    ):
        (tmp_path / name).mkdir()
        for i, size in enumerate(sizes):
            (tmp_path / name / f"{i}.png").write_bytes(png(*size))
        refused(tmp_path / name, said)
    # A header alone is enough to be refused: pixels are not looked at.
    data = bytearray(png(8, 8))
    data[16:24] = struct.pack(">II", 10_000, 10_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ValueError, match="10000 x 10000 pixels, over"):
        decoded(lambda: io.BytesIO(bytes(data)), "x")


def test_no_reader_that_starts_another_program_is_asked():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with Image.open(io.BytesIO(eps)) as image:
        assert image.format == "EPS"
    with pytest.raises(ValueError, match="x is no readable image: cannot identify"):
        decoded(lambda: io.BytesIO(eps), "x")


def test_pages_are_not_counted():
    """A TIFF of a million pages, 18 bytes each, that all are the first one's."""
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (278, 8), (279, 64))
    )
    page = len(entries) + 6
    count = 200_000
    start = 8 + 64
    pages = (
        struct.pack("<H", 8) + entries + struct.pack("<I", start + (i + 1) * page if i + 1 < count else 0)
        for i in range(count)
    )
    data = b"II*\0" + struct.pack("<I", start) + bytes(64) + b"".join(pages)
    begin = time.monotonic()
    with pytest.raises(ValueError, match="holds several pictures"):
        decoded(lambda: io.BytesIO(data), "x")
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("name", ["a.npz", "a.zip", "a.pkl"])
def test_paths_that_are_no_files(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    refused(path, "is a pipe, no regular file")
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(path, "is a device, no regular file")
    path.unlink()
    path.symlink_to(path)
    refused(path, "is not there|cannot be read", kind=(ValueError, FileNotFoundError))
    path.unlink()
    with path.open("wb") as file:
        file.truncate(100 * 2**30)
    refused(path, "of which 0 were ever written|over the limit of")


def test_a_folder_with_strange_members_is_read_as_if_they_were_not_there(tmp_path):
    folder = write_images(tmp_path / "images", some_images(5))
    wanted = read_reference(folder, FAKE).id
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "circle").symlink_to(folder)
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    assert read_reference(folder, FAKE).id == wanted


BOMB = """
import sys, time
from tests.support.peak import peak_memory
from seedsbench.metrics.reference import read_reference
from tests.support.extractors import fake_extractor
before, start = peak_memory(), time.monotonic()
try:
    read_reference(sys.argv[1], fake_extractor(), features=sys.argv[2] == "features")
except ValueError as error:
    print(peak_memory() - before, time.monotonic() - start, error)
"""


def bomb(path, name, shape, size=2**31):
    """An .npz with an array of `size` bytes, all zeros, packed."""
    head, block = header(shape, "|u1" if name == "arr_0" else "<f8"), bytes(2**24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other in ("mu", "sigma") if name == "features" else ():
            archive.writestr(f"{other}.npy", good(other))
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            file.write(head)
            for _ in range(size // len(block)):
                file.write(block)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param(2**31, marks=pytest.mark.slow), 2**29])
def test_a_bomb_of_zeros_takes_neither_time_nor_memory(tmp_path, size):
    cases = {
        "features": (size // 8 // DIM, DIM),
        "arr_0": (size // 192, 8, 8, 3),
        "mu": (size // 8,),
    }
    if size < 2**31:
        cases = {"arr_0": (size // 2**14, 64, 256, 1)}
    for name, shape in cases.items():
        path = bomb(tmp_path / "b.npz", name, shape, size)
        told = subprocess.run(
            [sys.executable, "-c", BOMB, path, name], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        kilobytes, seconds, said = told.split(maxsplit=2)
        print(name, kilobytes, seconds, said)
        assert int(kilobytes) < 300_000, told
        assert float(seconds) < 5, told
        assert "would unpack from" in said or "has no sigma" in said or "is not what" in said


def mutated(data, edits):
    data = bytearray(data)
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    return bytes(data)


EDITS = st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5)


def sources(folder):
    """Bytes of good references of each kind, by suffix."""
    images = some_images(3)
    gaussian(folder / "a.npz", n=5, image_shape=[3, 8, 8], image_bits=8)
    np.savez_compressed(folder / "b.npz", arr_0=images.permute(0, 2, 3, 1).numpy())
    write_images(folder / "f", images)
    zipped(folder / "c.zip", {f"{i}.png": (folder / "f" / f"{i:04d}.png").read_bytes() for i in range(3)})
    return [(path.suffix, path.read_bytes()) for path in sorted(folder.glob("?.*"))]


def fuzzed(folder, edits, which):
    suffix, data = sources(folder)[which] if not hasattr(fuzzed, "kept") else fuzzed.kept[which]
    fuzzed.kept = getattr(fuzzed, "kept", None) or sources(folder)
    path = folder / f"mutated{suffix}"
    path.write_bytes(mutated(data, edits))
    try:
        read_reference(path, FAKE)
    except (ValueError, FileNotFoundError) as error:
        assert str(error).isprintable()  # noqa: PT017


@settings(max_examples=300)
@given(EDITS, st.integers(0, 2))
def test_fuzz_references_are_read_or_refused_in_one_line(tmp_path_factory, edits, which):
    fuzzed(tmp_path_factory.getbasetemp(), edits, which)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(EDITS, st.integers(0, 2))
def test_fuzz_many_references(tmp_path_factory, edits, which):
    fuzzed(tmp_path_factory.getbasetemp(), edits, which)


KINDS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(some_images(1, size=16)[0].permute(1, 2, 0).numpy()).save(buffer, kind)
    return buffer.getvalue()


ENCODED = [encoded(kind) for kind in KINDS]


@settings(max_examples=400)
@given(EDITS, st.sampled_from(ENCODED))
def test_fuzz_pictures_are_decoded_or_refused_in_one_line(edits, data):
    try:
        decoded(lambda: io.BytesIO(mutated(data, edits)), "x")
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017


def test_pictures_of_a_damaged_list_are_named(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": png(8, 8), "b.png": png(8, 8)})
    names = image_names(path)
    assert len(list(pictures(path, names))) == 2
    with pytest.raises(ValueError, match="no zip file"):
        list(pictures(tmp_path / "gone.zip", names))
    assert torch.equal(*(one.pixels for one in pictures(path, names)))
