"""Fixtures of tests that run cells."""

import math

import pytest

from seedsbench.diffusion.process import Process


@pytest.fixture
def evaluations(monkeypatch):
    """Counts samples evaluated; `at` so many it runs `event`, once."""

    class Count:
        samples, at, event = 0, math.inf, staticmethod(lambda: None)

    predict = Process.predict

    def counted(self, x, sigma, *rows):
        Count.samples += len(x)
        if Count.samples >= Count.at:
            Count.at = math.inf
            Count.event()
        return predict(self, x, sigma, *rows)

    monkeypatch.setattr(Process, "predict", counted)
    return Count
