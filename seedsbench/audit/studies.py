"""A whole study, checked: each row by itself, and the rows together."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from seedsbench.audit.claim import BadCommand, Claim, NotHere
from seedsbench.audit.row_checks import ROW_CHECKS
from seedsbench.checks import in_one_line
from seedsbench.cli.compose import Bases
from seedsbench.files.rows import read_row
from seedsbench.report.pareto import doubled, foreign, panels
from seedsbench.report.rows import RowFault, read_rows

StudyCheck = Callable[[Path, pd.DataFrame], Iterator[RowFault]]


class Fault(NamedTuple):
    """What is wrong: a file of a study, the check that found it, and why."""

    file: Path
    check: str
    why: str


@dataclass
class Findings:
    """rows: how many were read. not_checked: how often a check could not be made, by the reason."""

    faults: list[Fault] = field(default_factory=list)
    rows: int = 0
    not_checked: Counter[str] = field(default_factory=Counter)


def studies_in(folder: Path) -> list[Path]:
    """The studies in a folder, itself or below it: folders that hold `rows/`. Links are not followed."""
    found = []
    for place, folders, _ in os.walk(folder):
        if "rows" in folders:
            found.append(Path(place))
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(found)


def examined(study: Path, bases: Bases) -> Findings:
    """All that is wrong with a study; made within `composing()`, whose results `bases` keeps."""
    df, unreadable = read_rows(study)
    found = Findings([Fault(study / "rows" / file, "row", why) for file, why in unreadable], len(df))
    for path in sorted((study / "rows").glob("[!.]*.json")):
        with suppress(FileNotFoundError, ValueError):  # a fault already
            check_claim(Claim(read_row(path), study, bases), path, found)
    for name, check in STUDY_CHECKS.items():
        found.faults += [Fault(study / file, name, why) for file, why in check(study, df)]
    return found


def check_claim(claim: Claim, path: Path, found: Findings) -> None:
    """Add what all checks of a row find, as faults of the file at a path."""
    for name in ROW_CHECKS:
        _check_row(claim, name, path, found)


def _check_row(claim: Claim, name: str, path: Path, found: Findings) -> None:
    """Add what one check finds; what it cannot say is counted."""
    try:
        for why in ROW_CHECKS[name](claim):
            found.faults.append(Fault(path, name, why))
    except BadCommand:  # the check of the run key says so
        pass
    except NotHere as error:
        found.not_checked[str(error)] += 1
    except Exception as error:  # a row may hold anything
        found.faults.append(Fault(path, name, f"cannot be checked: {in_one_line(error)}"))


def duplicates(study: Path, df: pd.DataFrame) -> Iterator[RowFault]:
    """No two rows are of the same settings, budget, seed and repeat."""
    for file, why in doubled(panels(df)):
        yield RowFault(f"rows/{file}", why)


def evaluators(study: Path, df: pd.DataFrame) -> Iterator[RowFault]:
    """Rows of one panel have the same features and reference as most of them."""
    for panel, told in foreign(panels(df)):
        for key in panel.rows["run_key"]:
            yield RowFault(f"rows/{key}.json", told)


def orphans(study: Path, df: pd.DataFrame) -> Iterator[RowFault]:
    """Statistics belong to a row."""
    for path in sorted((study / "statistics").glob("*.npz")):
        if path.stem not in set(df["run_key"]):
            yield RowFault(f"statistics/{path.name}", "there is no row of this key")


STUDY_CHECKS: dict[str, StudyCheck] = {
    "duplicate": duplicates,
    "evaluator": evaluators,
    "orphan": orphans,
}
