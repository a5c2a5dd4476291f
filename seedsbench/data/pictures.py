"""Pictures of a folder, a zip file or an .npz with `arr_0`, decoded to 8-bit RGB by what each says.

1-bit, grey, palette, RGB, CMYK and YCbCr are what Pillow's convert("RGB") makes of them, as in torch-fidelity
and guided-diffusion. Neither applies EXIF orientation or colour profiles: pixels count as they are stored.
16 bits a channel are cut to their upper 8 (65535 is white), as Pillow does with RGB. Refused by name:
transparent pixels, whose colour nobody sees; animations and files of several pages; numbers without a stated
black and white (32-bit integers, floats); Lab; truncated files.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
_CONVERTED = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_WITH_ALPHA = ("LA", "PA", "RGBA")
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
"""How files store 16-bit grey whose white is 65535; 12-bit and signed integers are stored otherwise."""
_UNCLEAR = {"I": "32-bit integers", "F": "floating-point numbers", "LAB": "CIE Lab"}
_WHITE_IS_ZERO = 0
_PHOTOMETRIC = 262  # the TIFF tag that says so
ARRAY = "arr_0"
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a member of a damaged or locked zip file raises."""


class Picture(NamedTuple):
    """uint8 pixels (3, H, W), and how many bits a channel the file had: 8 or 16."""

    pixels: Tensor
    bits: int


def image_names(path: str | Path) -> list[str]:
    """Names of all images below a folder, in a zip or in an .npz, sorted; ValueError for fewer than two."""
    path = Path(path)
    if _is_array(path):
        with _array(path) as file:
            names = [f"{ARRAY}[{i}]" for i in range(_shape(path, file)[0])]
    else:
        names = sorted(name for name in _files(path) if Path(name).suffix.lower() in _SUFFIXES)
    if len(names) < 2:
        kinds = " ".join(sorted(_SUFFIXES))
        raise ValueError(f"{path} holds {len(names)} images ({kinds}): at least 2 make a covariance")
    return names


def other_kinds(path: str | Path) -> list[str]:
    """Suffixes of the files in a folder or zip that `image_names` passes over, one for each file."""
    path = Path(path)
    suffixes = [Path(name).suffix.lower() for name in ([] if _is_array(path) else _files(path))]
    return sorted(suffix for suffix in suffixes if suffix not in _SUFFIXES)


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and not path.is_dir()


def _files(path: Path) -> list[str]:
    if path.is_dir():
        found = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                found = [name for name in archive.namelist() if not name.endswith("/")]
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is neither a folder nor a zip file: {error}") from error
    hidden = (".", "__MACOSX")
    return [name for name in found if not any(part.startswith(hidden) for part in name.split("/"))]


def pictures(path: str | Path, names: list[str]) -> Iterator[Picture]:
    """The named pictures, one after the other; ValueError, naming it, for the first that cannot be read."""
    path = Path(path)
    if path.is_dir():
        for name in names:
            yield decoded(partial(open, path / name, "rb"), f"{path / name}")
    elif _is_array(path):
        with _array(path) as file:
            shape = _shape(path, file)[1:]
            for name in names:
                yield _of_array(file, shape, f"{path}: {name}")
    else:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                yield decoded(partial(archive.open, name), f"{path}: {name}")


# --- picture files ------------------------------------------------------------------------------


def decoded(opened: Callable[[], IO[bytes]], name: str) -> Picture:
    """The image file that `opened` opens; ValueError, in one line, for what has no clear meaning."""
    try:
        with opened() as file, Image.open(file) as image:
            frames, stored = getattr(image, "n_frames", 1), _stored(image)
            image.load()
    except Exception as error:  # decoders raise what they like; a damaged zip does so while it is read
        raise ValueError(f"{name} is no readable image: {' '.join(str(error).split())}") from error
    if frames > 1:
        raise ValueError(f"{name} holds {frames} pictures (frames or pages): save each as a file of its own")
    bits = 16 if ";16" in stored and not stored.startswith("BGR") else 8  # BGR;16 has 5 or 6 bits a channel
    if not _opaque(image, bits):
        raise ValueError(f"{name} has transparent pixels: put it on a background and save it without alpha")
    if stored in _GREY_16:
        grey = _upper_bits(image, name)
        return Picture(torch.from_numpy(grey).expand(3, -1, -1).contiguous(), bits)
    if image.mode not in _CONVERTED + _WITH_ALPHA:
        raise ValueError(
            f"{name} holds {_UNCLEAR.get(image.mode, 'pixels')} (mode {image.mode}), whose black and white "
            "nothing states: save it as 8-bit grey or RGB, or as a 16-bit grey PNG whose white is 65535"
        )
    pixels = np.array(image.convert("RGB"))
    return Picture(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), bits)


def _stored(image: Any) -> str:
    """Pillow's name of how the pixels lie in the file, such as "RGB;16B"; the mode alone tells no depth."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _opaque(image: Image.Image, bits: int) -> bool:
    keyed = "transparency" in image.info
    if keyed and bits == 16:  # a colour of 16 bits, which cannot be found among the 8 that are left
        return False
    if not keyed and image.mode not in _WITH_ALPHA:
        return True
    return image.convert("RGBA").getchannel("A").getextrema()[0] == 255


def _upper_bits(image: Image.Image, name: str) -> np.ndarray:
    values = np.array(image).astype(np.int64)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise ValueError(f"{name} is a 16-bit TIFF whose white is 0: save it with black at 0")
    if 0 < values.max() < 256:
        raise ValueError(
            f"{name} is of 16 bits, but its largest value is {values.max()}, black where 65535 is white: "
            "save it as 8-bit grey, or scale it to 0 .. 65535"
        )
    return (values >> 8).astype(np.uint8)


# --- arrays of pictures -------------------------------------------------------------------------


def _array(path: Path) -> IO[bytes]:
    """`arr_0` of an .npz, opened: guided-diffusion's samples, to be read image by image, not as a whole."""
    try:
        return zipfile.ZipFile(path).open(f"{ARRAY}.npy")
    except _DAMAGED as error:
        raise ValueError(f"{path} holds no images ({ARRAY}): {error}") from error


def _shape(path: Path, file: IO[bytes]) -> tuple[int, ...]:
    """(n, H, W, channels) of `arr_0`, its header read from `file`."""
    try:
        np.lib.format.read_magic(file)
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    except _DAMAGED as error:
        raise ValueError(f"{path}: {ARRAY} is no readable array: {error}") from error
    wrong = None
    if dtype != np.uint8:
        wrong = "save (127.5 * x + 128).clip(0, 255).astype(numpy.uint8) for x in -1 .. 1"
    elif len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        wrong = "use transpose(0, 2, 3, 1)"
    elif len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape or by_columns:
        wrong = "save it so with numpy.savez"
    if wrong is not None:
        order = " by columns" if by_columns else ""
        raise ValueError(
            f"{path}: {ARRAY} is {dtype} {shape}{order}; images are uint8 (n, height, width, 3 or 1): {wrong}"
        )
    return shape


def _of_array(file: IO[bytes], shape: tuple[int, ...], name: str) -> Picture:
    try:
        values = np.frombuffer(file.read(int(np.prod(shape))), dtype=np.uint8)
        pixels = torch.from_numpy(values.reshape(shape).copy())
    except _DAMAGED as error:
        raise ValueError(f"{name} is no readable image: {error}") from error
    return Picture(pixels.permute(2, 0, 1).expand(3, -1, -1).contiguous(), 8)
