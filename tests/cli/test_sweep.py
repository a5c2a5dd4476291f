"""Two sweeps into one study at the same time, each a command of its own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cells import rows_of, run, same

ROOT = Path(__file__).parents[2]
CELLS = ["model=gaussian_mixture", "solver=euler", "samples=300", "device=cpu"]


@pytest.mark.slow
def test_both_end_well_and_the_last_report_is_of_all(tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SEEDSBENCH_")}
    sweeps = [
        subprocess.Popen(
            [sys.executable, "-m", "seedsbench", "-m", *CELLS, nfe, "force=true", "save_every=0", "study=s"],
            cwd=tmp_path,
            env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for nfe in ("nfe=5,6,8", "nfe=5,6,9")  # both compute and write two of the rows
    ]
    told = [(*sweep.communicate(timeout=120), sweep.returncode) for sweep in sweeps]
    study = tmp_path / "results" / "s"
    assert [code for *_, code in told] == [0, 0], told
    assert all(
        "0 failed." in out and "Traceback" not in err and "problem" not in out + err for out, err, _ in told
    )
    assert any("4 cells: 4 done, 0 skipped, 0 failed." in out for out, *_ in told)

    rows = rows_of(study)
    assert sorted((row["nfe_budget"], row["status"]) for row in rows.values()) == [
        (nfe, "done") for nfe in (5, 6, 8, 9)
    ]
    for row in rows.values():
        assert same(row) == same(run(tmp_path, *CELLS, f"nfe={row['nfe_budget']}"))
    with (study / "table.csv").open() as file:
        assert sorted(int(line["nfe_budget"]) for line in csv.DictReader(file)) == [5, 6, 8, 9]
    page = (study / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert not [path for path in study.rglob("*") if path.suffix == ".tmp" or "unreadable" in path.name]
    assert not (study / "partial").exists()
