"""What a sweep costs beside its sampling and scoring: the nine cells of the README's first command.

    python scripts/benchmarks/sweep.py            # a table on the terminal
    python scripts/benchmarks/sweep.py --quick    # fewer samples: the fixed costs weigh more
    python scripts/benchmarks/sweep.py --write    # ... and in results/benchmarks.md

The command runs in a process of its own, in an empty folder, with a clock around its parts. A sweep loads
once: its cells should take no more than 1.05 times the seconds their rows give for sampling, features and
scores. Both are wall times of one run, so the ratio holds on a busy machine too.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks.publish import command, options, publish

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

HEADING = "## A sweep loads once"
SWEEP = ("-m", "solver=seeds1,seeds3,heun", "nfe=10,20,50", "study=bench")
SECONDS: dict[str, float] = {}
SAMPLES, QUICK = 2000, 500
CLOCK = "SEEDSBENCH_BENCH_STARTED"


def clocked(module: Any, name: str, part: str) -> None:
    """Let calls of module.name be timed under `part`, less what parts inside them take."""
    call: Callable[..., Any] = getattr(module, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        started, inside = time.perf_counter(), sum(SECONDS.values())
        try:
            return call(*arguments, **named)
        finally:
            taken = time.perf_counter() - started
            SECONDS[part] = SECONDS.get(part, 0.0) + taken - (sum(SECONDS.values()) - inside)

    setattr(module, name, timed)


def child(overrides: list[str]) -> None:
    """The sweep itself, clocked; its last line is JSON."""
    from seedsbench.bench import run as cell
    from seedsbench.cli import main as cli
    from seedsbench.report import main as report

    SECONDS["imports"] = time.time() - float(os.environ[CLOCK])
    clocked(cli, "preflight", "checking the command")
    clocked(cell, "problem_of", "loading models")
    clocked(cell, "lead", "sampling and features")
    clocked(cell, "floor", "floors")
    clocked(cell.ResultStore, "write", "writing rows")
    clocked(cell.ResultStore, "finished", "looking for finished rows")
    clocked(cell, "environment_of", "facts of the machine")
    clocked(cell, "run_cell", "the rest of a cell")
    clocked(cli, "_hydra", "Hydra: a configuration for each cell")
    clocked(report, "finish_sweep", "report")
    try:
        cli.main(overrides)
    except SystemExit as end:
        SECONDS["exit code"] = float(end.code or 0)
    total = time.time() - float(os.environ[CLOCK])
    print(json.dumps({**SECONDS, "total": total}))


def measure(samples: int, threads: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Seconds of each part of the sweep, and its rows."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--child", *SWEEP, f"samples={samples}"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SEEDSBENCH_")}
        environment |= {CLOCK: str(time.time()), "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"the sweep failed:\n{done.stdout}")
        rows = [json.loads(path.read_text()) for path in Path(folder).glob("results/bench/rows/*.json")]
    return json.loads(done.stdout.splitlines()[-1]), rows


def section(seconds: dict[str, float], rows: list[dict[str, Any]], threads: int, ran: str) -> str:
    """The Markdown of results/benchmarks.md."""
    from seedsbench.report.table import markdown_table

    said = sum(row[f"seconds_{part}"] for row in rows for part in ("sampling", "features", "scoring"))
    outside = ("imports", "checking the command", "report")
    cells = seconds["total"] - sum(seconds[part] for part in outside)
    named = {part: value for part, value in seconds.items() if part not in ("total", "exit code")}
    named["ending"] = seconds["total"] - sum(named.values())
    lines = [
        [part, f"{value:.2f}", f"{value / said:.4f}"]
        for part, value in sorted(named.items(), key=lambda item: -item[1])
    ]
    told = (
        f"`{ran}`: the README's first command ({len(rows)} cells, {rows[0]['samples']} samples), "
        f"{platform.machine()}, {threads} thread(s), torch {rows[0]['version_torch']}. "
        f"**The cells take {cells / said:.3f} times the sampling, features and scores in their rows** "
        f"({said:.1f} s), the whole command with imports, checks and report {seconds['total'] / said:.3f}."
    )
    table = markdown_table(["part", "seconds", "of sampling and scoring"], lines)
    return "\n".join([HEADING, "", told, "", *table, ""])


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick=f"{QUICK} samples a cell instead of {SAMPLES}")
    made.add_argument("--threads", type=int, default=1, help="of the sweep: 1")
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    made = parser()
    arguments = made.parse_args()
    seconds, rows = measure(QUICK if arguments.quick else SAMPLES, arguments.threads)
    text = section(seconds, rows, arguments.threads, command(made, arguments))
    publish(text, write=arguments.write)


if __name__ == "__main__":
    main()
