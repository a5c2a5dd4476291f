"""What a row is: the schema of `<study>/rows/<run_key>.json`, and the one place where a row is judged.

The store, the report, the plan and the trackers all read rows through it. A file that fails is no row: it is
left out of reports, and a run sets it aside and computes the cell again. Imports no torch.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedsbench.files.json_files import read_json

Row = dict[str, Any]
STATUSES = ("done", "skipped", "failed")


@dataclass(frozen=True)
class ColumnKind:
    """What the values of a column are, null apart: of these types, and, for numbers, in [low, high]."""

    wanted: str
    types: tuple[type, ...]
    low: float | None = None
    high: float | None = None

    def __contains__(self, value: Any) -> bool:
        if type(value) not in self.types:  # not isinstance: true is no number
            return False
        return self.low is None or self.high is None or self.low <= value <= self.high


TEXT = ColumnKind("a text", (str,))
FLAG = ColumnKind("true or false", (bool,))
GROUP_OPTIONS = ColumnKind("an object or a text", (dict, str))
NUMBER = ColumnKind("a number", (int, float), -1e15, 1e15)
SCORE = ColumnKind("a number from 0 to 1e15", (int, float), 0, 1e15)
COUNT = ColumnKind("a whole number below 2**53", (int,), 0, 2**53 - 1)
SEED = ColumnKind("a seed (0 to 2**64 - 1)", (int,), 0, 2**64 - 1)
# fmt: off
COLUMNS: dict[str, ColumnKind] = {
    "run_key": TEXT, "status": TEXT, "reason": TEXT, "warning": TEXT, "model": TEXT, "regime": TEXT,
    "schedule": TEXT, "grid": TEXT, "solver": TEXT, "solver_params": GROUP_OPTIONS, "solver_family": TEXT,
    "order": NUMBER, "stochastic": FLAG, "nfe_budget": COUNT, "nfe": SCORE, "nfe_max": COUNT,
    "n_steps": COUNT, "samples": COUNT, "seed": SEED, "repeat": COUNT, "labels": TEXT, "final": TEXT,
    "fid": SCORE, "fid_floor": SCORE, "is_mean": SCORE, "is_std": SCORE, "extractor": TEXT,
    "extractor_id": TEXT, "reference_id": TEXT, "model_id": TEXT, "seconds_sampling": SCORE,
    "seconds_features": SCORE, "seconds_scoring": SCORE, "images_per_second": SCORE, "device": TEXT,
    "batch_size": COUNT, "world_size": COUNT, "time_utc": TEXT,
}
"""The columns that people read first, in their order; null or missing where a row has none."""
OTHER_COLUMNS: dict[str, ColumnKind] = {
    "fid_floor_std": SCORE, "kid_mean": NUMBER, "kid_std": SCORE, "precision": SCORE, "recall": SCORE,
    "density": SCORE, "coverage": SCORE, "largest": SCORE, "largest_data": SCORE, "saturated": SCORE,
    "trajectory_rms": SCORE, "trajectory_median": SCORE, "sliced_wasserstein": SCORE,
    "seconds_floor": SCORE, "fid_infinity": NUMBER, "fid_infinity_std": SCORE, "weak_order": NUMBER,
    "statistics_id": TEXT, "schedule_params": GROUP_OPTIONS, "grid_params": GROUP_OPTIONS,
    "metrics_params": GROUP_OPTIONS, "guidance": TEXT, "guidance_params": GROUP_OPTIONS,
    "invocation": TEXT, "command": TEXT, "extractor_weights": TEXT, "reference": TEXT,
    "reference_shape": TEXT, "reference_images": COUNT, "real_id": TEXT, "machine": TEXT, "threads": COUNT,
    "numerics_version": COUNT, "training": COUNT, "network_precision": TEXT, "dtype": TEXT, "afs": FLAG,
    "compile": FLAG,
}
"""Further ones that something reads. What is in neither is carried along as it is."""
# fmt: on
KINDS = COLUMNS | OTHER_COLUMNS
_NEEDED = {"done": ("run_key", "nfe"), "skipped": ("run_key",), "failed": ("run_key",)}
"""Columns that a row of a status cannot lack."""
SCORE_NAMES = {"fid": "FID", "trajectory_rms": "distance to the exact path"}
"""What a finished row is judged by, the first of these that it has, and its name. Lower is better."""


def read_row(path: Path) -> Row:
    """The row in a file; FileNotFoundError where there is none.

    ValueError, in one line that does not name the file, for one that is damaged, has another key than its
    name, or holds a value that its column cannot have.
    """
    row = read_json(path)
    check_row(row)
    if row["run_key"] != path.stem:
        raise ValueError(f"the row of another key, {row['run_key']!r:.40}")
    return row


def judged_by(row: Row) -> str:
    """The column of SCORE_NAMES that a finished row is judged by."""
    return next(name for name in SCORE_NAMES if row.get(name) is not None)


def check_row(row: Any) -> None:
    """Raise ValueError, in one line, unless an object is a row."""
    if not isinstance(row, dict):
        raise ValueError(f"not a row but a {type(row).__name__}")
    status = row.get("status")
    if status not in STATUSES or not row.get("solver"):
        found = f"status {status!r:.40}, solver {row.get('solver')!r:.40}"
        raise ValueError(f"not a row ({found}; status is one of {', '.join(STATUSES)})")
    for name in _NEEDED[status]:
        if row.get(name) is None:
            raise ValueError(f"a row that is {status} without {name}")
    if status == "done" and all(row.get(name) is None for name in SCORE_NAMES):
        raise ValueError(f"a row that is done without {' or '.join(SCORE_NAMES)}")
    for name, value in row.items():
        if value is not None and name in KINDS and value not in KINDS[name]:
            raise ValueError(f"a row whose {name} is {value!r:.40}, not {KINDS[name].wanted}")


_IN_EVERY_TITLE = re.compile(
    r"[+~]*(model|regime|model\.training|solver|solver\.scheduler|guidance(\.\w+)?|nfe|seed)="
)
"""Words of a command whose values every title has."""


def title_of(row: Row, varied: Iterable[str] = ()) -> str:
    """A cell in a few words, for logs, bars and trackers: "glyphs/edm seeds3 nfe=20 seed=0 solver.c2=0.4".

    varied: the words of its command that differ between the command's cells.
    """
    training, options = row.get("training"), row.get("guidance_params") or {}
    words = [f"{row['model']}/{row['regime']}" + (f" training={training}" if training else "")]
    scheduler = (row.get("solver_params") or {}).get("scheduler") if row["solver"] == "diffusers" else None
    words += [row["solver"] + (f"({scheduler})" if scheduler else "")]
    if (guidance := row.get("guidance", "none")) != "none":
        told = ", ".join(f"{key}={value}" for key, value in options.items() if value)
        words += [f"{guidance}({told})" if told else guidance]
    words += [f"nfe={row['nfe_budget']}", f"seed={row['seed']}"]
    return " ".join([*words, *(word for word in varied if not _IN_EVERY_TITLE.match(word))])
