"""What Weights & Biases is told of a row, as plain data: a flat configuration, tags, scores."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from seedsbench.files.rows import Row

GOALS = {"fid": "min", "trajectory_rms": "min", "is": "max", "seconds": "min", "images_per_second": "max"}
"""Scores that are better lower or higher: what a curve's summary keeps of them."""
SCORES = ("nfe", *GOALS, "is_std", "fid_floor", "fid_infinity", "kid_mean", "precision", "recall")
"""What is plotted against nfe."""
_RENAMED = {"is_mean": "is", "seconds_sampling": "seconds", "commit": "git_commit"}
_GROUPS = ("model", "regime", "schedule", "grid", "solver", "guidance")
# fmt: off
_CONFIG = (
    *_GROUPS, "nfe_budget", "samples", "seed", "labels", "final", "training", "afs", "dtype",
    "network_precision", "compile", "seeding", "extractor", "reference", "device", "device_name",
    "version_seedsbench", "version_torch", "commit", "command", "run_key",
)
# fmt: on
_OF_A_CELL = ("nfe_budget", "command", "run_key")
LONGEST_TAG = 64


def flat_config(row: Row) -> dict[str, Any]:
    """Choices and sizes by name, and options with their group before them, as solver_c2: no nesting."""
    options = {
        f"{group}_{key}": value
        for group in _GROUPS
        if isinstance(params := row.get(f"{group}_params"), Mapping)
        for key, value in params.items()
    }
    known = {_RENAMED.get(key, key): row[key] for key in _CONFIG if row.get(key) is not None}
    return options | known


def curve_config(row: Row) -> dict[str, Any]:
    """`flat_config` less what is of one budget alone."""
    return {key: value for key, value in flat_config(row).items() if key not in _OF_A_CELL}


def tags_of(row: Row) -> list[str]:
    """Model, regime, solver, its family, and the guidance if there is any."""
    told = [row.get(key) for key in ("model", "regime", "solver", "solver_family", "guidance")]
    return list(dict.fromkeys(str(tag)[:LONGEST_TAG] for tag in told if tag and tag != "none"))


def scores_of(row: Row) -> dict[str, float]:
    """What is plotted: nfe, fid, is, seconds and so on, as far as the row has them."""
    known = _renamed(row)
    return {key: known[key] for key in SCORES if isinstance(known.get(key), Real)}


def summary_of_row(row: Row) -> dict[str, Any]:
    """What came of a cell: scores, times, status and reason; all that is plain and no configuration."""
    plain = {key: value for key, value in _renamed(row).items() if isinstance(value, str | bool | Real)}
    return {key: value for key, value in plain.items() if key not in flat_config(row)}


def _renamed(row: Row) -> Row:
    return {_RENAMED.get(key, key): value for key, value in row.items()}
