"""Images inside report.html as data URIs, each made small enough that the page stays a few megabytes."""

import base64
import io
import os
from pathlib import Path

from PIL import Image

FIGURE_BYTES, SHEET_BYTES, STRIP_BYTES = 1_000_000, 1_300_000, 300_000  # of all of a kind, before base64
MAX_IMAGES = 12  # of a kind; beyond it pages name the file instead
_KINDS = {".svg": "svg+xml", ".png": "png", ".jpg": "jpeg"}
_REDUCTIONS = (1, 2, 3, 4, 6)  # whole factors: quick, and pixels that were squares stay squares
_LARGEST_SOURCE = 40_000_000  # pixels; what is larger is named, not decoded


def data_uri(data: bytes, kind: str) -> str:
    """`data:image/<kind>;base64,...`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure_uri(versions: list[Path], most: int) -> str | None:
    """The sharpest of one figure's files (.svg, .png) that fits in `most` bytes, else a smaller copy."""
    by_kind = {path.suffix: path for path in versions if path.suffix in _KINDS and path.is_file()}
    for kind in (".svg", ".png"):
        if kind in by_kind and by_kind[kind].stat().st_size <= most:
            return data_uri(by_kind[kind].read_bytes(), _KINDS[kind])
    return _smaller(by_kind[".png"], most) if ".png" in by_kind else None


def _smaller(path: Path, most: int) -> str | None:
    """A JPEG copy of at most `most` bytes, reduced as far as that needs."""
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _LARGEST_SOURCE:
                return None
            image = opened.convert("RGB")
    except (OSError, ValueError):
        return None
    for factor in _REDUCTIONS:
        buffer = io.BytesIO()
        image.reduce(factor).save(buffer, format="JPEG", quality=82)
        if buffer.tell() <= most:
            return data_uri(buffer.getvalue(), "jpeg")
    return None


def strip_uris(keys: list[str], samples: Path) -> dict[str, str]:
    """The cells' own strips of samples, where all of them together are small; else none: sheets show them."""
    strips = {path.stem: path for path in samples.glob("*.png") if path.is_file()}
    wanted = {key: strips[key] for key in keys if key in strips}
    if sum(path.stat().st_size for path in wanted.values()) > STRIP_BYTES:
        return {}
    read = {key: path.read_bytes() for key, path in wanted.items() if os.access(path, os.R_OK)}
    return {key: data_uri(data, "png") for key, data in read.items() if data.startswith(b"\x89PNG\r\n")}
