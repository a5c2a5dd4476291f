"""Read a study's rows: one flat JSON object a cell, `<study>/rows/<run_key>.json`, into one table.

Nothing in a results folder makes this raise: what cannot be read is returned as a list of problems, so
that a half-written or foreign file costs one line in the report and not the report.
"""

import gc
import json
import math
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd

STATUSES = ("done", "skipped", "failed")
# fmt: off
# The order in which people read a row; columns we do not know follow, sorted by name.
COLUMNS = [
    "run_key", "status", "reason", "warning", "model", "regime", "schedule", "grid", "solver",
    "solver_params", "solver_family", "order", "stochastic", "nfe_budget", "nfe", "nfe_max", "n_steps",
    "samples", "seed", "repeat", "labels", "final", "fid", "fid_floor", "is_mean", "is_std", "extractor",
    "extractor_id", "reference_id", "model_id", "seconds_sampling", "seconds_features", "seconds_scoring",
    "images_per_second", "device", "batch_size", "world_size", "time_utc",
]
WHOLE = ["nfe_budget", "nfe_max", "n_steps", "samples", "seed", "repeat", "batch_size", "world_size"]
REAL = [
    "nfe", "fid", "fid_floor", "is_mean", "is_std", "seconds_sampling", "seconds_features",
    "seconds_scoring", "images_per_second",
    "kid_mean", "kid_std", "precision", "recall", "density", "coverage",
    "largest", "largest_data", "saturated",
]
SORT = [
    "model", "regime", "solver", "solver_params", "schedule", "grid", "final", "labels", "samples",
    "extractor", "reference_id", "nfe_budget", "n_steps", "seed", "repeat", "run_key",
]
# fmt: on
NUMBERS = {*WHOLE, *REAL}
EXACT = 2**53
"""From here on a float holds no whole number for sure; only seeds, which are kept as integers, go further."""
PARAMS = {"solver_params", "schedule_params", "grid_params", "metrics_params"}
TEXT = (set(COLUMNS) | PARAMS) - {*NUMBERS, "order", "stochastic"}
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode  # json.dumps makes one each time


class Problem(NamedTuple):
    """Something a reader of the report should know about a file of the study."""

    file: str
    why: str


def read_rows(study: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """All rows of a study, sorted, with every known column present, and what could not be read."""
    collecting = gc.isenabled()
    gc.disable()  # all records live until the end: to look for garbage among them takes a third of the time
    try:
        return _read(study)
    finally:
        if collecting:
            gc.enable()


def _read(study: Path) -> tuple[pd.DataFrame, list[Problem]]:
    records: list[tuple[str, dict]] = []
    problems: list[Problem] = []
    folder = study / "rows"
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for name in names:  # names, not paths: a study may hold 100,000
        if not name.endswith(".json") or name.startswith("."):  # what editors and archivers leave behind
            continue
        record = _read_one(f"{folder}/{name}", name, problems)
        if record is not None:
            records.append((name, record))
    kept = _one_per_key(records, problems)
    return _frame(kept, problems), sorted(problems)


def take(df: pd.DataFrame, mask: pd.Series | np.ndarray) -> pd.DataFrame:
    """The rows where a mask holds, typed as the table they are (pandas itself promises a union)."""
    return pd.DataFrame(df.loc[mask])


def records(df: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict a row, by columns: pandas' own way goes through its general iterator and is slow."""
    names = list(map(str, df.columns))
    return [dict(zip(names, line, strict=True)) for line in zip(*(df[n].tolist() for n in df), strict=True)]


def _read_one(path: str, name: str, problems: list[Problem]) -> dict[str, Any] | None:
    """One row as it was written, or None and a problem."""
    try:
        with open(path, "rb", buffering=0) as file:
            record = _parsed(file.read())
    except (OSError, ValueError, RecursionError) as error:
        problems.append(Problem(name, f"not readable as JSON ({_brief(error)}); left out"))
        return None
    if not isinstance(record, dict):
        problems.append(Problem(name, f"a {type(record).__name__}, not a row object; left out"))
        return None
    if record.get("status") not in STATUSES or not record.get("solver"):
        what = f"status {record.get('status')!r}, solver {record.get('solver')!r}"
        problems.append(Problem(name, f"not a row ({what}; status is one of {STATUSES}); left out"))
        return None
    record["run_key"] = str(record.get("run_key") or name.removesuffix(".json"))
    return record


def _parsed(data: bytes) -> Any:
    """JSON as Python reads it, most of it three times as fast: a study may hold 100,000 rows."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:  # NaN, half a surrogate pair, large whole numbers: Python's own
        return json.loads(data.decode())


def _text(text: str) -> str:
    """Text that can be written and drawn: JSON may hold NUL and half a surrogate pair, files may not."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _column(name: str, values: tuple[Any, ...], files: list[str], problems: list[Problem]) -> pd.Series:
    """Values a table can hold: numbers where numbers belong, text elsewhere, JSON for nested values.

    A column at a time, since a study may hold 100,000 rows, and most columns hold few different values.
    """
    if name == "seed":
        read = [_seed(*pair, problems) for pair in zip(values, files, strict=True)]
        return pd.Series(pd.array(read, dtype="UInt64"))
    if name in NUMBERS:
        try:
            numbers = np.array(values, dtype=np.float64)
            if name in WHOLE and (np.abs(numbers) >= EXACT).any():
                raise OverflowError
        except (TypeError, ValueError, OverflowError):
            read = (_number(name, *pair, problems) for pair in zip(values, files, strict=True))
            numbers = np.fromiter(read, np.float64)
        return pd.Series(np.where(np.isfinite(numbers), numbers, np.nan))
    try:
        kinds = set(map(type, set(values))) - {type(None)}
    except TypeError:  # something nested
        kinds = set(map(type, values))
    if kinds <= {str} and name not in PARAMS:
        odd = {value: text for value in set(values) - {None} if (text := _text(value)) is not value}
        plain = [odd.get(value, value) for value in values] if odd else values
        return pd.Series(plain, dtype="object")
    if kinds <= {int, float, bool} and name not in TEXT:
        return pd.Series(values, dtype="object")
    keys = list(map(_key, values))
    plain = {key: _plain(name, value) for key, value in dict(zip(keys, values, strict=True)).items()}
    return pd.Series([plain[key] for key in keys], dtype="object")


def _key(value: Any) -> Hashable:
    """The same for values that read the same; quick for the options of a solver."""
    if type(value) is dict:
        found = (*value.items(), *map(type, value.values()))  # 1 and 1.0 are equal, but not written alike
        try:
            hash(found)
            return found
        except TypeError:  # something nested
            pass
    return repr(value)


def _seed(value: Any, file: str, problems: list[Problem]) -> int | None:
    """A seed as it is, where a float would make two of one; None, and a problem, where it is none."""
    try:
        seed = None if value is None else int(value)
        if seed is None or (0 <= seed < 2**64 and (seed == value or isinstance(value, str))):
            return seed
    except (TypeError, ValueError, OverflowError):
        pass
    problems.append(Problem(file, f"seed is {_short(value)}, not a seed (0 to 2**64 - 1); read as missing"))
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}..."


def _number(name: str, value: Any, file: str, problems: list[Problem]) -> float:
    """A value as a number; NaN, and a problem, where it is none."""
    try:
        number = math.nan if value is None else float(value)
        if not (name in WHOLE and abs(number) >= EXACT):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    problems.append(Problem(file, f"{name} is {_short(value)}, not a number one can use; read as missing"))
    return math.nan


def _plain(name: str, value: Any) -> Any:
    if name in PARAMS:
        return None if value is None else canonical_params(value)
    if isinstance(value, dict | list):
        return _ENCODE(value)
    return _text(str(value)) if value is not None and (isinstance(value, str) or name in TEXT) else value


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
    named = {str(key): item for key, item in value.items() if not str(key).startswith("_")}
    return _ENCODE(named)


def _one_per_key(records: list[tuple[str, dict]], problems: list[Problem]) -> list[tuple[str, dict]]:
    """The file named after its key wins over copies; among copies the newest, then the last by name."""

    def rank(name: str, record: dict) -> tuple:
        return (name == f"{record['run_key']}.json", str(record.get("time_utc") or ""), name)

    best: dict[str, tuple[str, dict]] = {}
    for name, record in records:
        key = record["run_key"]
        kept = best.setdefault(key, (name, record))
        if kept[1] is record:
            continue
        older, newer = sorted((kept, (name, record)), key=lambda one: rank(*one))
        problems.append(Problem(older[0], f"repeats run_key {key} of {newer[0]}; left out"))
        best[key] = newer
    return list(best.values())


def _frame(records: list[tuple[str, dict]], problems: list[Problem]) -> pd.DataFrame:
    """A sorted table with the known columns first, whatever the rows held."""
    names: set[str] = set().union(*(record for _, record in records))
    columns = [*COLUMNS, *sorted(names - set(COLUMNS))]
    files = [file for file, _ in records]
    table = zip(*(tuple(map(record.get, columns)) for _, record in records), strict=True)
    values = list(table) or [()] * len(columns)
    frame = pd.DataFrame(
        {
            _text(name): _column(name, column, files, problems)
            for name, column in zip(columns, values, strict=True)
        }
    )
    for name in ("model", "regime", "solver", "solver_params"):
        frame[name] = frame[name].fillna({"solver_params": "{}"}.get(name, "unnamed"))
    by = {name: frame[name] if name in WHOLE else frame[name].fillna("") for name in SORT}
    order = pd.DataFrame(by).sort_values(SORT, kind="stable").index
    return frame.loc[order].reset_index(drop=True)
