"""How long the report of a large study takes: processor seconds of `build_report` on synthetic rows.

Some rows failed, some have no FID, some files repeat a row, and one was never written to its end.

    python scripts/benchmarks/report.py            # 1,000 rows
    python scripts/benchmarks/report.py --write    # ... and in results/benchmarks.md
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmarks.publish import command, machine, options, publish
from seedsbench.report.main import build_report

HEADING = "## A report"
SOLVERS = ("seeds1", "seeds2", "seeds3", "heun", "euler", "ddim", "dpmpp_2m")
BUDGETS = (10, 20, 35, 50, 100, 200)
REGIMES = ("vp", "ve", "iddpm", "edm")


def write_rows(folder: Path, n: int) -> None:
    """n rows as the benchmark writes them: solvers x budgets x regimes x seeds; and what disks leave."""
    folder.mkdir(parents=True)
    cells = [(s, b, r) for s in SOLVERS for b in BUDGETS for r in REGIMES]
    for i in range(n):
        (solver, budget, regime), seed = cells[i % len(cells)], i // len(cells)
        row = {
            **{"run_key": f"{i:016x}", "status": "done", "reason": None, "model": "glyphs", "regime": regime},
            **{"schedule": "linear", "grid": "edm", "solver": solver, "solver_params": {}, "seed": seed},
            **{"nfe_budget": budget, "nfe": float(budget), "n_steps": budget, "samples": 2000},
            **{"labels": "balanced", "final": "denoise", "fid": 0.15 + (50 + seed) / budget**1.5},
            **{
                "fid_floor": 0.15,
                "is_mean": 9 - 10 / budget,
                "is_std": 0.1,
                "images_per_second": 1e4 / budget,
            },
            **{"extractor": "glyphs-64d", "extractor_id": "e", "reference_id": "r"},
            "time_utc": "2025-01-01T00:00:00Z",
        }
        if i % 20 == 7:
            row.update(status="failed", fid=None, reason=f"non-finite sample at step {i % 5}")
        if i % 50 == 9:
            row.update(fid=float("nan"), unknown={"column": i})
        (folder / f"{i:016x}.json").write_text(json.dumps(row))
        if i % 100 == 3:
            (folder / f"copy of {i:016x}.json").write_text(json.dumps(row))
    (folder / "half.json").write_text('{"status": "do')


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__)
    made.add_argument("--rows", type=int, default=1000, help="of the study: 1000")
    return made


def main() -> None:
    """Build it twice; the second time has the imports behind it."""
    made = parser()
    arguments = made.parse_args()
    rows, taken = arguments.rows, []
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        write_rows(study / "rows", rows)
        for _ in range(2):
            start = time.process_time()
            build_report(study)
            taken.append(time.process_time() - start)
    told = (
        f"`{command(made, arguments)}`: {rows:,} rows with failures, missing values, copies and a "
        f"half-written file take {taken[0]:.2f} s of processor time, the second time {taken[1]:.2f} s "
        f"({machine()}; target for 1,000: 5 s)."
    )
    publish("\n".join([HEADING, "", told]), write=arguments.write)


if __name__ == "__main__":
    main()
