"""Trackers: told of every row as it is written. Rows are the record; a tracker is a copy elsewhere."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What `conf/tracker/*.yaml` builds. `study` is the study's folder, which exists."""

    def log_row(self, study: Path, row: dict[str, Any], cfg: dict[str, Any]) -> None:
        """Called once for each cell that was run or found done, whatever its status.

        row: as it lies in `<study>/rows`. cfg: the cell's resolved configuration, as plain values.
        """
        ...

    def finish_study(self, study: Path) -> None:
        """Called once after the study's report has been written."""
        ...


@dataclass(frozen=True)
class NoTracker:
    """Does nothing."""

    def log_row(self, study: Path, row: dict[str, Any], cfg: dict[str, Any]) -> None:
        return None

    def finish_study(self, study: Path) -> None:
        return None


@dataclass(frozen=True)
class JsonLines:
    """Appends each row to `<study>/<filename>`, one JSON object a line, one write a line."""

    filename: str = "track.jsonl"

    def log_row(self, study: Path, row: dict[str, Any], cfg: dict[str, Any]) -> None:
        line = (json.dumps(row, sort_keys=True) + "\n").encode()
        descriptor = os.open(study / self.filename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def finish_study(self, study: Path) -> None:
        return None


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
