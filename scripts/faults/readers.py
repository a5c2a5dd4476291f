"""The readers of files from outside, each fed one file in a process of its own."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from seedsbench.bench.resume import unpacked
from seedsbench.data.pictures import decoded, image_names, pictures
from seedsbench.denoisers.checkpoints.edm.read import read_edm
from seedsbench.denoisers.checkpoints.formats import load_any
from seedsbench.denoisers.checkpoints.reading import read_torch
from seedsbench.files.download import RemoteFile, fetch
from seedsbench.files.json_files import read_json
from seedsbench.files.rows import read_row
from seedsbench.metrics.dinov2 import dinov2_extractor
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.reference import read_reference

READ, REFUSED_FILE, UNCLEAR = 0, 3, 4
"""Exit codes: read; refused in one line; refused in words that no terminal should show."""
DIM = 6


def _features(images: Tensor) -> tuple[Tensor, None]:
    means = images.double().div(255).mean((2, 3)).expand(-1, 3)
    return means.repeat(1, 2), None


EXTRACTOR = Extractor("means", "means", DIM, 0, 64.0, True, _features, None, 4)
"""Six numbers of an image, at no cost."""


def _fetched(path: Path) -> Any:
    """A file in a cache whose record of hashes is the file at `path`."""
    held = path.with_suffix("")
    held.write_bytes(b"weights")
    return fetch(RemoteFile("https://localhost/x", held.name, folder=held.parent), offline=True)


READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": lambda path: load_any(path, {}),
    "torch": read_torch,
    "edm": read_edm,
    "dinov2": dinov2_extractor,
    "reference": lambda path: read_reference(path, EXTRACTOR),
    "images": lambda path: [*pictures(path, image_names(path))],
    "picture": lambda path: decoded(lambda: path.open("rb"), path.name),
    "record": _fetched,
    "row": read_row,
    "json": read_json,
    "sums": lambda path: unpacked(path.read_bytes()),
}


def outcome_of(reader: str, path: Path) -> tuple[int, str]:
    """What reading a file came to, as an exit code and in words; other errors than the promised escape."""
    try:
        READERS[reader](path)
    except (ValueError, OSError) as error:
        said = str(error)
        return (REFUSED_FILE if said.isprintable() else UNCLEAR), said
    return READ, "read"


def main() -> None:
    """Read the file that the command's second word names with the reader that its first one names."""
    code, said = outcome_of(sys.argv[1], Path(sys.argv[2]))
    print(ascii(said))
    sys.exit(code)
