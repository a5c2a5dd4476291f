"""A printed FID, verified: the rule that judges a run of it, and the record that says how it went.

The rule. Of as many runs as were printed the same is taken, the least or the mean. It agrees if it differs
from the printed number by at most 2 % of that, or by the spread of the runs here (greatest less least) where
this is larger. Papers print no spread: 2 % is what this package allows for three draws of 50,000 images.

A record is `results/verified/<name>.json`: the printed number, the verdict, the files with their sha256, who
signs for it, and the rows themselves, which hold versions, card and times. `seedsbench-check` reads it again.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import Any

from seedsbench.files.download import is_sha256
from seedsbench.files.json_files import read_json
from seedsbench.files.rows import Row, check_row
from seedsbench.report.printed import NAMED, Printed

SHARE = 0.02
"""Of the printed FID: by how much a verified one may differ in any case."""
RECORD_FORMAT = "seedsbench verified 1"
_COLUMNS = dict(zip(NAMED, ("model", "regime", "solver", "nfe_budget"), strict=True))
_CLOSE = 1e-9


@dataclass(frozen=True)
class Agreement:
    """fid: the least or the mean of the runs, as printed. spread: of the runs. allowed: of the difference."""

    fid: float
    spread: float
    difference: float
    allowed: float
    agrees: bool


def agreement(printed: Printed, fids: list[float]) -> Agreement:
    """Whether runs agree with a printed number, by the rule above. ValueError for another number of runs."""
    if len(fids) != printed.runs:
        raise ValueError(f"{len(fids)} runs, of {printed.runs} that were printed")
    fid = min(fids) if printed.of == "min" else fmean(fids)
    spread, difference = max(fids) - min(fids), fid - printed.fid
    allowed = max(SHARE * printed.fid, spread)
    return Agreement(fid, spread, difference, allowed, abs(difference) <= allowed)


def sentence(printed: Printed, verdict: Agreement) -> str:
    """The verdict in one line."""
    runs = "1 run" if printed.runs == 1 else f"{printed.of} of {printed.runs} runs"
    apart, allowed = (100 * part / printed.fid for part in (verdict.difference, verdict.allowed))
    said = "agrees" if verdict.agrees else "does not agree"
    found = f"{' '.join(printed.name)}: FID {verdict.fid:.4g} ({runs}, spread {verdict.spread:.2g})"
    source = f"the printed {printed.fid:g} ({printed.source})"
    return f"{found} {said} with {source}: {apart:+.2f} %, {allowed:.2f} % allowed"


def record_text(
    printed: Printed,
    rows: list[Row],
    verdict: Agreement,
    files: list[dict[str, str]],
    signed_off_by: str | None,
) -> str:
    """What `results/verified/` keeps, as JSON. files: role, name, source and sha256 of each that was used."""
    record = {
        "format": RECORD_FORMAT,
        "printed": asdict(printed),
        "verdict": asdict(verdict),
        "signed_off_by": signed_off_by,
        "time_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "files": files,
        "rows": rows,
    }
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"


@dataclass(frozen=True)
class VerifiedRecord:
    """A record that was read. verdict: what it says, of which `faults` finds whether it follows."""

    printed: Printed
    verdict: dict[str, Any]
    signed_off_by: Any
    rows: list[Row]

    def faults(self) -> Iterator[str]:
        """What does not follow from its rows, and what it lacks; a line each."""
        name = self.signed_off_by
        if not (isinstance(name, str) and "@" in name):
            yield 'it is not signed off: make it with --sign-off "Name <address>"'
        for row in self.rows:
            for option, column in _COLUMNS.items():
                if str(row.get(column)) != self.printed.options[option]:
                    wanted = self.printed.options[option]
                    yield f"row {row['run_key']} has {column} {row.get(column)!r:.40}, printed is {wanted}"
        if len({row["run_key"] for row in self.rows}) != len(self.rows):
            yield "it holds a row twice"
        try:
            follows = asdict(agreement(self.printed, [row["fid"] for row in self.rows]))
        except ValueError as error:
            yield str(error)
            return
        for name, value in follows.items():
            said = self.verdict.get(name)
            if isinstance(value, bool) or not isinstance(said, int | float):
                same = said is value
            else:
                same = math.isclose(said, value, rel_tol=_CLOSE, abs_tol=_CLOSE)
            if not same:
                yield f"{name} is {said!r:.40}, by its rows {value!r}"


def read_record(path: Path) -> VerifiedRecord:
    """The record in a file; ValueError, in one line that does not name the file, for anything else."""
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != RECORD_FORMAT:
        raise ValueError(f"no record of seedsbench-verify (its format is not {RECORD_FORMAT!r})")
    rows, told, verdict = (found.get(name) for name in ("rows", "printed", "verdict"))
    if not isinstance(rows, list) or not isinstance(told, dict) or not isinstance(verdict, dict):
        raise ValueError("no record of seedsbench-verify: it lacks rows, printed or verdict")
    files = found.get("files")
    if not isinstance(files, list) or not all(
        isinstance(f, dict) and is_sha256(f.get("sha256")) for f in files
    ):
        raise ValueError("files must be a list, each with a sha256 of 64 lower-case hex digits")
    for row in rows:
        check_row(row)
        if row["status"] != "done" or row.get("fid") is None:
            raise ValueError(f"row {row['run_key']!r:.40} is not done, or has no FID")
    return VerifiedRecord(_printed(told), verdict, found.get("signed_off_by"), rows)


def _printed(told: dict[str, Any]) -> Printed:
    """The printed number of a record; ValueError for none."""
    kinds = {"fid": (int, float), "runs": (int,), "overrides": (list,)}
    for name in (field.name for field in fields(Printed)):
        if type(told.get(name)) not in kinds.get(name, (str,)):
            raise ValueError(f"printed.{name} is {told.get(name)!r:.40}, no such value")
    if not all(isinstance(word, str) for word in told["overrides"]):
        raise ValueError("printed.overrides are no words")
    known = {field.name: told[field.name] for field in fields(Printed)}
    return Printed(**{**known, "overrides": tuple(told["overrides"])})
