"""What a large study costs: CPU seconds to write its rows, find finished ones, read all and plan.

    python scripts/benchmarks/store.py                # 100,000 rows; minutes
    python scripts/benchmarks/store.py --quick        # 10,000
    python scripts/benchmarks/store.py --write        # ... and in results/benchmarks.md

The rows are those of results/example, with other keys and seeds. Reading is also given as a ratio to the
least any reader of these files could do (open, read and json.loads in a loop), which holds on a busy machine;
the seconds are of this machine alone. The target is 100,000 rows read in 20 s.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmarks.publish import command, machine, options, publish
from seedsbench.bench.rows.store import ResultStore
from seedsbench.report.rows import read_rows
from seedsbench.report.table import markdown_table

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## A large study"
NAMES = ("2025-01-01_00-00-00", "2025-01-02_00-00-00")
LOOKED_UP = 1000


def key(number: int) -> str:
    """A run_key like any other."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def fill(study: Path, count: int) -> None:
    """Write `count` rows without the fsync each has in a sweep, whose time is the disk's and not ours."""
    examples = [
        json.loads(path.read_text()) for path in sorted((ROOT / "results/example/rows").glob("*.json"))
    ]
    (study / "rows").mkdir(parents=True)
    for number in range(count):
        row = examples[number % len(examples)] | {"run_key": key(number), "seed": number // len(examples)}
        (study / "rows" / f"{row['run_key']}.json").write_text(
            json.dumps(row, indent=1, sort_keys=True) + "\n"
        )


def floor(study: Path) -> None:
    """The least any reader of one file a row does."""
    for name in sorted(os.listdir(study / "rows")):
        with open(study / "rows" / name, "rb", buffering=0) as file:
            json.loads(file.read())


def seconds(run: Callable[[], Any], rounds: int = 1) -> float:
    """CPU seconds of a call, the least of a few."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


def measure(folder: Path, count: int) -> list[list[str]]:
    """The table's lines: what is done, CPU seconds, ratio."""
    study, other = folder / NAMES[0], folder / NAMES[1]
    fill(study, count)
    here, elsewhere = ResultStore(study), ResultStore(other)
    elsewhere.prepare()
    keys = [key(number) for number in range(min(LOOKED_UP, count))]
    written = [row | {"run_key": f"{row['run_key']}w"} for row in map(here.finished, keys) if row is not None]
    least = seconds(lambda: floor(study), 3)
    reads = seconds(lambda: read_rows(study), 3)
    of_one = len(keys) / 1e3  # to milliseconds a row
    each = {
        "write one row (temporary file, fsync, rename)": lambda: [elsewhere.write(row) for row in written],
        "find a finished cell in the study": lambda: [here.finished(k) for k in keys],
        "find a finished cell in an unnamed study beside it": lambda: [
            elsewhere.finished(k, look_only=True) for k in keys
        ],
        "find that a cell is not done": lambda: [here.finished(f"{k}x") for k in keys],
    }
    lines = [
        [f"list, open, read, json.loads of {count:,} rows", f"{least:.2f} s", "1.00"],
        [f"read {count:,} rows into the report's table", f"{reads:.2f} s", f"{reads / least:.2f}"],
    ]
    return lines + [[what, f"{seconds(run) / of_one:.3f} ms", ""] for what, run in each.items()]


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    return options(__file__, __doc__, quick="10,000 rows instead of 100,000")


def main() -> None:
    """Measure, print the table and, with --write, put it in place of the section's last one."""
    made = parser()
    arguments = made.parse_args()
    count = 10_000 if arguments.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder), count)
    note = (
        f"`{command(made, arguments)}`: CPU seconds, {machine()}, Python {platform.python_version()}, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores (other work slows these seconds too). The "
        "target is 100,000 rows read in 20 s."
    )
    section = "\n".join([HEADING, "", note, "", *markdown_table(["what", "CPU", "ratio"], lines), ""])
    publish(section, write=arguments.write)


if __name__ == "__main__":
    main()
