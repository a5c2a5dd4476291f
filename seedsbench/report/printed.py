"""Printed FIDs that a command makes again: the rows of a table of published scores that say which command.

The table is assets/published.csv, or one of your own with these of its columns: fid, note, source, where,
model (the network) and overrides. Overrides are those of `seedsbench`: experiment=... names the protocol, and
model=, regime=, solver= and nfe= are given in any case. Of repeated runs the note says what was printed, as
"min of 3 runs".
"""

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seedsbench.files.regular import check_regular
from seedsbench.report.published import PUBLISHED

NAMED = ("model", "regime", "solver", "nfe")
"""What a printed number is asked for by, in this order."""
_COLUMNS = ("fid", "note", "source", "where", "model", "overrides")
_RUNS = re.compile(r"\b(min|mean) of (\d+) runs\b")
_MOST_RUNS = 100
_MOST_BYTES = 2**24


@dataclass(frozen=True)
class Printed:
    """One FID and how to make it. of: "min" or "mean" of so many runs. network, source, where: for people."""

    fid: float
    of: str
    runs: int
    network: str
    source: str
    where: str
    overrides: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fid) and self.fid > 0):
            raise ValueError(f"fid is {self.fid}: give a number above 0")
        if self.of not in ("min", "mean") or not 1 <= self.runs <= _MOST_RUNS:
            raise ValueError(f"{self.of} of {self.runs} runs: write min or mean of 1 to {_MOST_RUNS} runs")
        if missing := [name for name in NAMED if not self.options.get(name)]:
            raise ValueError(f"overrides lack {', '.join(f'{name}=' for name in missing)}")

    @property
    def options(self) -> dict[str, str]:
        """The overrides, by key."""
        return dict(word.split("=", 1) for word in self.overrides if "=" in word)

    @property
    def name(self) -> tuple[str, ...]:
        """Model, regime, solver and NFE, as words."""
        return tuple(self.options[name] for name in NAMED)


def printed(file: Path | None = None) -> list[Printed]:
    """Those of a table, in its order; None: of the package's own.

    Raises FileNotFoundError, and ValueError, in one line, for a table that is none, for a row with overrides
    that make no sense, and for one without any.
    """
    path = PUBLISHED if file is None else file
    check_regular(path, max_bytes=_MOST_BYTES)
    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' own, and text that is not UTF-8
        raise ValueError(f"{path} is no CSV file: {str(error).splitlines()[0]}") from error
    if missing := [name for name in _COLUMNS if name not in df]:
        raise ValueError(f"{path} has no column {', '.join(missing)}: it needs {', '.join(_COLUMNS)}")
    found = []
    for line, row in enumerate(df.to_dict("records"), start=2):
        if row["overrides"]:
            try:
                found.append(_read(row))
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {error}") from error
    if not found:
        raise ValueError(f"{path} holds no row with overrides: none says what makes it again")
    return found


def _read(row: dict[Any, Any]) -> Printed:
    of, runs = found.groups() if (found := _RUNS.search(row["note"])) else ("mean", "1")
    words = tuple(shlex.split(row["overrides"]))
    return Printed(float(row["fid"]), of, int(runs), row["model"], row["source"], row["where"], words)


def asked_for(words: list[str], table: list[Printed]) -> list[Printed]:
    """The number of a model, regime, solver and NFE, or all of an experiment; ValueError if there is none."""
    if len(words) == len(NAMED):
        found = [one for one in table if one.name == tuple(words)]
        known = "; ".join(" ".join(one.name) for one in table)
    elif len(words) == 1:
        found = [one for one in table if one.options.get("experiment") == words[0]]
        known = ", ".join(sorted({one.options.get("experiment", "") for one in table} - {""})) or "(none)"
    else:
        raise ValueError(f"{' '.join(words) or 'nothing'!r}: give {' '.join(NAMED)}, or an experiment")
    if not found:
        raise ValueError(f"no printed FID is known of {' '.join(words)!r}. Known: {known}")
    return found
