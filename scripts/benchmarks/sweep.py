"""What a sweep costs beside its sampling and scoring: the nine cells of the README's first command.

    python scripts/benchmarks/sweep.py            # a table on the terminal
    python scripts/benchmarks/sweep.py --quick    # fewer samples: the fixed costs weigh more
    python scripts/benchmarks/sweep.py --write    # ... and in results/benchmarks.md

The command runs in an empty folder; before it runs with plan=true, which imports, checks and composes, and
draws nothing. A sweep loads once: less that, it should take no more than 1.05 times the seconds that its rows
give for sampling, features, scores and floors. All are wall times of one run, so the ratio holds on a busy
machine too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmarks.publish import command, machine, options, publish
from seedsbench.report.table import markdown_table

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## A sweep loads once"
SWEEP = ("-m", "solver=seeds1,seeds3,heun", "nfe=10,20,50", "study=bench")
SAMPLES, QUICK = 2000, 500
PARTS = ("sampling", "features", "scoring", "floor")
"""What a row says of its seconds."""


def run(folder: str, threads: int, *words: str) -> float:
    """Seconds of the command with these words more."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SEEDSBENCH_")}
    environment = kept | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    asked = [sys.executable, "-m", "seedsbench", *SWEEP, *words]
    started = time.perf_counter()
    subprocess.run(asked, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def measure(samples: int, threads: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Seconds of each part of the sweep, and its rows."""
    with tempfile.TemporaryDirectory() as folder:
        planned = run(folder, threads, f"samples={samples}", "plan=true")
        whole = run(folder, threads, f"samples={samples}")
        rows = [json.loads(path.read_text()) for path in Path(folder).glob("results/bench/rows/*.json")]
    seconds = {part: sum(row[f"seconds_{part}"] or 0.0 for row in rows) for part in PARTS}
    rest = whole - planned - sum(seconds.values())
    return {**seconds, "starting, checking, composing": planned, "all else": rest}, rows


def section(seconds: dict[str, float], rows: list[dict[str, Any]], threads: int, ran: str) -> str:
    """The Markdown of results/benchmarks.md."""
    said = sum(seconds[part] for part in PARTS)
    lines = [[part, f"{value:.2f}", f"{value / said:.4f}"] for part, value in seconds.items()]
    told = (
        f"`{ran}`: the README's first command ({len(rows)} cells, {rows[0]['samples']} samples), "
        f"{machine()}, {threads} thread(s), torch {rows[0]['version_torch']}. **The cells take "
        f"{1 + seconds['all else'] / said:.3f} times the sampling, features, scores and floors in their "
        f"rows** ({said:.1f} s; all else is loading, writing rows and the report), the whole command "
        f"{sum(seconds.values()) / said:.3f}. The start is that of the same command with plan=true."
    )
    return "\n".join([HEADING, "", told, "", *markdown_table(["part", "seconds", "of those"], lines), ""])


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick=f"{QUICK} samples a cell instead of {SAMPLES}")
    made.add_argument("--threads", type=int, default=1, help="of the sweep: 1")
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    made = parser()
    arguments = made.parse_args()
    seconds, rows = measure(QUICK if arguments.quick else SAMPLES, arguments.threads)
    text = section(seconds, rows, arguments.threads, command(made, arguments))
    publish(text, write=arguments.write)


if __name__ == "__main__":
    main()
