"""What becomes of rows when things go wrong: commands killed, full disks, files that are damaged or hostile.

    python scripts/fault_campaign.py --output trials.jsonl   # all of it
    python scripts/fault_campaign.py --quick                  # one of most kinds, in half a minute
    python scripts/fault_campaign.py --only ranks             # kinds whose name has this in it

Each trial runs `seedsbench` as a user does, in a folder of its own, lets it suffer one fault, and then runs
the same command again. The table counts, by kind: rows that are lost (not there after that second run), rows
that are wrong (other numbers than those of an undisturbed run), tracebacks shown, processes that took over
60 s, exit codes that do not tell the truth, and temporary files or sums left behind. Of hostile files and
plug-ins "wrong" is code that ran, over 30 s or over 1 GB; of fuzz a "traceback" is any input that was not
refused in one line. Exit code 1 if any of the counts is not 0. Finished trials are kept in the file --output:
the same command goes on after them.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.faults import contents, fuzzed, hostile, interrupted, plugins, together
from scripts.faults.trials import BAD, Bench, Kind, Outcome
from seedsbench.report.table import markdown_table

KINDS = (
    *interrupted.KINDS,
    *together.KINDS,
    *contents.KINDS,
    *plugins.KINDS,
    *hostile.KINDS,
    *fuzzed.KINDS,
)
HEADER = (
    *("kind", "trials", "rows lost", "rows wrong", "tracebacks", "hangs > 60 s", "wrong exit codes"),
    *("left behind", "worst seconds"),
)


class Record:
    """Outcomes by (kind, number), read from a file of JSON lines and added to it."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self._path, self._seed, self._lock = path, seed, threading.Lock()
        self.found: dict[tuple[str, int], Outcome] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                trial = json.loads(line)
                if trial.pop("campaign") == seed:
                    place = trial.pop("kind"), trial.pop("number")
                    trial.pop("case")
                    self.found[place] = Outcome(**trial)

    def add(self, kind: str, number: int, case: str, outcome: Outcome) -> None:
        """Keep one more; say it where something was wrong."""
        with self._lock:
            self.found[kind, number] = outcome
            trial = {"campaign": self._seed, "kind": kind, "number": number, "case": case, **asdict(outcome)}
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(f"{json.dumps(trial)}\n")
            if outcome.bad:
                print(f"{kind}, trial {number} ({case}): {outcome.note}", flush=True)


def planned(bench: Bench, kinds: Iterable[Kind], quick: bool) -> Iterator[tuple[Kind, int, Any]]:
    """The trials: kind, number and case; or the quick part of them."""
    for kind in kinds:
        if quick and not kind.quick:
            continue
        cases = list(enumerate(kind.cases(bench)))
        if quick:
            cases = random.Random(f"{bench.seed} {kind.name}").sample(cases, min(kind.quick, len(cases)))
        for number, case in cases:
            yield kind, number, case


def campaign(bench: Bench, kinds: list[Kind], record: Record, *, quick: bool, jobs: int) -> None:
    """Run the trials that are not in the record, so many at a time."""
    bench.expected()

    def one(kind: Kind, number: int, case: Any) -> None:
        try:
            outcome = kind.trial(bench, case, random.Random(f"{bench.seed} {kind.name} {number}"))
        except Exception:  # of the campaign itself: to be seen, not passed over
            outcome = Outcome(wrong=1, note=f"the trial itself failed: {traceback.format_exc()}")
        record.add(kind.name, number, f"{case}"[:120], outcome)

    with ThreadPoolExecutor(jobs) as pool:
        for trial in planned(bench, kinds, quick):
            if (trial[0].name, trial[1]) not in record.found:
                pool.submit(one, *trial)


def table(record: Record, kinds: Iterable[Kind]) -> str:
    """The outcomes in Markdown, a line for each kind and their sum."""
    lines, whole = [], []
    for kind in kinds:
        found = [outcome for (name, _), outcome in record.found.items() if name == kind.name]
        if found:
            lines.append(_line(kind.name, found))
            whole += found
    return "\n".join(markdown_table(list(HEADER), [*lines, _line("**all**", whole)]))


def _line(name: str, found: list[Outcome]) -> list[str]:
    total = sum(found, Outcome())
    inputs = f" ({total.inputs:,} inputs)" if total.inputs else ""
    skipped = f" ({total.skipped} skipped)" if total.skipped else ""
    counts = [str(getattr(total, column)) for column in BAD]
    return [name, f"{len(found) - total.skipped}{inputs}{skipped}", *counts, f"{total.seconds:.1f}"]


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
    made.add_argument("--output", type=Path, help="JSON lines of finished trials; read first, then added to")
    made.add_argument("--quick", action="store_true", help="one of most kinds")
    made.add_argument("--only", default="", metavar="KIND", help="kinds whose name has this text in it")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trials at a time")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the campaign, print its table; 1 if anything was wrong, 2 for a kind that is none."""
    arguments = parser().parse_args(argv)
    kinds = [kind for kind in KINDS if arguments.only in kind.name]
    if not kinds:
        names = "; ".join(kind.name for kind in KINDS)
        print(f"--only {arguments.only}: no such kind among: {names}", file=sys.stderr)
        return 2
    record, started = Record(arguments.output, arguments.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        bench = Bench(arguments.seed, Path(folder))
        try:
            campaign(bench, kinds, record, quick=arguments.quick, jobs=arguments.jobs)
        finally:
            bench.close()
    print(table(record, kinds))
    print(
        f"\n{time.monotonic() - started:.0f} s with seed {arguments.seed}, {arguments.jobs} trials at a time"
    )
    return int(any(outcome.bad for outcome in record.found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
