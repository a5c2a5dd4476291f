"""The result store: one finished cell is one JSON file named by its run_key.

A file is written beside its place, synced and renamed, so it is there whole or not at all; cells of
concurrent jobs never share a file. Imports no torch.
"""

import json
import logging
import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from seedsbench.files.atomic import set_aside, sweep, temporary_prefix, write_atomic
from seedsbench.files.rows import Row, check_row, read_row

log = logging.getLogger(__name__)

UNNAMED = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}")
"""Folders of studies that were given no name; these may share finished cells with each other."""
FOLDERS = ("rows", "samples", "partial", "statistics", "images")
"""What a study's folder holds of its cells."""


def _clean(value: Any) -> Any:
    """NaN and infinities become null, as JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


def row_text(row: Row) -> str:
    """A row as its file holds it; ValueError for one that would not be read as a row again."""
    text = json.dumps(_clean(row), indent=1, sort_keys=True, allow_nan=False)
    check_row(json.loads(text))
    return f"{text}\n"


def _kept_aside(path: Path, why: str) -> None:
    with suppress(FileNotFoundError):  # another process does the same
        log.warning("%s cannot be used (%s): kept as %s", path, why, set_aside(path).name)


class ResultStore:
    """Rows of one study folder, `<results_dir>/<study>/rows/<run_key>.json`."""

    def __init__(self, study: Path) -> None:
        self.study = Path(study)

    def path(self, key: str) -> Path:
        return self.study / "rows" / f"{key}.json"

    def sample_path(self, key: str) -> Path:
        return self.study / "samples" / f"{key}.png"

    def statistics_path(self, key: str) -> Path:
        return self.study / "statistics" / f"{key}.npz"

    def images_folder(self, key: str) -> Path:
        return self.study / "images" / key

    def prepare(self) -> None:
        """Create the folder and prove that it can be written; ValueError if not.

        Temporary files of writers that were killed are deleted; what stands in a folder's place is set aside.
        """
        try:
            self.study.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.study, prefix=temporary_prefix(), suffix=".tmp"):
                pass
            for name in FOLDERS:
                if (place := self.study / name).exists() and not place.is_dir():
                    _kept_aside(place, "not a folder")
            sweep(self.study)  # those of reports, too
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.study} ({error.strerror}): choose another place with results_dir=..."
            ) from error

    def finished(self, key: str, *, look_only: bool = False) -> Row | None:
        """The row of `key` if it is done, here or in a study that shares with this one.

        Another study's row (with its strip of images and its statistics) is copied here, and a file here that
        is no row is set aside.
        look_only: neither is.
        """
        for path in self.shared(f"rows/{key}.json"):
            other = ResultStore(path.parents[1])
            try:
                row = read_row(path)
            except FileNotFoundError:
                continue
            except ValueError as error:
                if not look_only and other.study == self.study:
                    _kept_aside(path, f"{error}; the cell is computed again")
                continue
            if row["status"] != "done":
                continue
            if not look_only and other.study != self.study:
                for place in (ResultStore.sample_path, ResultStore.statistics_path, ResultStore.path):
                    if place(other, key).is_file():
                        write_atomic(place(self, key), place(other, key).read_bytes())
            return row
        return None

    def shared(self, name: str) -> Iterator[Path]:
        """`folder/file` of this study and, if it has no name, those there are of other such, latest first."""
        yield self.study / name
        if UNNAMED.fullmatch(self.study.name):
            for path in sorted(self.study.parent.glob(f"*/{name}"), reverse=True):
                study = path.parents[1]
                if study != self.study and UNNAMED.fullmatch(study.name):
                    yield path

    def write(self, row: Row) -> Path:
        """Write a row atomically and return its path."""
        path = self.path(row["run_key"])
        write_atomic(path, row_text(row).encode())
        return path
