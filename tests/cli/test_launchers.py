"""Sweeps that other processes run: joblib, submitit here and on a Slurm that is none, and jobs sent back."""

import importlib.util
import os
import re
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus

from seedsbench.bench.stopping import Stopped
from seedsbench.cli import main as cli
from seedsbench.cli.launchers import watch_workers
from tests.support import awkward, fake_slurm
from tests.support.cells import rows_of, same, write_choices

REST = ["solver=seeds1", "samples=20", "device=cpu", "study=s"]
CELLS = ["model=gaussian_mixture", "nfe=6,8", *REST]
TWO_TASKS = ["hydra/launcher=slurm_8gpu", "hydra.launcher.tasks_per_node=2"]


def needs(plugin):
    found = importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(f"hydra_plugins.{plugin}")
    return pytest.mark.skipif(not found, reason=f"needs {plugin} (pip install 'seedsbench[test]')")


needs_submitit = needs("hydra_submitit_launcher")
needs_joblib = needs("hydra_joblib_launcher")


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("SEEDSBENCH_CONF", raising=False)
    monkeypatch.delitem(sys.modules, "awkward", raising=False)  # each test has its own


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a Slurm that is none; it keeps what was submitted, and who runs."""
    fake_slurm.install(tmp_path / "slurm", monkeypatch)
    return tmp_path / "slurm"


def sweep(*arguments):
    """The exit code of a command run in this process, its cells elsewhere."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["-m", *arguments])
    return ended.value.code or 0


def own_models(**models):
    """The flags for models of tests/support/awkward.py: name -> function, and its options."""
    folder = write_choices(Path("mine"), "model", "awkward", Path(awkward.__file__).read_text(), models)
    return ["--config-dir", str(folder)]


def assert_the_same_here(study, *arguments):
    """The cells run one after another in this process are found done, bit for bit what they would be here."""
    assert sweep(*arguments, "study=here") == 0
    here, there = (
        {key: same(row) | {"world_size": 1} for key, row in rows_of(folder).items()}
        for folder in (study.with_name("here"), study)
    )
    assert here == {key: there[key] for key in here}


@pytest.mark.slow
@needs_joblib
def test_joblib_runs_the_sweep_into_one_study(tmp_path, capfd, monkeypatch):
    import joblib

    monkeypatch.delenv("OMP_NUM_THREADS")
    there = [*own_models(refused="refused"), "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert sweep(*there, *CELLS[1:], "model=gaussian_mixture,refused") == 1
    rows = rows_of(tmp_path / "results" / "s")
    threads = max(1, joblib.cpu_count() // 2)
    assert sorted((row["model"], row["status"], row["reason"]) for row in rows.values()) == [
        *[("gaussian_mixture", "done", None)] * 2,
        *[("refused", "failed", f"{threads} threads (awkward.py:42)")] * 2,
    ]
    shown = capfd.readouterr()
    assert shown.out.count("4 cells: 2 done, 0 skipped, 2 failed.") == 1
    assert "4 cells by hydra/launcher=joblib" in shown.err
    assert_the_same_here(tmp_path / "results" / "s", *CELLS[:-1])


@needs_submitit
@pytest.mark.parametrize(("name", "gpus"), [("slurm_1gpu", 1), ("slurm_8gpu", 8)])
@pytest.mark.parametrize(("nfe", "job"), [("nfe=6", "%j"), ("nfe=6,8", "%A_%a")], ids=["a cell", "an array"])
def test_the_configurations_for_slurm_submit_what_they_say(name, gpus, nfe, job, tmp_path, monkeypatch):
    from submitit.slurm.slurm import SlurmJob

    fake_slurm.install(tmp_path / "slurm", monkeypatch, record_only=True)
    monkeypatch.setattr(SlurmJob, "results", lambda self: [JobReturn(status=JobStatus.COMPLETED)])
    mine = [f"hydra.launcher.{o}" for o in ("partition=fast", "account=a1", "timeout_min=90")]
    assert sweep(f"hydra/launcher={name}", *mine, CELLS[0], nfe, *REST) == 1  # nobody ran it: no report
    script = (tmp_path / "slurm" / "submitted.sh").read_text()
    for directive in (
        *("partition=fast", "account=a1", "time=90", "nodes=1", "signal=USR2@120", "job-name=seedsbench"),
        *(f"gpus-per-node={gpus}", f"ntasks-per-node={gpus}", "open-mode=append"),
        f"output={tmp_path}/results/s/.submitit/{job}/{job}_0_log.out",
    ):
        assert f"#SBATCH --{directive}\n" in script
    assert re.findall("--array=(.*)", script) == (["0-1%2"] if "," in nfe else [])


@needs_submitit
@pytest.mark.parametrize(
    ("launcher", "tasks"),
    [
        pytest.param(["hydra/launcher=slurm_1gpu"], 1, marks=pytest.mark.slow),
        pytest.param(["hydra/launcher=submitit_local"], 1, marks=pytest.mark.slow),
        pytest.param(TWO_TASKS, 2, marks=pytest.mark.slow),
    ],
    ids=["a task", "here", "tasks that share cells"],
)
def test_a_sweep_by_submitit_fills_one_study_and_is_told_of(tmp_path, slurm, capfd, launcher, tasks):
    assert sweep(*launcher, *CELLS[:-1]) == 0  # with the time stamp as its name
    (study,) = (tmp_path / "results").glob("20*")
    rows = sorted(rows_of(study).values(), key=lambda row: row["nfe_budget"])
    found = [(row["nfe_budget"], row["status"], row["world_size"]) for row in rows]
    assert found == [(6, "done", tasks), (8, "done", tasks)]
    assert all("hydra" not in row["command"] and "study=" not in row["command"] for row in rows)
    shown = capfd.readouterr()
    assert shown.out.count("2 cells: 2 done, 0 skipped, 0 failed.") == 1
    assert shown.out.count("seeds1 nfe=8 seed=0: FID") == 1
    assert f"{study.relative_to(tmp_path)}/.submitit/*/*_log.*" in shown.err
    logs = sorted(study.glob(".submitit/*/*_0_log.out"))
    assert len(logs) == 2
    assert "seeds1 nfe=6 seed=0: FID" in logs[0].read_text()
    assert_the_same_here(study, *CELLS[:-1])


def preempt(slurm, job, *signals):
    """As soon as the model waits, send its process the signals; then let it go on."""

    def wait_and_send():
        while not Path("waits").exists():
            time.sleep(0.05)
        for number in signals:
            os.kill(int((slurm / f"pid-{job}-0").read_text()), number)
        Path("told").touch()

    threading.Thread(target=wait_and_send, daemon=True).start()


@pytest.mark.slow
@needs_submitit
def test_a_job_that_is_told_to_go_is_queued_again_and_ends_its_cells(tmp_path, slurm):
    preempt(slurm, "7_0", signal.SIGTERM, signal.SIGUSR2)  # Slurm sends both; the first alone queues nothing
    there = [*own_models(slow="problem"), "hydra/launcher=slurm_1gpu"]
    assert sweep(*there, *CELLS[1:], "model=slow", "repeats=2") == 0
    assert Path("told").exists()
    assert (slurm / "runs-7_0").read_text() == "2"
    rows = rows_of(tmp_path / "results" / "s").values()
    found = sorted((row["nfe_budget"], row["seed"], row["status"]) for row in rows)
    assert found == [(6, 0, "done"), (6, 1, "done"), (8, 0, "done"), (8, 1, "done")]


@needs_submitit
@pytest.mark.slow
@pytest.mark.parametrize("signalled", [signal.SIGUSR2, signal.SIGTERM], ids=["SIGUSR2", "SIGTERM"])
def test_a_single_job_that_is_told_to_go_goes_on_in_the_middle_of_its_cell(tmp_path, slurm, capfd, signalled):
    preempt(slurm, "7", signalled)
    size = ["samples=700", "batch_size=50", "device=cpu"]
    cell = [*own_models(slow="problem\nlate: 21"), "model=slow", "solver=seeds1", "nfe=6", *size]
    command, study = [*cell, "hydra/launcher=slurm_1gpu", "study=s"], tmp_path / "results" / "s"
    if signalled == signal.SIGTERM:  # saves, and leaves it to Slurm or to the user to run it again
        assert sweep(*command) == 1
        assert not rows_of(study)
        assert list((study / "partial").glob("*/*.npz"))
    assert sweep(*command) == 0
    assert (slurm / "runs-7").read_text() == ("1" if signalled == signal.SIGTERM else "2")
    assert "slow/edm seeds1 nfe=6 seed=0: goes on at" in capfd.readouterr().out
    assert_the_same_here(study, *cell)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["submitit_local"], marks=needs_submitit),
        pytest.param(["joblib", "hydra.launcher.n_jobs=2"], marks=needs_joblib),
    ],
    ids=lambda launcher: launcher[0],
)
def test_after_a_worker_has_died_the_same_command_fills_in_what_is_missing(tmp_path, capfd, launcher):
    models = own_models(dies="problem\ndies: true", waits="problem")
    there = [*models, f"hydra/launcher={launcher[0]}", *launcher[1:], "nfe=6", *REST]
    assert sweep(*there, "model=gaussian_mixture") == 0
    (done,) = rows_of(tmp_path / "results" / "s").items()
    (tmp_path / "fatal").touch()
    command = [*there, "model=dies,waits,gaussian_mixture"]
    assert sweep(*command) == 1
    rows = rows_of(tmp_path / "results" / "s")
    assert done in rows.items()
    assert "dies" not in {row["model"] for row in rows.values()}
    said = capfd.readouterr().err
    assert said.splitlines()[-1] == "seedsbench: a worker was lost; the same command fills in what is missing"
    assert "Traceback" not in said
    (tmp_path / "fatal").unlink()
    assert sweep(*command) == 0
    again = rows_of(tmp_path / "results" / "s")
    assert done in again.items()
    assert sorted(row["model"] for row in again.values()) == ["dies", "gaussian_mixture", "waits"]


@needs_submitit
@pytest.mark.slow
def test_a_task_of_a_job_that_dies_ends_the_job_though_slurm_lets_the_others_live(tmp_path, slurm, capfd):
    models = own_models(fatal="fatal_to_a_rank")
    assert sweep(*models, *TWO_TASKS, "model=fatal", "nfe=6", *REST) == 1
    assert rows_of(tmp_path / "results" / "s") == {}
    assert (slurm / "runs-7").read_text() == "1"
    assert "a worker was lost" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["joblib", "submitit_slurm"])
def test_a_command_that_waits_for_others_stops_when_told_to(name, tmp_path, capsys):
    ends = nullcontext() if name == "joblib" else pytest.raises(Stopped)
    with ends, watch_workers(name, 1, tmp_path, tmp_path / "stop"):
        signal.raise_signal(signal.SIGTERM)
        assert (tmp_path / "stop").exists(), "which its workers look for"
    assert ("submitted go on" in capsys.readouterr().err) == (name != "joblib")
