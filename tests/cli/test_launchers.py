"""Sweeps that other processes run: joblib, submitit here and on a Slurm that is none, and jobs sent back."""

import importlib.util
import os
import signal
import sys
import threading
import time

import pytest
from hydra import compose
from hydra.core.utils import JobReturn, JobStatus
from hydra.utils import instantiate

from seedsbench.bench.stopping import Stopped
from seedsbench.cli import main as cli
from seedsbench.cli.compose import composing
from seedsbench.cli.launchers import watch_workers
from tests.support import fake_slurm
from tests.support.cells import rows_of, same

CELLS = ["model=gaussian_mixture", "solver=seeds1", "nfe=6,8", "samples=20", "device=cpu", "study=s"]


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
    monkeypatch.delitem(sys.modules, "slow_network", raising=False)  # each test writes its own


def sweep(*arguments):
    """The exit code of a command run in this process, its cells elsewhere."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["-m", *arguments])
    return ended.value.code or 0


REFUSING_MODULE = """
import torch

def problem(regime, device="cpu"):
    raise ValueError(f"{torch.get_num_threads()} threads")
"""


@needs_joblib
def test_joblib_runs_the_sweep_into_one_study(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "refusing.py").write_text(REFUSING_MODULE)
    (tmp_path / "mine" / "model" / "refusing.yaml").write_text("_target_: refusing.problem\n")
    there = ["--config-dir", "mine", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert sweep(*there, *CELLS[1:], "model=gaussian_mixture,refusing") == 1
    rows = rows_of(tmp_path / "results" / "s")
    assert sorted((row["model"], row["status"]) for row in rows.values()) == [
        *[("gaussian_mixture", "done")] * 2,
        *[("refusing", "failed")] * 2,
    ]
    import joblib

    threads = max(1, joblib.cpu_count() // 2)
    assert {row["reason"] for row in rows.values()} == {None, f"{threads} threads (refusing.py:5)"}
    shown = capfd.readouterr()
    assert shown.out.count("4 cells: 2 done, 0 skipped, 2 failed.") == 1
    assert "4 cells by hydra/launcher=joblib" in shown.err
    # The same cells, one after another in this process: found done, bit for bit what they would be here.
    assert sweep(*CELLS[:-1], "study=here") == 0
    here = rows_of(tmp_path / "results" / "here")
    assert {key: same(row) for key, row in here.items()} == {key: same(rows[key]) for key in here}


@pytest.mark.slow
@needs_submitit
def test_submitit_runs_the_sweep_on_this_machine(tmp_path, capfd):
    assert sweep("hydra/launcher=submitit_local", *CELLS) == 0
    rows = rows_of(tmp_path / "results" / "s")
    assert sorted((row["nfe_budget"], row["status"]) for row in rows.values()) == [(6, "done"), (8, "done")]
    assert capfd.readouterr().out.count("2 cells: 2 done, 0 skipped, 0 failed.") == 1
    # In this process they give the same, bit for bit.
    assert sweep(*CELLS[:-1], "study=here") == 0
    here = rows_of(tmp_path / "results" / "here")
    assert {key: same(row) for key, row in here.items()} == {key: same(row) for key, row in rows.items()}


@needs_submitit
@pytest.mark.parametrize("name", ["slurm_1gpu", "slurm_8gpu"])
def test_the_configurations_for_slurm_submit_what_they_say(name, tmp_path, monkeypatch):
    fake_slurm.install(tmp_path / "slurm", monkeypatch, record_only=True)
    mine = [f"hydra.launcher.{o}" for o in ("partition=fast", "account=a1", "timeout_min=90")]
    with composing():
        words = ["study=s", f"hydra/launcher={name}", *mine]
        cfg = compose("config", words, return_hydra_config=True)
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
    from submitit.slurm.slurm import SlurmJob

    launcher = instantiate(cfg.hydra.launcher)
    assert isinstance(launcher, BaseSubmititLauncher)
    launcher.setup(hydra_context=None, task_function=None, config=cfg)  # type: ignore[arg-type]
    monkeypatch.setattr(SlurmJob, "results", lambda self: [self.job_id])
    assert launcher.launch([["nfe=6"], ["nfe=8"]], 0) == ["7_0", "7_1"]
    script = (tmp_path / "slurm" / "submitted.sh").read_text()
    gpus = {"slurm_1gpu": 1, "slurm_8gpu": 8}[name]
    for directive in (
        *("partition=fast", "account=a1", "time=90", "nodes=1", "signal=USR2@120", "job-name=seedsbench"),
        *(f"gpus-per-node={gpus}", f"ntasks-per-node={gpus}", "array=0-1%2", "open-mode=append"),
    ):
        assert f"#SBATCH --{directive}\n" in script
    assert f"#SBATCH --output={tmp_path}/results/s/.submitit/%A_%a/%A_%a_0_log.out\n" in script


@needs_submitit
def test_a_sweep_over_slurm_fills_one_study_and_is_told_of(tmp_path, capfd, monkeypatch):
    fake_slurm.install(tmp_path / "slurm", monkeypatch)
    assert sweep("hydra/launcher=slurm_1gpu", *CELLS[:-1]) == 0  # with the time stamp as its name
    (study,) = (tmp_path / "results").iterdir()
    rows = rows_of(study)
    assert sorted((row["nfe_budget"], row["status"]) for row in rows.values()) == [(6, "done"), (8, "done")]
    assert all("hydra" not in row["command"] and "study=" not in row["command"] for row in rows.values())
    shown = capfd.readouterr()
    assert shown.out.count("2 cells: 2 done, 0 skipped, 0 failed.") == 1
    assert shown.out.count("seeds1 nfe=8 seed=0: FID") == 1
    assert f"{study.relative_to(tmp_path)}/.submitit/*/*_log.*" in shown.err
    logs = sorted(study.glob(".submitit/*/*_log.out"))
    assert len(logs) == 2
    assert "seeds1 nfe=6 seed=0: FID" in logs[0].read_text()


SLOW_MODULE = '''
"""A mixture whose network, the first time it is called, waits until its process has been told to go."""

import os
import time
from dataclasses import replace
from pathlib import Path

from seedsbench.bench.problems.analytic import mixture_problem
from seedsbench.denoisers.base import FixedBatch


class Slow(FixedBatch):
    def __call__(self, x, sigma, labels=None):
        mine = Path(os.environ["SLOW_MARK"])
        if not mine.exists():
            mine.touch()
            for _ in range(600):
                if mine.with_name("told").exists():
                    break
                time.sleep(0.1)
        return super().__call__(x, sigma, labels)


def slow_problem(regime, device="cpu"):
    problem = mixture_problem(regime, "slow", [[0.3, -0.2]], [1.0], 0.5)
    return replace(problem, denoiser=Slow(problem.denoiser))
'''


@pytest.mark.slow
@needs_submitit
def test_a_job_that_is_told_to_go_is_queued_again_and_ends_its_cells(tmp_path, capfd, monkeypatch):
    fake_slurm.install(tmp_path / "slurm", monkeypatch)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "slow_network.py").write_text(SLOW_MODULE)
    (tmp_path / "mine" / "model" / "slow.yaml").write_text("_target_: slow_network.slow_problem\n")
    mark, told_to_go = tmp_path / "mark", []
    monkeypatch.setenv("SLOW_MARK", str(mark))

    def preempt():
        while not mark.exists():
            time.sleep(0.05)
        pid = int((tmp_path / "slurm" / "pid-7_0-0").read_text())
        os.kill(pid, signal.SIGTERM)  # Slurm sends both; the first alone queues nothing again
        os.kill(pid, signal.SIGUSR2)
        told_to_go.append(pid)
        mark.with_name("told").touch()

    threading.Thread(target=preempt, daemon=True).start()
    there = ["--config-dir", "mine", "hydra/launcher=slurm_1gpu"]
    assert sweep(*there, *CELLS[1:], "model=slow", "repeats=2") == 0
    assert told_to_go
    assert (tmp_path / "slurm" / "runs-7_0").read_text() == "2"
    rows = rows_of(tmp_path / "results" / "s")
    assert sorted((row["nfe_budget"], row["seed"], row["status"]) for row in rows.values()) == [
        *[(6, 0, "done"), (6, 1, "done"), (8, 0, "done"), (8, 1, "done")]
    ]


@needs_submitit
def test_a_sweep_of_one_cell_is_one_job_and_no_array(tmp_path, monkeypatch):
    fake_slurm.install(tmp_path / "slurm", monkeypatch, record_only=True)
    from submitit.slurm.slurm import SlurmJob

    done = JobReturn(status=JobStatus.COMPLETED)
    monkeypatch.setattr(SlurmJob, "results", lambda self: [done] if self.job_id == "7" else None)
    assert (
        sweep("hydra/launcher=slurm_1gpu", *CELLS[:2], "nfe=6", *CELLS[3:]) == 1
    )  # nobody ran it: no report
    script = (tmp_path / "slurm" / "submitted.sh").read_text()
    assert "--array" not in script
    assert f"#SBATCH --output={tmp_path}/results/s/.submitit/%j/%j_0_log.out\n" in script
    assert "#SBATCH --signal=USR2@120\n" in script


@needs_submitit
@pytest.mark.slow
@pytest.mark.parametrize("signalled", [signal.SIGUSR2, signal.SIGTERM], ids=["SIGUSR2", "SIGTERM"])
def test_a_single_job_that_is_told_to_go_goes_on_in_the_middle_of_its_cell(
    tmp_path, capfd, monkeypatch, signalled
):
    fake_slurm.install(tmp_path / "slurm", monkeypatch)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    late = SLOW_MODULE.replace("def __call__", "calls = 0\n\n    def __call__")
    late = late.replace(
        "if not mine.exists():", "self.calls += 1\n        if self.calls > 20 and not mine.exists():"
    )
    (tmp_path / "mine" / "slow_network.py").write_text(late)
    (tmp_path / "mine" / "model" / "slow.yaml").write_text("_target_: slow_network.slow_problem\n")
    mark = tmp_path / "mark"
    monkeypatch.setenv("SLOW_MARK", str(mark))

    def preempt():
        while not mark.exists():
            time.sleep(0.05)
        os.kill(int((tmp_path / "slurm" / "pid-7-0").read_text()), signalled)
        mark.with_name("told").touch()

    threading.Thread(target=preempt, daemon=True).start()
    cell = [*CELLS[1:2], "model=slow", "nfe=6", "samples=700", "batch_size=50", "device=cpu"]
    command = ["--config-dir", "mine", "hydra/launcher=slurm_1gpu", *cell, "study=s"]
    if signalled == signal.SIGTERM:  # saves, and leaves it to Slurm or to the user to run it again
        assert sweep(*command) == 1
        assert not rows_of(tmp_path / "results" / "s")
        assert list((tmp_path / "results" / "s" / "partial").glob("*/*.npz"))
    assert sweep(*command) == 0
    assert (tmp_path / "slurm" / "runs-7").read_text() == ("1" if signalled == signal.SIGTERM else "2")
    assert "slow/edm seeds1 nfe=6 seed=0: goes on at" in capfd.readouterr().out
    # Unbroken and in this process it is the same, bit for bit.
    assert sweep("--config-dir", "mine", *cell, "study=here") == 0
    there, here = (rows_of(tmp_path / "results" / study) for study in ("s", "here"))
    assert {key: same(row) for key, row in here.items()} == {key: same(row) for key, row in there.items()}


LOST_MODULE = '''
"""A mixture whose network kills its process while a file says so; one that waits until that has happened."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from seedsbench.bench.problems.analytic import mixture_problem
from seedsbench.denoisers.base import FixedBatch


class Lost(FixedBatch):
    dies = False

    def __call__(self, x, sigma, labels=None):
        if self.dies and Path("fatal").exists():
            Path("dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(600):
            if self.dies or Path("dead").exists():
                break
            time.sleep(0.1)
        return super().__call__(x, sigma, labels)


def problem(regime, dies, device="cpu"):
    found = mixture_problem(regime, f"lost {dies}", [[0.3, -0.2]], [1.0], 0.5)
    denoiser = Lost(found.denoiser)
    denoiser.dies = dies
    return replace(found, denoiser=denoiser)
'''


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
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "lost_network.py").write_text(LOST_MODULE)
    for name, dies in (("dies", True), ("waits", False)):
        text = f"_target_: lost_network.problem\ndies: {dies}\n"
        (tmp_path / "mine" / "model" / f"{name}.yaml").write_text(text)
    there = ["--config-dir", "mine", f"hydra/launcher={launcher[0]}", *launcher[1:]]
    cell = [*CELLS[1:2], "nfe=6", *CELLS[3:]]
    assert sweep(*there, "model=gaussian_mixture", *cell) == 0
    (done,) = rows_of(tmp_path / "results" / "s").items()
    (tmp_path / "fatal").touch()
    command = [*there, "model=dies,waits,gaussian_mixture", *cell]
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


FATAL_MODULE = """
import os
import signal

from seedsbench.bench.problems.analytic import mixture_problem


def problem(regime, device="cpu"):
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return mixture_problem(regime, "fatal", [[0.3, -0.2]], [1.0], 0.5)
"""


@needs_submitit
@pytest.mark.slow
def test_a_task_of_a_job_that_dies_ends_the_job_though_slurm_lets_the_others_live(
    tmp_path, monkeypatch, capfd
):
    fake_slurm.install(tmp_path / "slurm", monkeypatch)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "fatal.py").write_text(FATAL_MODULE)
    (tmp_path / "mine" / "model" / "fatal.yaml").write_text("_target_: fatal.problem\n")
    two = ["--config-dir", "mine", "hydra/launcher=slurm_8gpu", "hydra.launcher.tasks_per_node=2"]
    assert sweep(*two, "model=fatal", *CELLS[1:2], "nfe=6", *CELLS[3:]) == 1
    assert rows_of(tmp_path / "results" / "s") == {}
    assert (tmp_path / "slurm" / "runs-7").read_text() == "1"
    assert "a worker was lost" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["joblib", "submitit_slurm"])
def test_a_command_that_waits_for_others_stops_when_told_to(name, tmp_path, capsys):
    with pytest.raises(Stopped), watch_workers(name, 1, tmp_path, tmp_path / "stop"):
        signal.raise_signal(signal.SIGTERM)
    assert ("submitted go on" in capsys.readouterr().err) == (name != "joblib")


@pytest.mark.slow
@needs_submitit
def test_the_tasks_of_a_job_share_its_cells(tmp_path, monkeypatch):
    fake_slurm.install(tmp_path / "slurm", monkeypatch)
    two = ["hydra/launcher=slurm_8gpu", "hydra.launcher.tasks_per_node=2"]
    assert sweep(*two, *CELLS) == 0
    rows = rows_of(tmp_path / "results" / "s").values()
    assert [(row["status"], row["world_size"]) for row in rows] == [("done", 2)] * 2
