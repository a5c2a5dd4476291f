"""`seedsbench-check PLACE...`: are the rows of finished studies, and records, what they claim to be?"""

import argparse
import sys
from functools import partial
from pathlib import Path

from seedsbench.files.console import exit_code

_HELP = """\
Check finished studies without sampling again: one line a fault. Give a study's folder, or one above studies;
or what seedsbench-verify wrote, verified/*.json.

row         a file is a row                     version     it was made by this package's arithmetic
run_key     its name is its command's key       settings    its columns say what the command does
promise     evaluations: within the budget, as the solver promises for its steps
limits      complete; no score is beyond what it can be (IS from 1 to the number of classes, shares to 1)
floor       the FID is not below what real samples score, but by a chance of more than 1 in 10,000
speed       images a second, seconds and samples agree
statistics  what keep_statistics=true left is there, undamaged     orphan    and has a row
scores      FID and IS are those of its statistics, to 1e-6
duplicate   no cell is there twice              evaluator   one reference and features for one panel
record      a verdict follows from its rows, and is signed off
protocol    its rows are of the printed number's command         printed     the number is in our table

What a check needs (weights, a reference, a plug-in) may not be here: it is counted as not checked, and is no
fault. Nothing is downloaded, and no code that a row names is run, but for plug-ins in your own --config-dir.

exit codes  0 no fault    1 faults    2 a place holds neither
"""
_EXAMPLE = """\
example:  seedsbench -m solver=heun,seeds3 nfe=10,20 study=mine keep_statistics=true
          seedsbench-check results/mine
          results/mine/rows/0123456789abcdef.json: scores: fid is 1.9, by its statistics 2.91349124
"""
_LONGEST = 1000
"""Characters of a line."""


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 for no fault, 1 for some, 2 for a place without a study or a record."""
    return exit_code("seedsbench-check", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser("seedsbench-check", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description, parser.epilog = _HELP, _EXAMPLE
    parser.add_argument("place", type=Path, nargs="+", help="a study's folder, one above some, or a record")
    parser.add_argument("--config-dir", action="append", default=[], help="of your own plug-ins, trusted")
    given = parser.parse_args(argv)
    from seedsbench.audit.records import FOLDER, records_in
    from seedsbench.audit.studies import studies_in
    from seedsbench.cli.command import Command, Usage, use_config_dirs

    studies: list[Path] = []
    records: list[Path] = []
    for place in given.place:
        theirs, kept = studies_in(place), records_in(place)
        if not theirs and not kept:
            wanted = f"which is a folder with rows/, and no record, {FOLDER}/*.json"
            said = f"holds no study, {wanted}" if place.is_dir() else "is no folder and no record"
            print(f"seedsbench-check: {place} {said}", file=sys.stderr)
            return 2
        studies += theirs
        records += kept
    try:
        use_config_dirs(Command((), config_dirs=tuple(given.config_dir)))
    except Usage as error:
        print(f"seedsbench-check: {error}", file=sys.stderr)
        return 2
    return _told(list(dict.fromkeys(studies)), list(dict.fromkeys(records)))


def _told(studies: list[Path], records: list[Path]) -> int:
    """Check all, print what is wrong with it, and how many rows and checks there were."""
    from seedsbench.audit.records import examined_record
    from seedsbench.audit.studies import Findings, examined
    from seedsbench.cli.compose import Bases, composing
    from seedsbench.files.archives import one_line

    total, bases = Findings(), Bases()
    with composing():
        for check, places in ((examined, studies), (examined_record, records)):
            for place in places:
                found = check(place, bases)
                for fault in found.faults:
                    print(one_line(f"{fault.file}: {fault.check}: {fault.why}", _LONGEST))
                total.rows += found.rows
                total.faults += found.faults
                total.not_checked += found.not_checked
    counts = ((total.rows, "row"), (len(total.faults), "fault"))
    rows, faults = (f"{n or 'no'} {what}{'s' * (n != 1)}" for n, what in counts)
    held = [(len(studies), "study", "studies"), (len(records), "record", "records")]
    told = " and ".join(f"{n} {one if n == 1 else more}" for n, one, more in held if n)
    said = f"{rows} of {told}: {faults}"
    reasons = [f"{why} ({times} times)" for why, times in total.not_checked.most_common(5)]
    if reasons:
        said += f"; not checked: {total.not_checked.total()}, for want of {'; '.join(reasons)}"
    print(one_line(said, _LONGEST), file=sys.stderr if total.faults else sys.stdout)
    return int(len(total.faults) > 0)


if __name__ == "__main__":
    sys.exit(main())
