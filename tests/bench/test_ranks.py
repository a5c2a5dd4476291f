"""Several processes, one cell: the same row, whoever fails, and whoever dies."""

import subprocess
import sys
import time
from unittest.mock import Mock

import pytest

from seedsbench.bench import ranks
from seedsbench.bench.ranks import ALONE, Ranks
from seedsbench.bench.stopping import Stopped
from tests.support.cells import config_dir, rows_of, run, same
from tests.support.extractors import some_images, write_images
from tests.support.machine import environment

ENVIRONMENT = {"world_size", "threads"}

FATAL = '''
"""A mixture whose evaluation fails, or kills its process, on one rank; or that waits."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from seedsbench.bench.problems.analytic import mixture_problem
from seedsbench.denoisers.base import FixedBatch


class Fatal(FixedBatch):
    calls, what, victim = 0, "raises", "1"

    def __call__(self, x, sigma, labels=None):
        self.calls += 1
        if self.what == "waits":
            if self.calls > 24 and not Path("go").exists():
                Path(f"waiting-{os.environ['RANK']}").touch()
                time.sleep(0.2)
        elif os.environ.get("RANK") == self.victim and self.calls > 24:
            if self.what == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError("no more")
        return super().__call__(x, sigma, labels)


def fatal_problem(regime, what, victim="1", device="cpu"):
    problem = mixture_problem(regime, "fatal", [[0.3, -0.2], [-0.5, 0.1]], [0.5, 0.5], 0.3)
    denoiser = Fatal(problem.denoiser)
    denoiser.what, denoiser.victim = what, victim
    return replace(problem, denoiser=denoiser)
'''


def plain(row):
    return {key: value for key, value in same(row).items() if key not in ENVIRONMENT}


def started(n, *arguments, cwd):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
    return subprocess.Popen(
        [*command, "-m", "seedsbench", *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def torchrun(n, *arguments, cwd):
    return ended(started(n, *arguments, cwd=cwd))


@pytest.fixture
def fatal(tmp_path, monkeypatch):
    """A --config-dir with model=raises and dies (on rank 1), dies_first (on rank 0), and waits."""
    choices = {what: f"fatal_problem\nwhat: {what}" for what in ("raises", "dies", "waits")}
    choices["dies_first"] = "fatal_problem\nwhat: dies\nvictim: '0'"
    return config_dir(monkeypatch, tmp_path, "model", "fatal_network", FATAL, choices)


CELL = ["solver=seeds2", "nfe=7", "samples=700", "batch_size=50", "labels=random", "device=cpu"]


def assert_it_goes_on_alone(tmp_path, saved, model, fatal):
    """The cell that rank's death cut off ends from both ranks' sums as a whole one would have."""
    assert {path.name for path in saved.glob("*.npz")} == {"rank-0.npz", "rank-1.npz"}
    again, whole = (
        run(folder, f"model={model}", *CELL, config_dirs=[fatal])
        for folder in (tmp_path / "results", tmp_path)
    )
    assert (again["status"], again["run_key"]) == ("done", saved.name)
    assert plain(again) == plain(whole)
    assert not saved.exists()


def test_two_ranks_one_that_raises_one_that_dies(tmp_path, fatal):
    """A sweep of three cells: failed by rank 1's error, done, and cut off by rank 1's death."""
    sweep = ["-m", "model=raises,gaussian_mixture,dies", *CELL, "save_every=0"]
    arguments = ["--config-dir", str(fatal), *sweep, "study=study", "tracker=jsonl"]
    result = torchrun(2, *arguments, cwd=tmp_path)
    study = tmp_path / "results" / "study"
    rows = {row["model"]: row for row in rows_of(study).values()}
    assert result.returncode != 0
    assert sorted(rows) == ["gaussian_mixture", "raises"], result.stderr
    raised, done = (rows[model] for model in ("raises", "gaussian_mixture"))

    assert raised["status"] == "failed"
    assert raised["reason"].startswith("rank 1: no more (")
    alone = run(tmp_path, "model=gaussian_mixture", *CELL)
    assert (done["world_size"], alone["world_size"]) == (2, 1)
    assert plain(done) == plain(alone)
    said = (study / "seedsbench.log").read_text()
    assert said.count(" nfe=7 seed=0: ") == 2, "one rank writes"
    assert "Traceback" in said
    assert len((study / "track.jsonl").read_text().splitlines()) == 2
    assert "the same command goes on from what is done" in result.stderr

    (saved,) = (path for path in (study / "partial").iterdir() if path.name != raised["run_key"])
    assert_it_goes_on_alone(tmp_path, saved, "dies", fatal)


@pytest.mark.slow
def test_a_sweep_on_three_ranks_ends_with_its_report_and_exit_code(tmp_path, fatal):
    sweep = ["-m", "model=raises,gaussian_mixture", *CELL, "study=study"]
    result = torchrun(3, "--config-dir", str(fatal), *sweep, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout.count("2 cells: 1 done, 0 skipped, 1 failed.") == 1
    assert (tmp_path / "results" / "study" / "report.html").is_file()
    refused = torchrun(2, "solver=elur", cwd=tmp_path)
    assert refused.stderr.count("seedsbench: unknown solver 'elur'. Did you mean 'euler' or 'heun'?") == 1
    planned = torchrun(2, *CELL, "plan=true", cwd=tmp_path).stdout
    assert planned.count("1 cell\n") == 1


@pytest.mark.slow
def test_rank_0_dies_and_the_other_ends_with_its_sums_saved(tmp_path, fatal):
    arguments = ["--config-dir", str(fatal), "model=dies_first", *CELL, "save_every=0", "study=study"]
    result = torchrun(2, *arguments, cwd=tmp_path)
    study = tmp_path / "results" / "study"
    assert result.returncode != 0
    assert rows_of(study) == {}
    (saved,) = (study / "partial").iterdir()
    assert_it_goes_on_alone(tmp_path, saved, "dies_first", fatal)


@pytest.mark.slow
def test_torchrun_that_is_told_to_stop_leaves_all_sums(tmp_path, fatal, monkeypatch):
    arguments = ["--config-dir", str(fatal), "model=waits", *CELL, "study=study"]
    process = started(2, *arguments, cwd=tmp_path)
    while process.poll() is None and len(list(tmp_path.glob("waiting-*"))) < 2:
        time.sleep(0.05)
    process.terminate()
    stopped = ended(process)
    assert stopped.returncode != 0
    assert stopped.stderr.count("seedsbench: stopped; the same command goes on from what is done") == 1
    assert " died (" not in stopped.stderr
    study = tmp_path / "results" / "study"
    assert {path.name for path in study.glob("partial/*/*.npz")} == {"rank-0.npz", "rank-1.npz"}
    assert rows_of(study) == {}
    (tmp_path / "go").touch()
    monkeypatch.chdir(tmp_path)
    again = torchrun(2, *arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "goes on at" in again.stdout
    (row,) = rows_of(study).values()
    assert plain(row) == plain(run(tmp_path, "model=waits", *CELL, config_dirs=[fatal]))


@pytest.mark.slow
def test_two_torchruns_into_one_study_share_a_cell_and_collide_nowhere(tmp_path):
    first, second = (
        started(
            2, "-m", "model=gaussian_mixture", *CELL[:1], f"nfe={nfe}", *CELL[2:], "study=s", cwd=tmp_path
        )
        for nfe in ("7,9", "7,11")
    )
    ends = [ended(process) for process in (first, second)]
    assert [end.returncode for end in ends] == [0, 0], [end.stderr for end in ends]
    rows = rows_of(tmp_path / "results" / "s").values()
    assert sorted((row["nfe_budget"], row["status"]) for row in rows) == [(n, "done") for n in (7, 9, 11)]
    assert {row["world_size"] for row in rows} == {2}
    (common,) = (row for row in rows if row["nfe_budget"] == 7)
    assert plain(common) == plain(run(tmp_path, "model=gaussian_mixture", *CELL))
    assert not (tmp_path / "results" / "s" / "partial").exists()


@pytest.mark.parametrize("wait", [ranks.broadcast, lambda: ranks.gathered(Ranks(0, 2), None)])
def test_a_connection_that_breaks_ends_the_run_and_is_no_failure_of_the_cell(monkeypatch, wait):
    broken = Mock(side_effect=RuntimeError("Connection closed by peer"))
    for name in ("broadcast_object_list", "gather_object"):
        monkeypatch.setattr(ranks.dist, name, broken)
    with pytest.raises(Stopped):
        wait()
    ranks.end(Ranks(0, 2))  # nobody is left to hear it


def test_a_process_alone_is_no_rank_and_waits_for_nobody():
    ranks.joined.cache_clear()
    assert ranks.joined() is ALONE
    assert ranks.gathered(ALONE, "part") == ["part"]
    ranks.end(ALONE)


@pytest.mark.slow
def test_ranks_that_build_another_model_each_fail_the_cell(tmp_path):
    build = "import os\ndef build():\n    v = 0.25 + os.getpid() / 1e9\n"
    build += "    return lambda x, sigma, labels: x * v / (v + sigma.reshape(-1, 1, 1, 1) ** 2)\n"
    (tmp_path / "own.py").write_text(build)
    write_images(tmp_path / "images", some_images(4))
    model = ["model=python", "model.path=own.py:build", "model.shape=[3,8,8]", "nfe=7", "samples=300"]
    given = [*model, "metrics=values", "metrics.reference=images", "device=cpu", "study=study"]
    torchrun(2, *given, cwd=tmp_path)
    (row,) = rows_of(tmp_path / "results" / "study").values()
    assert row["reason"].startswith("rank 1: the model is another one in each process")
