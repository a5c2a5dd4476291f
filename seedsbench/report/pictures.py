"""PNG pictures that anyone may have put into a study: their size is known before they are decoded."""

import io
import warnings
from pathlib import Path

from PIL import Image

from seedsbench.files.regular import read_ordinary

MOST_PNG_BYTES = 32 * 2**20
MOST_PIXELS = 40_000_000


def read_png(path: Path) -> Image.Image | None:
    """A PNG of at most MOST_PNG_BYTES and MOST_PIXELS, its pixels not decoded yet; None for all else."""
    try:
        return open_png(read_ordinary(path, max_bytes=MOST_PNG_BYTES))
    except (OSError, ValueError):
        return None


def open_png(data: bytes) -> Image.Image | None:
    """The same of a file's bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("PNG",))
    except Exception:  # Pillow has no common class for what a damaged picture raises
        return None
    return image if 0 < image.width * image.height <= MOST_PIXELS else None


def as_rgb(image: Image.Image | None) -> Image.Image | None:
    """Its pixels as RGB; None where they are damaged."""
    try:
        return image.convert("RGB") if image else None
    except Exception:  # as above
        return None
