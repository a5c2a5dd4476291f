"""What pixels of every mode and kind of file become, or why they are refused."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from seedsbench.data.pictures import decoded, image_names, pictures

GRID = np.arange(64).reshape(8, 8)
DEEP = (GRID * 1024 + GRID * 4 + 3).astype(np.uint16)  # upper bytes 4 * GRID, lower ones not 0


def file_of(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data):
    return decoded(lambda: io.BytesIO(data), "x")


def colour():
    return Image.fromarray(np.stack([GRID * 4, GRID * 3, 255 - GRID], axis=2).astype(np.uint8))


def deep_png(colour_type, channels, key=None):
    """A 16-bit PNG of 8 x 8 pixels, DEEP in every channel, by the specification; key: of a tRNS chunk."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = np.repeat(DEEP[:, :, None], channels, axis=2).astype(">u2")
    header = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    if key is not None:
        chunks.insert(1, (b"tRNS", key))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", kind) for kind in ("PNG", "BMP", "PPM", "TIFF", "WEBP")),
        *[("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF")],
    ],
)
def test_eight_bits_are_what_pillow_makes_of_them(mode, kind):
    data = file_of(colour().convert(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == mode
        wanted = np.array(colour() if mode == "RGB" else image.convert("RGB"))
    found = read(data)
    assert found.bits == 8
    np.testing.assert_array_equal(found.pixels.permute(1, 2, 0), wanted)


# Their upper eight bits are kept.
SIXTEEN_BITS = {
    "png": (file_of(Image.fromarray(DEEP)), 4 * GRID),
    "tiff": (file_of(Image.fromarray(DEEP), "TIFF"), 4 * GRID),
    "tiff, lzw": (file_of(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"), 4 * GRID),
    "big-endian": (file_of(Image.frombytes("I;16B", (8, 8), DEEP.astype(">u2").tobytes()), "TIFF"), 4 * GRID),
    "ppm": (file_of(Image.fromarray(DEEP), "PPM"), 4 * GRID),
    "rgb png": (deep_png(2, 3), 4 * GRID),
    "white": (file_of(Image.fromarray(np.full((8, 8), 65535, np.uint16))), 255),
    "black": (file_of(Image.fromarray(np.full((8, 8), 0, np.uint16))), 0),
}


@pytest.mark.parametrize(("data", "wanted"), SIXTEEN_BITS.values(), ids=SIXTEEN_BITS)
def test_sixteen_bits_keep_their_upper_eight(data, wanted):
    found = read(data)
    assert found.bits == 16
    for channel in found.pixels:
        np.testing.assert_array_equal(channel, wanted)


def white_is_zero():
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 0
    return file_of(Image.fromarray(DEEP), "TIFF", tiffinfo=info)


def several(kind):
    return file_of(colour(), kind, save_all=True, append_images=[colour().rotate(90)])


REFUSED = {
    "32-bit integers": (file_of(Image.fromarray(GRID.astype(np.int32)), "TIFF"), "32-bit integers (mode I)"),
    "floats": (file_of(Image.fromarray(GRID.astype(np.float32)), "TIFF"), "floating-point numbers (mode F)"),
    "lab": (file_of(Image.new("LAB", (8, 8)), "TIFF"), "CIE Lab (mode LAB)"),
    "8 bits in 16": (file_of(Image.fromarray(GRID.astype(np.uint16))), "its largest value is 63"),
    "white is 0": (white_is_zero(), "whose white is 0"),
    "pages": (several("TIFF"), "holds several pictures"),
    "gif": (several("GIF"), "holds several pictures"),
    "webp": (several("WEBP"), "holds several pictures"),
    "apng": (several("PNG"), "holds several pictures"),
    "clear": (file_of(Image.new("RGBA", (8, 8), (1, 2, 3, 254))), "has transparent pixels"),
    "clear grey": (file_of(Image.new("LA", (8, 8), (9, 0))), "has transparent pixels"),
    "clear colour": (file_of(colour(), transparency=(0, 0, 255)), "has transparent pixels"),
    "clear entry": (file_of(colour().convert("P"), transparency=b"\0" * 256), "has transparent pixels"),
    "clear, 16 bits": (deep_png(0, 1, key=b"\0\3"), "has transparent pixels"),
    "16-bit alpha": (deep_png(6, 4), "has transparent pixels"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_clear_meaning_is_refused_by_name(data, message):
    with pytest.raises(ValueError, match=r"^x ") as caught:
        read(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_that_hides_nothing_is_dropped(mode):
    opaque, unused = colour().convert("L" if mode == "LA" else "RGB").convert(mode), {}
    if mode == "P":
        opaque, unused = Image.frombytes("P", (8, 8), GRID.astype(np.uint8).tobytes()), {"transparency": 255}
        opaque.putpalette(bytes(range(256)) * 3)
    found = read(file_of(opaque, **unused)).pixels.permute(1, 2, 0)
    np.testing.assert_array_equal(found, np.array(opaque.convert("RGB")))


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = (file_of(colour().crop((0, 0, 8, 4)), **options) for options in ({}, {"exif": exif}))
    assert torch.equal(read(plain).pixels, read(turned).pixels)
    assert tuple(read(turned).pixels.shape) == (3, 4, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused_by_name(kind):
    data = file_of(colour(), kind)
    for length in (0, 1, len(data) // 3, len(data) // 2, len(data) - 30):
        with pytest.raises(ValueError, match=r"^x is no readable image: "):
            read(data[:length])


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, file_of(colour(), "BMP"))
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[100] ^= 255
    (tmp_path / "z.zip").write_bytes(data)
    names = image_names(tmp_path / "z.zip")
    with pytest.raises(ValueError, match=r"z.zip: a.png is no readable image"):
        list(pictures(tmp_path / "z.zip", names))
