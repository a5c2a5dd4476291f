"""Restart sampling: what it is without restarts, its steps by hand, its law, its promise, its refusals."""

import itertools
import math

import pytest
import torch

import seedsbench
from seedsbench.noise import Recorded
from seedsbench.solvers.base import BudgetError
from tests.support.measure import START, gaussian_moments, mixture, run

SEVERAL = [[0.06, 0.3, 3, 2], [1.09, 1.92, 4, 1], [19.35, 40.79, 5, 3], [0.05, 0.2, 2, 1]]


@pytest.mark.parametrize("schedule", ["linear", "vp"])
@pytest.mark.parametrize("intervals", [[], [[0.06, 0.3, 3, 0]]])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_without_restarts_it_is_heun(intervals, alpha, schedule):
    solver, path = seedsbench.solver("restart", intervals=intervals, alpha=alpha), {"schedule": schedule}
    assert not solver.stochastic
    restart, heun = run(solver, steps=9, **path), run({"name": "heun", "alpha": alpha}, steps=9, **path)
    assert torch.equal(restart.x, heun.x)
    assert restart.nfe.tolist() == heun.nfe.tolist()


def test_the_algorithm_by_hand():
    """Algorithm 1 of the paper with Heun's rule written out, in x = data + sigma noise."""
    normals = torch.sin(torch.arange(3 * 12, dtype=torch.float64)).reshape(3, *START.shape)
    denoiser, draws = mixture(), iter(normals)

    def ode(x, levels):
        for s, t in itertools.pairwise(levels):
            slope = (x - denoiser(x, s)) / s
            guess = x + (t - s) * slope
            x = x + (t - s) / 2 * (slope + (guess - denoiser(guess, t)) / t)
        return x

    def edm(high, low, n):
        i = torch.arange(n, dtype=torch.float64) / (n - 1)
        return (high ** (1 / 7) + i * (low ** (1 / 7) - high ** (1 / 7))) ** 7

    levels = edm(80.0, 0.002, 18)
    x, at = START * 80, 0
    # The upper interval is met first, though listed last.
    for t_min, t_max, n_levels, k in ((1.0, 2.0, 4, 1), (0.06, 0.3, 3, 2)):
        place = int((levels - t_min).abs().argmin())
        x, at = ode(x, levels[at : place + 1]), place
        for _ in range(k):
            x = x + 1.003 * (t_max**2 - levels[place] ** 2).sqrt() * next(draws)
            x = ode(x, edm(t_max, float(levels[place]), n_levels))
    wanted = ode(x, levels[at:])
    solver = {"name": "restart", "intervals": [[0.06, 0.3, 3, 2], [1.0, 2.0, 4, 1]], "S_noise": 1.003}
    result = run(solver, steps=17, final="stop", noise=Recorded(normals))
    assert torch.allclose(result.x, wanted, rtol=1e-10, atol=1e-10)
    assert result.nfe.tolist() == [2 * 17 + 2 * 2 * 2 + 2 * 3] * 6


def test_the_default_is_the_papers_43_evaluations_and_restarts_are_paid_for_first():
    solver = seedsbench.solver("restart")
    assert solver.total_nfe(17) == 43
    assert [solver.steps_for(budget) for budget in (43, 42, 13, 12, 11)] == [17, 16, 2, 1, 1]
    with pytest.raises(BudgetError, match=r"smallest budget that works is 11$"):
        solver.steps_for(10)


@pytest.mark.parametrize("schedule", ["linear", "vp", "ve"])
@pytest.mark.parametrize("steps", [1, 4, 5, 6, 20])
def test_promised_evaluations_are_counted_ones_with_several_intervals(steps, schedule):
    solver = seedsbench.solver("restart", intervals=SEVERAL)
    assert solver.nfe(steps) == 2 * steps + 2 * (2 * 2 + 3 * 1 + 4 * 3 + 1 * 1)
    result = run(solver, steps=steps, schedule=schedule)
    assert result.nfe.tolist() == [solver.nfe(steps) + 1] * 6
    part = run(solver, latents=START[2:4], indices=[2, 3], steps=steps, schedule=schedule)
    assert torch.equal(part.x, result.x[2:4])


def test_a_coarse_grid_restarts_from_the_nearest_level_below_t_max():
    """0.31 is the level nearest t_min = 0.2, but no noise could be added there to reach t_max = 0.3."""
    path = {"sigmas": [80.0, 0.31, 0.001], "final": "stop"}
    result, plain = run({"name": "restart", "intervals": [[0.2, 0.3, 3, 1]]}, **path), run("heun", **path)
    assert result.nfe.tolist() == [2 * 2 + 2 * 2] * 6
    assert torch.equal(result.trajectory[1], plain.trajectory[1])
    assert not torch.equal(result.trajectory[2], plain.trajectory[2])


@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_the_law_stays_that_of_the_data(schedule):
    intervals = [[0.06, 0.3, 20, 3], [1.0, 2.0, 20, 2], [0.06, 5.0, 40, 1]]
    solver = {"name": "restart", "intervals": intervals}
    mean, variance = gaussian_moments(solver, 100, schedule=schedule)
    scale = 1.0 if schedule == "linear" else 1 / (1 + 0.05**2) ** 0.5
    assert mean == pytest.approx(0.3 * scale, abs=1e-3)
    assert variance == pytest.approx((0.5**2 + 0.05**2) * scale**2, rel=5e-3)
    louder = gaussian_moments(solver | {"S_noise": 1.1}, 100, schedule=schedule)[1]
    assert louder > variance * 1.02


def test_levels_are_those_that_the_network_knows():
    known = torch.tensor([0.002, 0.05, 0.1, 0.2, 0.4, 1.0, 5.0, 80.0], dtype=torch.float64)
    seen = []

    class Table:
        def round_sigma(self, sigma):
            return known[(known - sigma.reshape(-1, 1)).abs().argmin(1)].reshape(sigma.shape)

        def __call__(self, x, sigma, labels=None):
            seen.append(float(sigma))
            return mixture()(x, sigma, labels)

    solver = seedsbench.solver("restart", intervals=[[0.06, 0.35, 6, 2]])
    result = run(solver, Table(), steps=5)
    assert result.nfe.tolist() == [solver.nfe(len(result.sigmas) - 1) + 1] * 6
    assert all(bool(torch.isclose(known, torch.tensor(s).double()).any()) for s in seen)
    assert max(seen) == 80.0
    assert any(abs(s - 0.4) < 1e-9 for s in seen)  # 0.35 is not a level it knows


@pytest.mark.parametrize(
    ("interval", "why"),
    [
        ([0.3, 0.3, 3, 2], "t_min < t_max"),
        ([0, 0.3, 3, 2], r"\[0\]=0 must lie in \(0, "),
        ([0.06, math.inf, 3, 2], r"\[1\]=inf must lie in \(0, "),
        ([0.06, 0.3, 1, 2], r"\[2\]=1 must lie in \[2, "),
        ([0.06, 0.3, 2.5, 2], r"\[2\]=2.5 must be an integer"),
        ([0.06, 0.3, 3, -1], r"\[3\]=-1 must lie in \[0, "),
        ([0.06, 0.3, 3], "must be a list of 4"),
    ],
)
def test_a_bad_interval_is_named(interval, why):
    with pytest.raises(ValueError, match=f"Restart: interval.*{why}"):
        seedsbench.solver("restart", intervals=[interval])
