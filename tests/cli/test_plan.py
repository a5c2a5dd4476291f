"""plan=true and the lines of a running sweep: what is left, how long it takes, and quiet in logs."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import time

import pytest

from seedsbench import registry
from seedsbench.bench import progress
from seedsbench.bench.machine import duration, machine
from seedsbench.bench.progress import SweepLine
from seedsbench.cli import plan
from seedsbench.cli.plan import Speed, plan_text, speed_of
from tests.support.cells import QUICK, compose, python, run
from tests.support.machine import environment


@pytest.mark.parametrize(
    ("seconds", "said"), [(4, "4 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (7260, "2 h 1 min")]
)
def test_durations_are_said_as_people_do(seconds, said):
    assert duration(seconds) == said


def row_of(**more):
    row = {
        "run_key": "k",
        "status": "done",
        "machine": machine(),
        "model": "gaussian_mixture",
        "regime": "edm",
    }
    row |= {"dtype": "float64", "network_precision": "fp32", "compile": False, "device": "cpu"}
    row |= {"threads": 1, "batch_size": 256, "solver": "euler", "regime": "edm"}
    row |= {"nfe": 10.0, "samples": 100, "seconds_sampling": 2.0, "seconds_features": 0.5}
    return row | {"seconds_scoring": 0.5, "seconds_floor": 3.0} | more


def test_rows_of_the_same_solver_are_the_best_witnesses():
    cfg = compose("solver=euler", "samples=50")
    other = row_of(solver="heun", seconds_sampling=20.0)
    assert speed_of(cfg, [row_of(), other]) == Speed(0.002, 0.01, 1.5)
    assert speed_of(cfg, [other]).evaluation == 0.02


@pytest.mark.parametrize("name", ["model", "regime", "device", "threads", "nfe", "seconds_sampling"])
def test_rows_of_something_else_and_short_runs_are_none(name):
    difference = {"threads": 2, "nfe": 0, "seconds_sampling": 0.1}
    assert speed_of(compose("solver=euler"), [row_of(**{name: difference.get(name, "other")})]) is None


def test_rows_of_another_machine_and_broken_files_are_left_out(tmp_path):
    folder = tmp_path / "study" / "rows"
    folder.mkdir(parents=True)
    for name, change in {"a": {}, "b": {"machine": "other"}, "c": {"status": "failed"}}.items():
        (folder / f"{name}.json").write_text(json.dumps(row_of(run_key=name, fid=1.0, **change)))
    (folder / "d.json").write_text("{half")
    assert plan.earlier_rows(tmp_path) == [row_of(run_key="a", fid=1.0)]


def planned(tmp_path, monkeypatch, *overrides):
    rows = [row_of(solver=name) for name in ("euler", "heun")]
    monkeypatch.setattr(plan, "earlier_rows", lambda results: rows)
    place = [f"results_dir={tmp_path}", "study=study", "samples=1000"]
    return plan_text([compose(*place, *overrides, f"nfe={nfe}") for nfe in (5, 10)])


def test_the_estimate_is_evaluations_times_speed_plus_one_floor(tmp_path, monkeypatch):
    text = planned(tmp_path, monkeypatch, "repeats=2")
    # 2 * 1000 * (5 + 10) * 2 ms + 4 * 1000 * 10 ms + 30 s + start
    expected = 60 + 40 + 30 + plan.START_AND_REPORT
    assert f"estimated time: {duration(expected)} on this machine" in text
    assert "by its earlier rows" in text
    assert "GB free" in text
    assert text.startswith("4 cells\n")


def test_what_is_done_takes_no_time(tmp_path, monkeypatch):
    for nfe in (5, 10):
        run(tmp_path, f"nfe={nfe}", "samples=1000")
    text = planned(tmp_path, monkeypatch)
    assert text.count("done, FID") == 2
    assert text.endswith("nothing to do")
    assert "estimated time" in planned(tmp_path, monkeypatch, "force=true")


def test_a_plan_of_models_that_are_not_here_fetches_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cells = [f"results_dir={tmp_path}/results", "study=s", "metrics=inception", "nfe=35", "solver=heun"]
    chosen = ["model=cifar10_cond", "regime=vp", "samples=50000"]
    text = plan_text([compose(*cells, *chosen), compose("study=s", f"results_dir={tmp_path}/results")])
    assert "cifar10_cond/vp heun nfe=35 seed=0: 17 steps, NFE 35, 1,750,000 evaluations to do" in text
    assert "time not known yet of cifar10_cond/vp, gaussian_mixture/edm: no such cell has run" in text
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"model\.path=.*no such file"):
        plan_text([compose(*cells, "model=file", f"model.path={tmp_path}/none.pkl")])


@pytest.mark.slow
def test_a_plan_of_every_solver_says_its_steps_or_why_there_are_none(tmp_path):
    place = [f"results_dir={tmp_path}", "study=study", "nfe=15"]
    row = run(tmp_path, *place, "solver=heun")
    assert row["machine"] == machine()
    names = registry.names("solver")
    lines = plan_text([compose(*place, f"solver={name}") for name in names]).splitlines()[1:-2]
    assert any(f"heun nfe=15 seed=0: 7 steps, NFE 15, done, FID {row['fid']:.3f}" in line for line in lines)
    for name, line in zip(names, lines, strict=True):
        assert f" {name} nfe=15 seed=0: " in line
        nfe = int(line.split("NFE ")[1].split(",")[0]) if "NFE" in line else None
        assert "will be skipped" in line if nfe is None else 0 < nfe <= 15


def test_the_time_left_goes_by_evaluations_not_by_cells(monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    line = SweepLine([100, 100, 500])
    assert line.remaining() is None
    line.cell_done({"status": "done"}, computed=False)
    assert line.remaining() is None
    now = 10.0
    line.cell_done({"status": "done"}, computed=True)
    assert line.remaining() == pytest.approx(50.0)
    now = 30.0
    line.advance(200)
    assert line.remaining() == pytest.approx(300 * 30 / 300)
    line.cell_done({"status": "failed"}, computed=True)
    assert line.remaining() == 0.0
    line.close()


SWEEP = ("-m", "seedsbench", "-m", *QUICK[:2], "samples=2000", "device=cpu", "nfe=5,200", "study=s")


@pytest.mark.slow
def test_a_log_file_has_no_progress(tmp_path):
    said = python(*SWEEP, folder=tmp_path)
    assert "\r" not in said
    assert "sweep:" not in said


@pytest.mark.slow
def test_a_terminal_has_a_line_for_the_sweep_and_one_for_the_cell(tmp_path):
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen([sys.executable, *SWEEP], cwd=tmp_path, env=environment(), stderr=theirs)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 120
    with contextlib.suppress(OSError):  # the other end is closed
        while time.monotonic() < deadline and (part := os.read(mine, 4096)):
            shown += part
    assert process.wait(timeout=60) == 0
    for said in ("sweep: 0/2 cells", "sweep: 1/2 cells", " left", "2000 samples", "NFE/s"):
        assert said in shown.decode()
