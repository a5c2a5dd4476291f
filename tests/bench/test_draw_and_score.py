"""Samples in turn with their scoring: seconds by the clock, every error as itself."""

from unittest.mock import Mock

import pytest
import torch

from seedsbench.bench import draw_and_score
from seedsbench.diffusion.process import Process
from seedsbench.metrics.extraction import Extractor
from tests.support.cells import run

N, BLOCKS = 700, 6  # 5 blocks of 128 and a last one of 60
CELL = ["solver=euler", "nfe=2", f"samples={N}", "batch_size=50", "save_every=0"]


@pytest.fixture
def watch(monkeypatch):
    """Calls `drawn` at each evaluation of a batch, and `scored` for each block of features."""

    def after(event, method):
        def called(*given):
            event()
            return method(*given)

        return called

    def watched(drawn, scored):
        monkeypatch.setattr(Process, "predict", after(drawn, Process.predict))
        monkeypatch.setattr(Extractor, "padded", after(scored, Extractor.padded))

    return watched


def test_seconds_are_those_of_the_clock(tmp_path, monkeypatch, watch):
    class Clock:
        now = 0.0
        perf_counter = staticmethod(lambda: Clock.now)

    def tick(seconds):
        Clock.now += seconds

    monkeypatch.setattr(draw_and_score, "time", Clock)
    watch(lambda: tick(1.0), lambda: tick(10.0))
    row = run(tmp_path, *CELL)
    assert (row["seconds_sampling"], row["seconds_features"]) == (N / 50 * 2, BLOCKS * 10)


@pytest.mark.parametrize(
    ("error", "number", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 0, "CUDA out of memory"),
        (ValueError("sample 3 has non-finite values"), 3, "sample 3 has non-finite values"),
        (KeyError("what"), BLOCKS - 1, "KeyError: 'what'"),
    ],
)
def test_an_error_in_scoring_fails_the_cell_as_itself(tmp_path, watch, error, number, reason):
    watch(lambda: None, Mock(side_effect=2 * [*[None] * number, error]))
    row = run(tmp_path, *CELL)
    assert row["status"] == "failed"
    assert reason in row["reason"]
    with pytest.raises(type(error)) as caught:
        run(tmp_path / "debug", *CELL, "debug=true")
    assert caught.value is error
