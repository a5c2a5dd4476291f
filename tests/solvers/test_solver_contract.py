"""The contract every solver keeps, over every conf/solver/*.yaml (and --solver-dir)."""

import itertools

import pytest
import torch

import seedsbench
from seedsbench.diffusion.noise import Philox, latents
from seedsbench.diffusion.process import Process, expand
from seedsbench.diffusion.schedule import VP, Linear
from seedsbench.noise import Recorded, Silent
from seedsbench.solvers.base import BudgetError, Solver
from seedsbench.solvers.integrate import integrate
from tests.support.measure import limit_drift_order, log_levels, mixture, run
from tests.support.parity import built

SHAPE = (2, 1, 1)
SCHEDULES = {name: built("schedule", name) for name in ("linear", "vp", "ve", "discrete", "flow")}


def start(n=8, seed=0):
    return latents(torch.arange(n), SHAPE, seed=seed)


def test_declares_its_numbers(solver_name):
    solver = seedsbench.solver(solver_name)
    assert isinstance(solver, Solver)
    assert solver.order >= 1
    assert (solver.weak_order is None) or solver.stochastic
    assert isinstance(solver.family, str)
    assert [solver.nfe(n) for n in (1, 2, 3)] == sorted({solver.nfe(n) for n in (1, 2, 3)})


PROMISES = [("linear", "denoise"), ("discrete", "euler")]
THE_REST = [
    pair for pair in itertools.product(SCHEDULES, ("denoise", "euler", "stop")) if pair not in PROMISES
]


@pytest.mark.parametrize(
    ("schedule", "final"), PROMISES + [pytest.param(*pair, marks=pytest.mark.slow) for pair in THE_REST]
)
def test_promised_evaluations_are_counted_ones(solver_name, schedule, final):
    solver = seedsbench.solver(solver_name)
    for steps in (1, 2, 5):
        result = run(solver, latents=start(), steps=steps, schedule=SCHEDULES[schedule], final=final)
        promised = solver.total_nfe(steps, final)
        if solver.adaptive:
            assert 0 < result.nfe.min() <= result.nfe.max() <= promised
        else:
            assert result.nfe.tolist() == [promised] * 8
        assert result.x.isfinite().all()


def test_a_budget_is_never_exceeded_and_one_more_step_would(solver_name):
    solver = seedsbench.solver(solver_name)
    smallest = solver.total_nfe(1)
    for budget in range(smallest):
        with pytest.raises(BudgetError, match=f"smallest budget that works is {smallest}$"):
            solver.steps_for(budget)
    for budget in range(smallest, 40):
        steps = solver.steps_for(budget)
        assert solver.total_nfe(steps) <= budget < solver.total_nfe(steps + 1)


@pytest.mark.one_of_each_family
@pytest.mark.parametrize(
    "schedule", ["linear", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vp", "flow"))]
)
def test_drift_order_is_the_declared_one(solver_name, schedule):
    solver = seedsbench.solver(solver_name)
    assert limit_drift_order(solver, schedule, counts=(16, 32, 64)) == pytest.approx(solver.order, abs=0.3)


@pytest.mark.one_of_each_family
@pytest.mark.parametrize("alone", [(0, 8, 22), pytest.param(range(23), marks=pytest.mark.slow)])
def test_samples_do_not_depend_on_batch_or_order(solver_name, alone):
    solver = seedsbench.solver(solver_name)
    indices = torch.arange(23)

    def drawn(chosen):
        path = {"steps": 4, "schedule": SCHEDULES["vp"], "seed": 3, "indices": chosen}
        return run(solver, latents=latents(chosen, SHAPE, seed=3), **path).x

    whole = drawn(indices)
    assert torch.equal(torch.cat([drawn(part) for part in indices.split(7)]), whole)
    for index in alone:
        assert torch.equal(drawn(indices[index : index + 1]), whole[index : index + 1])
    shuffled = torch.tensor([5, 22, 0, 17, 9])
    assert torch.equal(drawn(shuffled), whole[shuffled])


@pytest.mark.one_of_each_family
def test_keeps_the_dtype_and_float32_is_float64_rounded(solver_name):
    dtypes = (torch.float64, torch.float32)
    double, single = (run(solver_name, latents=start(), steps=6, dtype=dtype).x for dtype in dtypes)
    assert (double.dtype, single.dtype) == dtypes
    assert torch.allclose(single.double(), double, atol=2e-3)


@pytest.mark.one_of_each_family
@pytest.mark.parametrize(("low", "high"), [(1e-3, 20000.0), (0.0065, 81.0)])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_stays_finite_at_extreme_levels(solver_name, steps, low, high):
    assert run(solver_name, latents=start(), sigmas=log_levels(steps, high, low)).x.isfinite().all()


@pytest.mark.slow
def test_the_largest_budget_stays_finite(solver_name):
    """1000 evaluations, from iDDPM's highest level to below every network's lowest."""
    solver = seedsbench.solver(solver_name)
    levels = log_levels(solver.steps_for(1000), 20000.0, 1e-3)

    def unit_gaussian(x, sigma, labels):  # far cheaper than the mixture
        return x / (1 + expand(sigma, x) ** 2)

    normals = latents(torch.arange(2), (2, 2500, 1), seed=4).reshape(2500, 2, 2, 1, 1)
    noise = Recorded(normals)  # drawn at once, which is cheaper too
    result = run(solver, unit_gaussian, start(2), sigmas=levels, noise=noise)
    assert 900 <= result.nfe.max() <= 1000 or solver.adaptive
    assert result.x.isfinite().all()


def test_draws_noise_exactly_if_it_says_so(solver_name):
    solver = seedsbench.solver(solver_name)
    silent = run(solver, latents=start(), steps=5, noise=Silent((8, *SHAPE))).x
    noisy = run(solver, latents=start(), steps=5).x
    assert torch.equal(silent, noisy) != solver.stochastic


def test_steps_are_pure(solver_name):
    """Two interleaved runs of one solver object do not see each other: history lives in the state."""
    solver = seedsbench.solver(solver_name)

    def states(seed):
        process = Process(mixture(), Linear(), 4)
        noise = Philox(torch.arange(4), SHAPE, seed=seed)
        return integrate(process, solver, start(4, seed), log_levels(5, 10.0, 0.1), noise, "denoise")

    alone = [list(states(seed)) for seed in (0, 1)]
    for one, two, a, b in zip(states(0), states(1), *alone, strict=True):
        assert torch.equal(one, a)
        assert torch.equal(two, b)


@pytest.mark.one_of_each_family
@pytest.mark.parametrize("n", [1000, pytest.param(4000, marks=pytest.mark.slow)])
def test_converges_to_the_data(solver_name, n):
    """Many steps from N(0, sigma_max^2) must give the mixture's mean and covariance."""
    indices, denoiser = torch.arange(n), mixture()
    path = {"sigmas": log_levels(80, 30.0, 0.01), "schedule": VP(fit_range=False), "seed": 1}
    result = run(solver_name, denoiser, latents(indices, SHAPE, seed=1), **path).x.flatten(1)
    mean, cov = denoiser.moments()
    spread = 5 / n**0.5
    assert torch.allclose(result.mean(0), torch.as_tensor(mean), atol=spread * 0.6 + 0.02)
    assert torch.allclose(torch.cov(result.T), torch.as_tensor(cov), atol=spread * 0.4 + 0.02)
