"""Pictures of a folder, a zip file or an .npz with `arr_0`, decoded to 8-bit RGB by what each says.

1-bit, grey, palette, RGB, CMYK and YCbCr are what Pillow's convert("RGB") makes of them, as in torch-fidelity
and guided-diffusion. Neither applies EXIF orientation or colour profiles: pixels count as they are stored.
16 bits a channel are cut to their upper 8 (65535 is white), as Pillow does with RGB. Refused by name:
transparent pixels, whose colour nobody sees; animations and files of several pages; numbers without a stated
black and white (32-bit integers, floats); Lab; truncated files. Sizes are judged before pixels are decoded.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedsbench.files.archives import Refused, array_header, open_member, open_zip, printable, reading
from seedsbench.files.regular import check_regular

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
"""What a file of any such name may be to Pillow, which also has readers that start other programs (EPS)."""
MAX_PIXELS = 4096 * 4096
"""Of a picture: 50 MB decoded. Those of the largest data sets that models learn have a sixteenth."""
_CONVERTED = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_WITH_ALPHA = ("LA", "PA", "RGBA")
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
"""How files store 16-bit grey whose white is 65535; 12-bit and signed integers are stored otherwise."""
_UNCLEAR = {"I": "32-bit integers", "F": "floating-point numbers", "LAB": "CIE Lab"}
_WHITE_IS_ZERO = 0
_PHOTOMETRIC = 262  # the TIFF tag that says so
ARRAY = "arr_0"


class Sizes:
    """The size that all pictures of a reference have: that of the first, of at most max_pixels."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels, self.first = max_pixels, ("", 0, 0)

    def check(self, name: str, width: int, height: int) -> None:
        """Raise ValueError, naming the picture, for one too large, or of another size than the first."""
        size = f"{name} has {width} x {height} pixels"
        if width * height > self.max_pixels:
            raise Refused(f"{size}, over {self.max_pixels} in all: make them smaller, or use a smaller block")
        first, *wanted = self.first = self.first if self.first[0] else (name, width, height)
        if [width, height] != wanted:
            other = f"{Path(first).name} has {wanted[0]} x {wanted[1]}"
            raise Refused(f"{size}, {other}: a reference's images must have one size")


class Picture(NamedTuple):
    """uint8 pixels (3, H, W), and how many bits a channel the file had: 8 or 16."""

    pixels: Tensor
    bits: int


def image_names(path: str | Path) -> list[str]:
    """Names of all images below a folder, in a zip or in an .npz, sorted; ValueError for fewer than two."""
    path = Path(path)
    if _is_array(path):
        with _array(path) as (_, shape):
            names = [f"{ARRAY}[{i}]" for i in range(shape[0])]
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
        with reading(f"{path} is neither a folder nor a zip file"), open_zip(path) as archive:
            found = [name for name in archive.namelist() if not name.endswith("/")]
    hidden = (".", "__MACOSX")
    return [name for name in found if not any(part.startswith(hidden) for part in name.split("/"))]


def pictures(path: str | Path, names: list[str], *, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """The named pictures, one after the other, all of one size of at most max_pixels.

    ValueError, naming it, for the first that cannot be read or has another size.
    """
    path, sizes = Path(path), Sizes(max_pixels)
    if path.is_dir():
        for name in names:
            yield decoded(partial(_opened, path / name), f"{path / name}", sizes)
    elif _is_array(path):
        with _array(path) as (file, (_, *shape)):
            sizes.check(f"{path}: {ARRAY}", shape[1], shape[0])
            for name in names:
                yield _of_array(file, tuple(shape), f"{path}: {name}")
    else:
        with reading(f"{path} is no zip file"):
            archive = open_zip(path)
        with archive:
            for name in names:
                yield decoded(partial(open_member, archive, name), f"{path}: {printable(name)}", sizes)


def _opened(path: Path) -> IO[bytes]:
    check_regular(path)
    return path.open("rb")


# --- picture files ------------------------------------------------------------------------------


def decoded(opened: Callable[[], IO[bytes]], name: str, sizes: Sizes | None = None) -> Picture:
    """The image file that `opened` opens; ValueError, in one line, for what has no clear meaning.

    sizes: what its size is compared with before its pixels are decoded.
    """
    with reading(f"{name} is no readable image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are judged here, and of odd tags
        with opened() as file, Image.open(file, formats=_FORMATS) as image:
            (sizes or Sizes()).check(name, *image.size)
            several, stored = _has_another(image), _stored(image)
            image.load()
    if several:
        raise ValueError(f"{name} holds several pictures (frames or pages): save each as a file of its own")
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


def _has_another(image: Image.Image) -> bool:
    """Whether there is a second frame or page. They are not counted: a small file may have millions."""
    if image.format != "TIFF" and image.format != "GIF":  # the others say how many
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


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


@contextmanager
def _array(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """`arr_0` of an .npz, opened behind its header, and its shape (n, H, W, channels).

    guided-diffusion's samples, to be read image by image, not as a whole.
    """
    with ExitStack() as stack:
        with reading(f"{path} holds no images ({ARRAY})"):
            archive = stack.enter_context(open_zip(path))
            file = stack.enter_context(open_member(archive, f"{ARRAY}.npy"))
        with reading(f"{path}: {ARRAY} is no readable array"):
            shape, dtype, by_columns = array_header(file, archive.getinfo(f"{ARRAY}.npy").file_size)
        yield file, _checked_shape(path, shape, dtype, by_columns)


def _checked_shape(path: Path, shape: tuple[int, ...], dtype: np.dtype, by_columns: bool) -> tuple[int, ...]:
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
    with reading(f"{name} is no readable image"):
        values = np.frombuffer(file.read(math.prod(shape)), dtype=np.uint8)
        pixels = torch.from_numpy(values.reshape(shape).copy())
    return Picture(pixels.permute(2, 0, 1).expand(3, -1, -1).contiguous(), 8)
