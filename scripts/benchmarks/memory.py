"""Whether memory grows with the number of samples: the largest resident size for 1,000 and for 50,000.

    python scripts/benchmarks/memory.py                # minutes
    python scripts/benchmarks/memory.py --quick        # 10,000 in place of 50,000
    python scripts/benchmarks/memory.py --write        # ... and in results/benchmarks.md

Each cell (`solver=euler nfe=2`, saved every ten seconds, with its floor and report) is a command of its own,
on one thread. The target is 300 MB more at the most. Other work on the machine changes nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmarks.publish import command, machine, options, publish
from seedsbench.report.table import markdown_table

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## Memory"
CELL = ("solver=euler", "nfe=2", "device=cpu", "save_every=10")
FEW, MANY, QUICK = 1_000, 50_000, 10_000
MOST = 300


def largest(samples: int, model: str, folder: str) -> float:
    """MB that a cell's process held at its largest; RuntimeError if the cell failed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "seedsbench", f"model={model}", f"samples={samples}", *CELL]
    process = subprocess.Popen(
        [*words, f"study={model}{samples}"], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(words[1:])} failed")
    return used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kB elsewhere


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    return options(__file__, __doc__, quick=f"{QUICK:,} samples in place of {MANY:,}")


def main() -> None:
    """Run the cells and print the table."""
    made = parser()
    arguments = made.parse_args()
    many = QUICK if arguments.quick else MANY
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for model in ("gaussian", "glyphs"):
            few, grown = (largest(samples, model, folder) for samples in (FEW, many))
            lines.append([f"`{model}`", f"{few:.0f}", f"{grown:.0f}", f"{grown - few:+.0f}"])
    table = markdown_table(["model", f"{FEW:,} samples, MB", f"{many:,} samples, MB", "difference"], lines)
    said = f"`{command(made, arguments)}`: largest resident size of a whole command, "
    said += f"{machine()}, one thread. At most {MOST} MB more is the target."
    publish("\n".join([HEADING, "", said, "", *table]), write=arguments.write)


if __name__ == "__main__":
    main()
