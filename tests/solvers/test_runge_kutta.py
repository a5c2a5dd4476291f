"""Midpoint and classical Runge-Kutta: what they are, written another way."""

import pytest
import torch

from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import VE, VP, Linear
from tests.support.measure import START, log_levels, mixture, run

LEVELS = log_levels(7, 20.0, 0.05)
SCHEDULES = [Linear(), VE(), VP(fit_range=False)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_midpoint_is_heun_with_its_slope_taken_in_the_middle(schedule):
    """That form of Heun's is checked against EDM's code and the SEEDS authors', so this one is too."""
    path = {"sigmas": LEVELS, "schedule": schedule, "final": "stop"}
    midpoint, heun = run("midpoint", **path), run({"name": "heun", "alpha": 0.5}, **path)
    assert torch.equal(midpoint.x, heun.x)
    assert midpoint.nfe.tolist() == [2 * 7] * 6


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rk4_is_the_textbooks(schedule):
    process = Process(mixture(), schedule, 6)
    times = schedule.sigma_inv(LEVELS)
    x = START * LEVELS[0] * schedule.scale_at(LEVELS[0])
    for t, t_next in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        h = t_next - t
        start, middle, end = (torch.tensor(u, dtype=torch.float64) for u in (t, t + h / 2, t_next))
        k1 = process.drift(x, start)
        k2 = process.drift(x + h / 2 * k1, middle)
        k3 = process.drift(x + h / 2 * k2, middle)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + process.drift(x + h * k3, end))
    result = run("rk4", sigmas=LEVELS, schedule=schedule, final="stop")
    assert torch.allclose(result.x, x, rtol=1e-9, atol=1e-10)
    assert result.nfe.tolist() == process.nfe.tolist() == [4 * 7] * 6
