"""Read a study's rows: one flat JSON object a cell, `<study>/rows/<run_key>.json`, into one table.

A cell is one solver at one NFE budget, of one model, regime and seed. Nothing in a results folder makes this
raise: what cannot be read is returned as a list of faults, so that a half-written or foreign file costs one
line in the report and not the report.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

STATUSES = ("done", "skipped", "failed")
# fmt: off
# The order in which people read a row; columns we do not know follow, sorted by name.
_COLUMNS = [
    "run_key", "status", "reason", "warning", "model", "regime", "schedule", "grid", "solver",
    "solver_params", "solver_family", "order", "stochastic", "nfe_budget", "nfe", "nfe_max", "n_steps",
    "samples", "seed", "repeat", "labels", "final", "fid", "fid_floor", "is_mean", "is_std", "extractor",
    "extractor_id", "reference_id", "model_id", "seconds_sampling", "seconds_features", "seconds_scoring",
    "images_per_second", "device", "batch_size", "world_size", "time_utc",
]
WHOLE = ["nfe_budget", "nfe_max", "n_steps", "samples", "seed", "repeat", "batch_size", "world_size"]
_REAL = [
    "nfe", "fid", "fid_floor", "is_mean", "is_std", "seconds_sampling", "seconds_features",
    "seconds_scoring", "images_per_second",
    "kid_mean", "kid_std", "precision", "recall", "density", "coverage",
    "largest", "largest_data", "saturated",
]
_SORTED_BY = [
    "model", "regime", "solver", "solver_params", "schedule", "grid", "final", "labels", "samples",
    "extractor", "reference_id", "nfe_budget", "n_steps", "seed", "repeat", "run_key",
]
# fmt: on
_NUMBERS = {*WHOLE, *_REAL}
_PARAMS = {"solver_params", "schedule_params", "grid_params", "metrics_params"}
_TEXT = set(_COLUMNS) - {*_NUMBERS, "order", "stochastic"}
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class RowFault(NamedTuple):
    """What is wrong with a file of the study."""

    file: str
    why: str


def read_rows(study: Path) -> tuple[pd.DataFrame, list[RowFault]]:
    """All rows of a study, sorted, with every known column present, and what could not be read."""
    rows: list[tuple[str, dict[str, Any]]] = []
    faults: list[RowFault] = []
    for path in (study / "rows").glob("*.json"):
        if path.name.startswith("."):  # what editors and archivers leave behind
            continue
        try:
            rows.append((path.name, _read_row(path)))
        except ValueError as error:
            faults.append(RowFault(path.name, f"{error}; left out"))
    frame = _frame(_one_per_key(rows, faults), faults)
    return frame, sorted(faults)


def take(df: pd.DataFrame, mask: pd.Series | np.ndarray) -> pd.DataFrame:
    """The rows where a mask holds, typed as the table they are (pandas itself promises a union)."""
    return pd.DataFrame(df.loc[mask])


def status_counts(df: pd.DataFrame) -> dict[str, int]:
    """How many rows were done, skipped, and failed."""
    return {status: int((df["status"] == status).sum()) for status in STATUSES}


def without_fid(df: pd.DataFrame) -> pd.DataFrame:
    """Finished cells without a usable FID: said in tables, since figures leave them out."""
    return take(df, (df["status"] == "done") & ~(df["fid"] > 0))


def _read_row(path: Path) -> dict[str, Any]:
    try:
        row = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        brief = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"not readable as JSON ({brief})") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not a row object")
    if row.get("status") not in STATUSES or not row.get("solver"):
        what = f"status {row.get('status')!r}, solver {row.get('solver')!r}"
        raise ValueError(f"not a row ({what}; status is one of {STATUSES})")
    return row | {"run_key": str(row.get("run_key") or path.stem)}


def _one_per_key(rows: list[tuple[str, dict]], faults: list[RowFault]) -> list[tuple[str, dict]]:
    """Of copies the row in the file named after its key, else the newest, else the last by name."""

    def rank(item: tuple[str, dict]) -> tuple[bool, str, str]:
        file, row = item
        return file == f"{row['run_key']}.json", str(row.get("time_utc") or ""), file

    best: dict[str, tuple[str, dict]] = {}
    for file, row in sorted(rows, key=rank):
        key = row["run_key"]
        if key in best:
            faults.append(RowFault(best[key][0], f"repeats run_key {key} of {file}; left out"))
        best[key] = (file, row)
    return list(best.values())


def _frame(rows: list[tuple[str, dict]], faults: list[RowFault]) -> pd.DataFrame:
    others: set[str] = set().union(*(row for _, row in rows)) - set(_COLUMNS)
    names = [*_COLUMNS, *sorted(others)]
    columns = {}
    for name in names:
        values = [_value(name, row.get(name), file, faults) for file, row in rows]
        columns[_text(name)] = pd.Series(values, dtype=_dtype(name))
    frame = pd.DataFrame(columns)
    for name in ("model", "regime", "solver", "solver_params"):
        frame[name] = frame[name].fillna("{}" if name == "solver_params" else "unnamed")
    return frame.sort_values(_SORTED_BY, kind="stable", ignore_index=True)


def _dtype(name: str) -> str:
    return "UInt64" if name == "seed" else "float64" if name in _NUMBERS else "object"


def _value(name: str, value: Any, file: str, faults: list[RowFault]) -> Any:
    """A value that a table can hold: a number where numbers belong, text elsewhere, JSON of a nested one."""
    if value is None:
        return None
    if name in _NUMBERS:
        try:
            return _seed(value) if name == "seed" else _number(value, whole=name in WHOLE)
        except (TypeError, ValueError, OverflowError):
            what = "a seed (0 to 2**64 - 1)" if name == "seed" else "a number one can use"
            given = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:50]}..."
            faults.append(RowFault(file, f"{name} is {given}, not {what}; read as missing"))
            return None
    if name in _PARAMS:
        return canonical_params(value)
    if isinstance(value, dict | list):
        return _encode(value)
    return _text(str(value)) if isinstance(value, str) or name in _TEXT else value


def _seed(value: Any) -> int:
    """A seed as it is: a float would make one of two large ones."""
    seed = int(value)
    if not 0 <= seed < 2**64 or (seed != value and not isinstance(value, str)):
        raise ValueError
    return seed


def _number(value: Any, *, whole: bool) -> float:
    number = float(value)
    if whole and abs(number) >= 2**53:  # from here on a float holds no whole number for sure
        raise ValueError
    return number if math.isfinite(number) else math.nan


def _text(text: str) -> str:
    """Text that can be written and drawn: JSON may hold NUL and half a surrogate pair, files may not."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def canonical_params(value: Any) -> str:
    """Options of a group (dict, or JSON text of one) as compact JSON with sorted keys.

    >>> canonical_params({"eta": 1, "c2": 0.4})
    '{"c2":0.4,"eta":1}'
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = {"params": value}
    if not isinstance(value, dict):
        value = {"params": value}
    # Hydra's own keys (_target_ and the like) say where the code lies, not what it does.
    return _encode({str(key): item for key, item in value.items() if not str(key).startswith("_")})
