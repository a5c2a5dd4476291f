"""Several processes, one cell: the same row, whoever fails, and whoever dies."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cells import CIRCUMSTANCES, rows_of, run, same

from seedsbench.bench import ranks
from seedsbench.bench.ranks import ALONE, Ranks, merged
from seedsbench.bench.stopping import Stopped

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"world_size", "threads"}

FATAL = '''
"""A mixture whose evaluation fails, or kills its process, on rank 1."""

import os
import signal
from dataclasses import replace

from seedsbench.bench.problems import mixture_problem
from seedsbench.denoisers.base import FixedBatch


class Fatal(FixedBatch):
    calls, what = 0, "raises"

    def __call__(self, x, sigma, labels=None):
        self.calls += 1
        if os.environ.get("RANK") == "1" and self.calls > 24:
            if self.what == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError("no more")
        return super().__call__(x, sigma, labels)


def fatal_problem(regime, what, device="cpu"):
    problem = mixture_problem(regime, "fatal", [[0.3, -0.2], [-0.5, 0.1]], [0.5, 0.5], 0.3)
    denoiser = Fatal(problem.denoiser)
    denoiser.what = what
    return replace(problem, denoiser=denoiser)
'''


def plain(row):
    return {key: value for key, value in same(row).items() if key not in ENVIRONMENT}


def torchrun(n, *arguments, cwd):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SEEDSBENCH_")}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
    return subprocess.run(
        [*command, "-m", "seedsbench", *arguments],
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def fatal(tmp_path, monkeypatch):
    """A --config-dir with model=raises and model=dies."""
    folder = tmp_path / "conf"
    (folder / "model").mkdir(parents=True)
    (folder / "fatal_network.py").write_text(FATAL)
    for what in ("raises", "dies"):
        text = f"_target_: fatal_network.fatal_problem\nwhat: {what}\n"
        (folder / "model" / f"{what}.yaml").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("SEEDSBENCH_CONF", str(folder))
    return folder


CELL = ["solver=seeds2", "nfe=7", "samples=700", "batch_size=50", "labels=random", "device=cpu"]


def test_two_ranks_one_that_raises_one_that_dies(tmp_path, fatal):
    """A sweep of three cells: failed by rank 1's error, done, and cut off by rank 1's death."""
    sweep = ["-m", "model=raises,gaussian_mixture,dies", *CELL, "save_every=0"]
    arguments = ["--config-dir", str(fatal), *sweep, "study=study", "tracker=jsonl"]
    result = torchrun(2, *arguments, cwd=tmp_path)
    study = tmp_path / "results" / "study"
    rows = {row["model"]: row for row in rows_of(study).values()}
    assert result.returncode != 0
    assert sorted(rows) == ["dies", "gaussian_mixture", "raises"], result.stderr
    raised, done, died = (rows[model] for model in ("raises", "gaussian_mixture", "dies"))

    assert (raised["status"], raised["reason"]) == ("failed", "rank 1: no more")
    alone = run(tmp_path, "model=gaussian_mixture", *CELL)
    assert (done["world_size"], alone["world_size"]) == (2, 1)
    assert plain(done) == plain(alone)
    assert (died["status"], died["reason"][:11]) == ("failed", "rank 1 died")
    assert len((study / "seedsbench.log").read_text().splitlines()) == 3, "one rank writes"
    assert len((study / "track.jsonl").read_text().splitlines()) == 2, "the last was no more told of"

    saved = study / "partial" / died["run_key"]
    assert {path.name for path in saved.glob("*.npz")} == {"rank-0.npz", "rank-1.npz"}
    again = run(tmp_path / "results", "model=dies", *CELL, config_dirs=[fatal])
    whole = run(tmp_path, "model=dies", *CELL, config_dirs=[fatal])
    assert (again["status"], again["run_key"]) == ("done", died["run_key"])
    assert plain(again) == plain(whole)
    assert not saved.exists()


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


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_sums_of_all_ranks_reach_rank_0_once(monkeypatch, world_size):
    pipes = {(a, b): queue.Queue() for a in range(world_size) for b in range(world_size)}
    here = threading.local()

    def recv(tensor, source):
        tensor.copy_(pipes[source, here.rank].get(timeout=10))

    monkeypatch.setattr(ranks.dist, "send", lambda tensor, to: pipes[here.rank, to].put(tensor.clone()))
    monkeypatch.setattr(ranks.dist, "recv", recv)
    sums = [[rank] for rank in range(world_size)]

    def work(rank):
        here.rank = rank
        merged(Ranks(rank, world_size), lambda: bytes(sums[rank]), lambda data: sums[rank].extend(data))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums[0]) == list(range(world_size))


def test_a_connection_that_breaks_ends_the_run_and_is_no_failure_of_the_cell(monkeypatch):
    def recv(tensor, source):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(ranks.dist, "recv", recv)
    with pytest.raises(Stopped):
        merged(Ranks(0, 2), bytes, lambda data: None)


def test_a_process_alone_is_no_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    ranks.joined.cache_clear()
    assert ranks.joined() is ALONE
    assert "world_size" not in CIRCUMSTANCES
