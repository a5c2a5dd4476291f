"""Read a study's rows: one flat JSON object a cell, `<study>/rows/<run_key>.json`, into one table.

Nothing in a results folder makes this raise: what cannot be read is returned as a list of problems, so
that a half-written or foreign file costs one line in the report and not the report.
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
COLUMNS = [
    "run_key", "status", "reason", "model", "regime", "schedule", "grid", "solver", "solver_params",
    "solver_family", "order", "stochastic", "nfe_budget", "nfe", "nfe_max", "n_steps", "samples", "seed",
    "repeat", "labels", "final", "fid", "fid_floor", "is_mean", "is_std", "extractor", "extractor_id",
    "reference_id", "model_id", "seconds_sampling", "seconds_features", "seconds_scoring",
    "images_per_second", "device", "batch_size", "world_size", "time_utc",
]
WHOLE = ["nfe_budget", "nfe_max", "n_steps", "samples", "seed", "repeat", "batch_size", "world_size"]
REAL = [
    "nfe", "fid", "fid_floor", "is_mean", "is_std", "seconds_sampling", "seconds_features",
    "seconds_scoring", "images_per_second",
    "kid_mean", "kid_std", "precision", "recall", "density", "coverage",
]
SORT = [
    "model", "regime", "solver", "solver_params", "schedule", "grid", "final", "labels", "samples",
    "extractor", "reference_id", "nfe_budget", "n_steps", "seed", "repeat", "run_key",
]
# fmt: on
# Names of the network's arithmetic that a row may hold under the name of a score (precision and recall).
ARITHMETIC = ("fp32", "tf32", "bf16", "fp16")
TEXT = set(COLUMNS) - {*WHOLE, *REAL, "order", "stochastic"}


class Problem(NamedTuple):
    """Something a reader of the report should know about a file of the study."""

    file: str
    why: str


def read_rows(study: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """All rows of a study, sorted, with every known column present, and what could not be read."""
    records, problems = [], []
    for path in sorted((study / "rows").glob("*.json")):
        if path.name.startswith("."):  # what editors and archivers leave behind
            continue
        record = _read_one(path, problems)
        if record is not None:
            records.append((path, record))
    kept = _one_per_key(records, problems)
    return _frame(kept), sorted(problems)


def take(df: pd.DataFrame, mask: pd.Series | np.ndarray) -> pd.DataFrame:
    """The rows where a mask holds, typed as the table they are (pandas itself promises a union)."""
    return pd.DataFrame(df.loc[mask])


def records(df: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict a row, by columns: pandas' own way goes through its general iterator and is slow."""
    names = list(map(str, df.columns))
    return [dict(zip(names, line, strict=True)) for line in zip(*(df[n].tolist() for n in df), strict=True)]


def _read_one(path: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """One row with plain values, or None and a problem."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(Problem(path.name, f"not readable as JSON ({_brief(error)}); left out"))
        return None
    if not isinstance(record, dict):
        problems.append(Problem(path.name, f"a {type(record).__name__}, not a row object; left out"))
        return None
    if record.get("status") not in STATUSES or not record.get("solver"):
        what = f"status {record.get('status')!r}, solver {record.get('solver')!r}"
        problems.append(Problem(path.name, f"not a row ({what}; status is one of {STATUSES}); left out"))
        return None
    record["run_key"] = str(record.get("run_key") or path.stem)
    if record.get("precision") in ARITHMETIC:
        record["network_precision"] = record.pop("precision")
    return {_text(name): _plain(name, value, path, problems) for name, value in record.items()}


def _text(text: str) -> str:
    """Text that can be written and drawn: JSON may hold NUL and half a surrogate pair, files may not."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _plain(name: str, value: Any, path: Path, problems: list[Problem]) -> Any:
    """A value a table can hold: numbers where numbers belong, text elsewhere, JSON for nested values."""
    if value is None:
        return None
    if name in WHOLE or name in REAL:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            problems.append(Problem(path.name, f"{name} is {value!r}, not a number; read as missing"))
            return None
        return number if math.isfinite(number) else None
    if name == "solver_params":
        return canonical_params(value)
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    return _text(str(value)) if name in TEXT or isinstance(value, str) else value


def canonical_params(value: Any) -> str:
    """Solver parameters (dict, or JSON text of one) as compact JSON with sorted keys.

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
    # Hydra's own keys (_target_ and the like) say where the code lies, not what the solver does.
    named = {str(key): item for key, item in value.items() if not str(key).startswith("_")}
    return json.dumps(named, sort_keys=True, separators=(",", ":"))


def _one_per_key(records: list[tuple[Path, dict]], problems: list[Problem]) -> list[dict]:
    """The file named after its key wins over copies; among copies the newest, then the last by name."""
    best: dict[str, tuple[tuple, Path, dict]] = {}
    for path, record in records:
        key = record["run_key"]
        rank = (path.stem == key, str(record.get("time_utc") or ""), path.name)
        if key in best and rank < best[key][0]:
            problems.append(Problem(path.name, f"repeats run_key {key} of {best[key][1].name}; left out"))
            continue
        if key in best:
            problems.append(Problem(best[key][1].name, f"repeats run_key {key} of {path.name}; left out"))
        best[key] = (rank, path, record)
    return [record for _, _, record in best.values()]


def _frame(records: list[dict]) -> pd.DataFrame:
    """A sorted table with the known columns first, whatever the rows held."""
    names = {name for record in records for name in record}
    columns = [*COLUMNS, *sorted(names - set(COLUMNS))]
    data = {name: [record.get(name) for record in records] for name in columns}
    for name in columns:
        if name in WHOLE or name in REAL:
            data[name] = pd.Series(data[name], dtype="float64")  # type: ignore[assignment]
        else:
            data[name] = pd.Series(data[name], dtype="object")  # type: ignore[assignment]
    frame = pd.DataFrame(data)
    for name in ("model", "regime", "solver", "solver_params"):
        frame[name] = frame[name].fillna({"solver_params": "{}"}.get(name, "unnamed"))
    by = {name: frame[name] if name in WHOLE else frame[name].fillna("") for name in SORT}
    order = pd.DataFrame(by).sort_values(SORT, kind="stable").index
    return frame.loc[order].reset_index(drop=True)
