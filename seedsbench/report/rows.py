"""Read a study's rows, `<study>/rows/<run_key>.json`, into one table.

A cell is one solver at one NFE budget, of one model, regime and seed. Nothing in a results folder makes this
raise: what is no row (`files.rows`) is returned as a list of faults, so that a half-written or foreign file
costs one line in the report and not the report.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from seedsbench.files.json_files import parse_json
from seedsbench.files.rows import (
    COLUMNS,
    COUNT,
    GROUP_OPTIONS,
    KINDS,
    NUMBER,
    SCORE,
    SEED,
    STATUSES,
    read_row,
)
from seedsbench.report.texts import printable

_SORTED_BY = [
    *("model", "regime", "solver", "solver_params", "schedule", "grid", "final", "labels", "samples"),
    *("extractor", "reference_id", "nfe_budget", "n_steps", "seed", "repeat", "run_key"),
]
MOST_COLUMNS = 500  # beside those of the schema
WHOLE = [name for name in COLUMNS if COLUMNS[name] in (COUNT, SEED)]
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class RowFault(NamedTuple):
    """What is wrong with a file of the study."""

    file: str
    why: str


def read_rows(study: Path) -> tuple[pd.DataFrame, list[RowFault]]:
    """All rows of a study, sorted, with every known column present, and what could not be read."""
    rows: list[dict[str, Any]] = []
    faults: list[RowFault] = []
    for path in (study / "rows").glob("*.json"):
        if path.name.startswith("."):  # what editors and archivers leave behind
            continue
        try:
            rows.append(read_row(path))
        except FileNotFoundError:
            faults.append(RowFault(_shown(path), "a link to no file, or deleted just now; left out"))
        except ValueError as error:
            faults.append(RowFault(_shown(path), f"{printable(str(error))}; left out"))
    others, more = _further_columns(rows)
    if more:
        said = f"hold {more} columns more than the {MOST_COLUMNS} that most of them have; these are left out"
        faults.append(RowFault("rows", said))
    return _frame(rows, others), sorted(faults)


def _shown(path: Path) -> str:
    return printable(path.name).replace("\n", " ")


def _further_columns(rows: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Columns beside those of the schema, those that most rows have, and how many more there are."""
    found = Counter(name for row in rows for name in row if name not in COLUMNS)
    kept = sorted(found, key=lambda name: (name not in KINDS, -found[name], name))[:MOST_COLUMNS]
    return sorted(kept), len(found) - len(kept)


def of_newest_version(df: pd.DataFrame) -> tuple[pd.DataFrame, list[RowFault]]:
    """Without rows of an older numerics_version than the study's newest, and what is said of those left out.

    The same settings gave other numbers then. Rows that do not say a version stay.
    """
    if "numerics_version" not in df:
        return df, []
    versions = df["numerics_version"].astype(float)
    old = versions < versions.max()
    why = f"left out, but for table.csv: the newest rows have version {versions.max():.0f}; run these again"
    left = [
        RowFault(f"{len(keys)} row(s) of numerics_version {version:.0f}", f"{some_of(keys.tolist())}: {why}")
        for version, keys in take(df, old)["run_key"].groupby(versions)
    ]
    return take(df, ~old).reset_index(drop=True), left


def some_of(names: list[str]) -> str:
    """The first few of a list of names, and how many more there are."""
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")


def take(df: pd.DataFrame, mask: pd.Series | np.ndarray) -> pd.DataFrame:
    """The rows where a mask holds, typed as the table they are (pandas itself promises a union)."""
    return pd.DataFrame(df.loc[mask])


def status_counts(df: pd.DataFrame) -> dict[str, int]:
    """How many rows were done, skipped, and failed."""
    return {status: int((df["status"] == status).sum()) for status in STATUSES}


def without_fid(df: pd.DataFrame) -> pd.DataFrame:
    """Finished cells with an FID of zero: said in tables, since no logarithmic axis shows them."""
    return take(df, df["fid"] == 0)


def _frame(rows: list[dict[str, Any]], others: list[str]) -> pd.DataFrame:
    columns = {}
    for name in [*COLUMNS, *others]:
        values = [_value(name, row.get(name)) for row in rows]
        columns[printable(name)] = pd.Series(values, dtype=_dtype(name))
    frame = pd.DataFrame(columns)
    for name in ("model", "regime", "solver_params"):
        frame[name] = frame[name].fillna("{}" if name == "solver_params" else "unnamed")
    return frame.sort_values(_SORTED_BY, kind="stable", ignore_index=True)


def _dtype(name: str) -> str:
    kind = KINDS.get(name)
    # As a float, one seed above 2^53 would be another.
    return "UInt64" if kind is SEED else "float64" if kind in (COUNT, NUMBER, SCORE) else "object"


def _value(name: str, value: Any) -> Any:
    """A value that a table can hold: JSON of a nested one."""
    if value is None:
        return None
    if KINDS.get(name) is GROUP_OPTIONS:
        return canonical_params(value)
    return _encode(_printable(value)) if isinstance(value, dict | list) else _printable(value)


def canonical_params(value: Any) -> str:
    """Options of a group (dict, or JSON text of one) as compact JSON with sorted keys.

    >>> canonical_params({"eta": 1, "c2": 0.4})
    '{"c2":0.4,"eta":1}'
    """
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            value = {"params": value}
    if not isinstance(value, dict):
        value = {"params": value}
    # Hydra's own keys (_target_ and the like) say where the code lies, not what it does.
    return _encode(_printable({key: item for key, item in value.items() if not key.startswith("_")}))


def _printable(value: Any) -> Any:
    """The same of every text within: as JSON an unprintable one would be hidden until it is read."""
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value
