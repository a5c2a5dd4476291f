"""Trackers: told of every row as it is written. Rows are the record; a tracker is a copy elsewhere."""

import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedsbench.files.rows import CellProgress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracker:
    """What `conf/tracker/*.yaml` builds; this one does nothing. `study` is the study's folder."""

    @property
    def progress_every(self) -> float:
        """Seconds between calls of `log_progress` for a cell that runs; infinity for none."""
        return math.inf

    def log_progress(self, study: Path, progress: CellProgress) -> None:
        """Called now and then while a cell runs."""

    def log_row(self, study: Path, row: dict[str, Any], title: str) -> None:
        """Called once for each cell that was run or found done, whatever its status.

        row: as it lies in `<study>/rows`. title: the cell in a few words.
        """

    def finish_study(self, study: Path) -> None:
        """Called once after the study's report has been written."""


@dataclass(frozen=True)
class JsonLines(Tracker):
    """Appends each row to `<study>/<filename>`, one JSON object a line, one write a line.

    OSError where a link, or a pipe that nobody reads, stands in its place: no row lands elsewhere.
    """

    filename: str = "track.jsonl"

    def log_row(self, study: Path, row: dict[str, Any], title: str) -> None:
        with open(study / self.filename, "ab", buffering=0, opener=_as_it_is) as file:
            file.write((json.dumps(row, sort_keys=True) + "\n").encode())


def _as_it_is(path: str, flags: int) -> int:
    """Open without following a link and without waiting, where the system can."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


_SAID: set[str] = set()


def warn_once(message: str) -> None:
    """A warning the first time this process has it to say."""
    if message not in _SAID:
        _SAID.add(message)
        log.warning("%s", message)


def harmless(what: str, call: Callable[[], None]) -> None:
    """Make a call to a tracker; whatever goes wrong in it is one warning and costs no row."""
    try:
        call()
    except Exception as error:
        log.debug("%s failed", what, exc_info=error)
        said = " ".join(str(error).split())[:200]
        warn_once(f"{what} failed, the rows are not affected: {type(error).__name__}: {said}")
