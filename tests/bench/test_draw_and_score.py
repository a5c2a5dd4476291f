"""Samples in turn with their scoring: seconds by the clock, every error as itself, flags kept apart."""

from dataclasses import replace

import pytest
import torch

from seedsbench.bench import draw_and_score as share
from seedsbench.bench import precision
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.scoring import Scorer
from seedsbench.diffusion.process import Process
from seedsbench.metrics.extraction import full_precision
from tests.support.cells import compose, run

N = 700  # 5 blocks of 128 and a last one of 60
CELL = ["solver=euler", "nfe=2", f"samples={N}", "batch_size=50", "save_every=0"]


def with_problem(monkeypatch, problem):
    monkeypatch.setattr("seedsbench.bench.run.problem_of", lambda *_: problem)


def scoring_also(monkeypatch, work):
    """Calls work(number of the batch) where each batch is scored."""
    update, numbers = Scorer.update, iter(range(10**6))

    def counted(self, *arguments):
        if len(arguments) > 2:  # images of the floor cost no evaluations
            work(next(numbers))
        return update(self, *arguments)

    monkeypatch.setattr(Scorer, "update", counted)


def test_seconds_are_those_of_the_clock(tmp_path, monkeypatch):
    class Clock:
        now = 0.0
        perf_counter = staticmethod(lambda: Clock.now)

    def tick(seconds):
        Clock.now += seconds

    predict = Process.predict
    monkeypatch.setattr(share, "time", Clock)
    monkeypatch.setattr(Process, "predict", lambda *given: (tick(1.0), predict(*given))[1])
    scoring_also(monkeypatch, lambda _: tick(10.0))
    row = run(tmp_path, *CELL)
    assert (row["seconds_sampling"], row["seconds_features"]) == (N / 50 * 2, N / 50 * 10)


@pytest.mark.parametrize(
    ("error", "number", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 0, "CUDA out of memory"),
        (ValueError("sample 3 has non-finite values"), 6, "sample 3 has non-finite values"),
        (KeyError("what"), N // 50 - 1, "KeyError: 'what'"),
    ],
)
def test_an_error_in_scoring_fails_the_cell_as_itself(tmp_path, monkeypatch, error, number, reason):
    def fail(reached):
        if reached == number:
            raise error

    with monkeypatch.context() as patch:
        scoring_also(patch, fail)
        row = run(tmp_path, *CELL)
    assert row["status"] == "failed"
    assert reason in row["reason"]
    scoring_also(monkeypatch, fail)
    with pytest.raises(type(error)) as caught:
        run(tmp_path / "debug", *CELL, "debug=true")
    assert caught.value is error


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


class Noting:
    """A denoiser that notes the flags in force when it is called."""

    def __init__(self, denoiser, seen):
        self._denoiser, self._seen = denoiser, seen

    def __getattr__(self, name):
        return getattr(self._denoiser, name)

    def __call__(self, x, sigma, labels=None):
        self._seen.add((*flags(), torch.backends.cudnn.deterministic))
        return self._denoiser(x, sigma, labels)

    def with_network(self, change):
        return self


def test_sampling_in_tf32_and_features_without_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_check_device", lambda *_: None)
    plain, before, drawn, extracted = problem_of(compose(), "cpu"), flags(), set(), set()

    def extract(images):
        with full_precision("cuda"):
            extracted.add((*flags(), torch.backends.cudnn.deterministic))
            return plain.features.extract(images)

    features = replace(plain.features, extract=extract, device="pretended", block=16)
    with_problem(monkeypatch, replace(plain, denoiser=Noting(plain.denoiser, drawn), features=features))
    row = run(tmp_path, *CELL, "samples=300", "precision=tf32", "solver=heun", "nfe=5")
    assert row["status"] == "done", row["reason"]
    assert drawn == {(True, True, False)}
    assert extracted == {(False, False, True)}
    assert flags() == before
