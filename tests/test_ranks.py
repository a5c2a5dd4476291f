"""Several processes, one cell: the same row, whoever fails, and whoever dies."""

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from cells import CIRCUMSTANCES, rows_of, run, same
from extractors import some_images, write_images

from seedsbench.bench import ranks
from seedsbench.bench.ranks import ALONE, Ranks, merged
from seedsbench.bench.stopping import Stopped

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"world_size", "threads"}

FATAL = '''
"""A mixture whose evaluation fails, or kills its process, on one rank; or that waits."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from seedsbench.bench.problems import mixture_problem
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
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SEEDSBENCH_")}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
    return subprocess.Popen(
        [*command, "-m", "seedsbench", *arguments],
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
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
    folder = tmp_path / "conf"
    (folder / "model").mkdir(parents=True)
    (folder / "fatal_network.py").write_text(FATAL)
    choices = {what: f"what: {what}\n" for what in ("raises", "dies", "waits")}
    for name, text in (choices | {"dies_first": "what: dies\nvictim: '0'\n"}).items():
        (folder / "model" / f"{name}.yaml").write_text(f"_target_: fatal_network.fatal_problem\n{text}")
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


@pytest.mark.slow
def test_rank_0_dies_and_the_other_says_so_in_its_place(tmp_path, fatal):
    arguments = ["--config-dir", str(fatal), "model=dies_first", *CELL, "save_every=0", "study=study"]
    result = torchrun(2, *arguments, cwd=tmp_path)
    study = tmp_path / "results" / "study"
    (died,) = rows_of(study).values()
    assert result.returncode != 0
    assert (died["status"], died["reason"][:11]) == ("failed", "rank 0 died")
    assert result.stderr.count(f"seedsbench: {died['reason']}") == 1
    assert len(list((study / "partial" / died["run_key"]).glob("rank-*.npz"))) == 2
    again = run(tmp_path / "results", "model=dies_first", *CELL, config_dirs=[fatal])
    whole = run(tmp_path, "model=dies_first", *CELL, config_dirs=[fatal])
    assert (again["status"], again["run_key"]) == ("done", died["run_key"])
    assert plain(again) == plain(whole)


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


def together(*works):
    """Run each work(ranks) in a thread of its own, as ranks with one store; their results, errors too."""
    store, results = dist.HashStore(), {}

    def run_one(rank, work):
        try:
            results[rank] = work(Ranks(rank, len(works), rank, store))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run_one, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return [results.get(rank) for rank in range(len(works))]


def raise_it():
    raise ArithmeticError("no more")


def test_an_error_of_one_rank_is_that_of_the_cell_and_ends_the_others():
    def endless(of, number):
        look = ranks.watch(of, number)
        while True:
            look()
            time.sleep(0.01)

    for failing in (0, 1, 2):
        works = [lambda of: ranks.in_step(of, 1, lambda: endless(of, 1))] * 3
        works[failing] = lambda of: ranks.in_step(of, 1, raise_it)
        first, *others = together(*works)
        assert (type(first), str(first)) == (ValueError, f"rank {failing}: no more")
        assert others == [False, False]


def test_a_rank_that_does_not_answer_is_named_by_the_first_that_lives(monkeypatch):
    monkeypatch.setattr(ranks, "GRACE", 0.3)

    def stopped(of):
        return ranks.blamed(of, {"run_key": "k"})

    assert together(stopped, stopped) == [None, None]
    _, first, second = together(lambda of: None, stopped, stopped)
    assert (first["run_key"], first["status"], first["reason"][:11]) == ("k", "failed", "rank 0 died")
    assert second is None


def test_a_rank_without_a_sign_of_life_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(ranks, "BEAT", 0.05)
    monkeypatch.setattr(ranks, "SILENCE", 0.5)
    monkeypatch.setattr(ranks, "GRACE", 0.5)
    working = threading.Event()

    def living(of):
        threading.Thread(target=ranks.beat, args=(of,), daemon=True).start()
        look = ranks.watch(of, 1)

        def draws():  # longer than a silence
            while of.rank == 1 and not working.wait(0.01):
                look()

        try:
            ranks.in_step(of, 1, draws)
        except Stopped:
            return ranks.blamed(of, {})

    first, second, _ = together(living, living, lambda of: None)
    working.set()
    assert first["reason"][:11] == "rank 2 died"
    assert second is None


def test_rank_0_does_not_leave_before_the_others_have_heard_the_end():
    heard = []

    def leading(of):
        ranks.tell(of, lambda: {"cell": 1})
        ranks.tell(of, lambda: None)
        return list(heard)

    def following(of):
        for _, message in ranks.messages(of):
            time.sleep(0.2)
            heard.append(message)

    assert together(leading, following)[0] == [{"cell": 1}]


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
