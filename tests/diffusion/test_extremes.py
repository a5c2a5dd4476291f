"""Every solver at the ends of every schedule, on the exact Gaussian, in float32 and float64.

Each step is linear there, so sample moments propagate exactly if those of the random numbers are exact.
Latents and step noises are therefore columns of an orthogonal matrix: mean 0, variance 1 and no correlation
in the very samples that are drawn. The floor of a score, the Frechet distance of the samples to the data's
exact moments, is then 0 for any number of them, and what is left is the solver's own error. Budgets are such
that this comes within BOUND for the one whose error falls most slowly; data that collapse to a point score
0.63, divergence and lost digits 1 to 1e60.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench.api import noise_levels
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.sampling import plan_of
from seedsbench.diffusion.grid import Explicit
from seedsbench.diffusion.schedule import Discrete
from seedsbench.noise import Recorded
from seedsbench.solvers.karras_sde import KarrasSDE
from seedsbench.solvers.pndm import PNDM
from seedsbench.solvers.runge_kutta import RungeKutta
from seedsbench.solvers.seeds_multistep import SeedsMultistep
from tests.support.cells import compose

BOUND = 0.04
EVALUATIONS = 150
MANY = 2 * EVALUATIONS + 4  # columns for two values of a latent and of each step's noise, and their mean
GAUSSIAN = seedsbench.analytic.GaussianMixture([[0.3, -0.2]], [1.0], 0.5)
FLOAT32, FLOAT64 = torch.float32, torch.float64
SCHEDULES = ("linear", "vp", "subvp", "ve", "ve_geometric", "discrete")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
TRAILING = {"name": "discrete", "timestep_spacing": "trailing"}  # starts at the last entry
WIDE = {"name": "edm", "sigma_min": 1e-4, "sigma_max": 1e5}


def _normals():
    """(draws, MANY, 2, 1, 1) whose columns are orthogonal, of mean 0 and variance 1; the first is latents."""
    random = torch.randn(MANY, MANY - 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(MANY, 1, dtype=torch.float64), random], 1))
    return (basis[:, 1:] * MANY**0.5).reshape(MANY, -1, 2, 1, 1).transpose(0, 1)


NORMALS = _normals()


def score(solver, dtype, budget, **path):
    """The Frechet distance of MANY samples to the data; path: of `seedsbench.sample`."""
    noise = Recorded(NORMALS[1:].repeat(20, 1, 1, 1, 1).to(dtype))  # repeated for adaptive solvers
    x = seedsbench.sample(GAUSSIAN, NORMALS[0], solver=solver, nfe=budget, dtype=dtype, noise=noise, **path).x
    flat = x.double().flatten(1).numpy()
    return seedsbench.metrics.frechet_distance(flat.mean(0), np.cov(flat.T, bias=True), *GAUSSIAN.moments())


def prepared(name):
    """(solver, evaluations): more where error falls slowly, as that of Euler where sigma = sqrt(t).

    PNDM's Runge-Kutta stages amplify what they err where a step is long (cosine tables, the last entry of
    which is 30 times the one before). Adaptive solvers need some hundred before their tolerance acts; a
    stochastic one decides on its trials by their noise, which does not keep the law if an image has no more
    than two values: here by the whole batch's. For one with two normals an evaluation there are columns for
    half.
    """
    solver = seedsbench.solver(name)
    if solver.adaptive:
        return (replace(solver, norms="batch") if solver.stochastic else solver), 1200
    if isinstance(solver, RungeKutta | KarrasSDE | PNDM):
        return solver, 300 if solver.order > 1 else 1200
    if isinstance(solver, SeedsMultistep):
        return solver, EVALUATIONS // 2
    return solver, EVALUATIONS


RANGES = list(itertools.product(SCHEDULES, [FLOAT32, FLOAT64]))
TABLES = list(itertools.product([True, False], BETAS, [FLOAT32, FLOAT64]))
QUICK = [
    ("vp", FLOAT32),
    (True, "squaredcos_cap_v2", FLOAT32),
]


def cases(some):
    return [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in some]


@pytest.mark.one_of_each_family
@pytest.mark.parametrize(("schedule", "dtype"), cases(RANGES))
def test_nine_decades_of_noise(solver_name, schedule, dtype):
    solver, budget = prepared(solver_name)
    assert score(solver, dtype, budget, schedule=schedule, grid=WIDE) < BOUND


@pytest.mark.one_of_each_family
@pytest.mark.parametrize(("zero_snr", "betas", "dtype"), cases(TABLES))
def test_from_the_last_entry_of_a_table(solver_name, zero_snr, betas, dtype):
    schedule = {"name": "discrete", "beta_schedule": betas, "rescale_betas_zero_snr": zero_snr}
    solver, budget = prepared(solver_name)
    budget = budget if solver.adaptive else min(budget, 300)
    assert score(solver, dtype, budget, schedule=schedule, grid=TRAILING) < BOUND


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_the_score_sees_what_is_lost_in_the_limit(dtype):
    """What 1e-30 in place of 0 does to a formula that cancels there; ddim and ddpm do start from it."""
    schedule = {"name": "discrete", "rescale_betas_zero_snr": True}
    limit = schedule | {"terminal_alpha_cumprod": 1e-30}
    assert not score("dpm2", dtype, 40, schedule=limit, grid=TRAILING) < 1e5
    for name in ("ddim", "ddpm"):
        free, given = (score(name, dtype, 40, schedule=s, grid=TRAILING) for s in (schedule, limit))
        assert free == given < BOUND


FIRST = {"ddim": 1e15, "ddpm": 1e15, "dpm2": 30812.06, "heun": 30812.06}


@pytest.mark.parametrize(("name", "first"), FIRST.items())
def test_a_cell_and_sample_start_where_the_solver_can(name, first):
    """30812 is twice the level before it; a cosine table, whose last levels are farther apart, has 4096."""
    cell = ("model=gaussian", f"solver={name}", "schedule=discrete", "grid=discrete", "nfe=40")
    cfg = compose(*cell, "schedule.rescale_betas_zero_snr=true", "grid.timestep_spacing=trailing")
    planned = plan_of(cfg, problem_of(cfg, "cpu"))
    schedule = {"name": "discrete", "rescale_betas_zero_snr": True}
    linear, cosine = (
        seedsbench.sample(GAUSSIAN, NORMALS[0], solver=name, nfe=40, schedule=table, grid=TRAILING).sigmas
        for table in (schedule, schedule | {"beta_schedule": "squaredcos_cap_v2"})
    )
    assert torch.equal(planned.sigmas, linear)
    assert float(linear[0]) == pytest.approx(first, rel=1e-6)
    assert float(cosine[0]) == pytest.approx(1e15 if first == 1e15 else 4096, rel=1e-6)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", [10, 1000, 4000])
def test_a_table_rises_to_its_end_whatever_stands_there(betas, steps):
    table = Discrete(beta_schedule=betas, num_train_timesteps=steps, rescale_betas_zero_snr=True)
    for found in (table, table.short_of_limit()):
        assert bool((found.log_sigmas.diff() > 0).all())
        assert bool(found.log_sigmas.isfinite().all())
    given = Discrete(beta_schedule=betas, num_train_timesteps=steps)
    assert given.short_of_limit() is given


def test_levels_given_literally_have_the_table_they_are_of():
    table = Discrete(rescale_betas_zero_snr=True)
    for found in (table, table.short_of_limit()):
        levels = found.log_sigmas.flip(0)[:3].exp()
        for zero_snr in (True, False):
            grid = Explicit(sigmas=levels.tolist())
            sigmas, fitted = noise_levels(GAUSSIAN, table, grid, 2, zero_snr=zero_snr)
            assert fitted.sigma_inv(sigmas).tolist() == pytest.approx([999, 998, 997], abs=1e-9)
