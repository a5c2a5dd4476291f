"""Images inside report.html as data URIs, each made small enough that the page stays a few megabytes."""

import base64
import io
from pathlib import Path

from PIL import Image

FIGURE_BYTES, SHEET_BYTES, STRIP_BYTES = 1_000_000, 1_300_000, 300_000  # of all of a kind, before base64
MOST = 12  # images of a kind; beyond it pages name the file instead
KINDS = {".svg": "svg+xml", ".png": "png", ".jpg": "jpeg"}
REDUCTIONS = (1, 2, 3, 4, 6)  # whole factors: quick, and pixels that were squares stay squares
LARGEST_SOURCE = 40_000_000  # pixels; what is larger is named, not decoded


def data_uri(data: bytes, kind: str) -> str:
    """`data:image/<kind>;base64,...`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure_uri(versions: list[Path], most: int) -> str | None:
    """The sharpest of one figure's files (.svg, .png) that fits in `most` bytes, else a smaller copy."""
    by_kind = {path.suffix: path for path in versions if path.suffix in KINDS and path.is_file()}
    for kind in (".svg", ".png"):
        if kind in by_kind and by_kind[kind].stat().st_size <= most:
            return data_uri(by_kind[kind].read_bytes(), KINDS[kind])
    return smaller(by_kind[".png"], most) if ".png" in by_kind else None


def sheet_uri(path: Path, most: int) -> str | None:
    """A sheet as it is where it fits in `most` bytes, else a smaller copy; None where it cannot be read."""
    return figure_uri([path], most)


def smaller(path: Path, most: int) -> str | None:
    """A JPEG copy of at most `most` bytes, reduced as far as that needs."""
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > LARGEST_SOURCE:
                return None
            image = opened.convert("RGB")
    except (OSError, ValueError):
        return None
    for factor in REDUCTIONS:
        buffer = io.BytesIO()
        image.reduce(factor).save(buffer, format="JPEG", quality=82)
        if buffer.tell() <= most:
            return data_uri(buffer.getvalue(), "jpeg")
    return None


def strip_uris(keys: list[str], samples: Path) -> dict[str, str]:
    """The cells' own strips of samples, where all of them together are small; else none: sheets show them."""
    strips = {path.stem: path for path in samples.glob("*.png")}
    sizes = {key: size for key in keys if key in strips and (size := _size(strips[key]))}
    if sum(sizes.values()) > STRIP_BYTES:
        return {}
    read = {key: _bytes(strips[key]) for key in sizes}
    return {key: data_uri(data, "png") for key, data in read.items() if data.startswith(b"\x89PNG\r\n")}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
