"""Trackers: told of every row as it is written. Rows are the record; a tracker is a copy elsewhere."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """What `conf/tracker/*.yaml` builds."""

    def log_row(self, study: Path, row: dict[str, Any]) -> None:
        """Called once for each cell that was run, whatever its status."""
        ...


@dataclass(frozen=True)
class NoTracker:
    """Does nothing."""

    def log_row(self, study: Path, row: dict[str, Any]) -> None:
        return None


@dataclass(frozen=True)
class JsonLines:
    """Appends each row to `<study>/<filename>`, one JSON object a line, one write a line."""

    filename: str = "track.jsonl"

    def log_row(self, study: Path, row: dict[str, Any]) -> None:
        line = (json.dumps(row, sort_keys=True) + "\n").encode()
        descriptor = os.open(study / self.filename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
