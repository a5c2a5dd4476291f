"""The result store: one finished cell is one JSON file named by its run_key.

A file is written beside its place, synced and renamed, so it is there whole or not at all; cells of
concurrent jobs never share a file. Imports no torch.
"""

import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seedsbench.files.atomic import write_atomic

log = logging.getLogger(__name__)

Row = dict[str, Any]
UNNAMED = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}")
"""Folders of studies that were given no name; these may share finished cells with each other."""


def _clean(value: Any) -> Any:
    """NaN and infinities become null, as JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


class ResultStore:
    """Rows of one study folder, `<results_dir>/<study>/rows/<run_key>.json`."""

    def __init__(self, study: Path) -> None:
        self.study = Path(study)

    def path(self, key: str) -> Path:
        return self.study / "rows" / f"{key}.json"

    def sample_path(self, key: str) -> Path:
        return self.study / "samples" / f"{key}.png"

    def prepare(self) -> None:
        """Create the folder and prove that it can be written; ValueError if not."""
        try:
            self.study.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.study, prefix=".write-test-"):
                pass
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.study} ({error.strerror}): choose another place with results_dir=..."
            ) from error

    def read(self, key: str) -> Row | None:
        """The row of a key, None if there is none; a file that is no row is set aside, not lost."""
        path = self.path(key)
        try:
            row = json.loads(path.read_text())
            if (
                isinstance(row, dict)
                and row.get("run_key") == key
                and row.get("status") in ("done", "skipped", "failed")
            ):
                return row
            problem = "it is not a row of this key"
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            problem = str(error)
        earlier = len(list(path.parent.glob(f"{path.name}.unreadable*")))
        aside = path.with_name(f"{path.name}.unreadable" + (f"-{earlier + 1}" if earlier else ""))
        os.replace(path, aside)
        log.warning(
            "%s cannot be used (%s): kept as %s, the cell is computed again", path, problem, aside.name
        )
        return None

    def finished(self, key: str, *, adopt: bool = True) -> Row | None:
        """The row of `key` if it is done, here or in a study that shares with this one.

        adopt: copy another study's row (and its images) here.
        """
        for path in self.shared(f"rows/{key}.json"):
            other = ResultStore(path.parents[1])
            row = other.read(key)
            if row is None or row["status"] != "done":
                continue
            if adopt and other.study != self.study:
                for place in (ResultStore.path, ResultStore.sample_path):
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
        text = json.dumps(_clean(row), indent=1, sort_keys=True, allow_nan=False)
        write_atomic(path, text.encode() + b"\n")
        return path
