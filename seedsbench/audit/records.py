"""Records of `seedsbench-verify`, checked: the verdict follows from the rows, the rows are sound."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from seedsbench.audit.claim import Claim
from seedsbench.audit.studies import Fault, Findings, check_claim
from seedsbench.checks import in_one_line
from seedsbench.cli.command import parse
from seedsbench.cli.compose import Bases
from seedsbench.cli.sweep import NOT_WHAT
from seedsbench.cli.verify import MAY_BE_CHOSEN
from seedsbench.files.rows import Row
from seedsbench.report.printed import Printed, printed
from seedsbench.report.verified import VerifiedRecord, read_record

FOLDER = "verified"
"""Records lie in folders of this name."""
_WHERE = (*NOT_WHAT, *(f"{key}=" for key in MAY_BE_CHOSEN))


def records_in(place: Path) -> list[Path]:
    """A record itself, or those in a folder and in `verified/` anywhere below. Links are not followed."""
    if place.suffix == ".json" and place.is_file():
        return [place]
    found = [place] if place.resolve().name == FOLDER else []
    for folder, folders, _ in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in folders if name == FOLDER]
    return sorted(path for folder in found for path in folder.glob("[!.]*.json"))


def examined_record(path: Path, bases: Bases) -> Findings:
    """All that is wrong with a record; made within `composing()`, whose results `bases` keeps."""
    found = Findings()
    try:
        record = read_record(path)
    except (FileNotFoundError, ValueError) as error:
        found.faults.append(Fault(path, "record", in_one_line(error)))
        return found
    found.rows = len(record.rows)
    found.faults += [Fault(path, "record", why) for why in record.faults()]
    found.faults += [Fault(path, "protocol", why) for why in _of_another_protocol(record)]
    _check_printed(record.printed, path, found)
    for row in record.rows:
        check_claim(Claim(row, path.parent, bases), path, found)
    return found


def _of_another_protocol(record: VerifiedRecord) -> Iterable[str]:
    """Rows whose command is not that of the printed number."""
    wanted = _what(record.printed.overrides)
    for row in record.rows:
        made = _what(_words(row))
        if made != wanted:
            apart = " ".join(sorted(made ^ wanted))
            yield f"the command of row {row['run_key']} is not that of the printed number: {apart:.200}"


def _what(words: Iterable[str]) -> set[str]:
    """Overrides less those that say where and how."""
    return {word for word in words if not word.startswith(_WHERE)}


def _words(row: Row) -> tuple[str, ...]:
    """The overrides of a row's command; none of a text that is no command."""
    try:
        return parse(shlex.split(row.get("command") or "")[1:]).overrides
    except Exception:  # a row may hold anything
        return ()


def _check_printed(one: Printed, path: Path, found: Findings) -> None:
    """That the number is the one in the package's table; another table's cannot be checked here."""
    ours = [other for other in printed() if other.name == one.name]
    if not ours:
        found.not_checked["a printed number of another table"] += 1
    elif one not in ours:
        told = f"{ours[0].fid:g}, {ours[0].of} of {ours[0].runs}, {ours[0].source}"
        found.faults.append(Fault(path, "printed", f"it says {one.fid:g}, the table here {told}"))
