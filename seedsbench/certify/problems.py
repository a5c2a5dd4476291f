"""What solvers are certified on: exact denoisers, so that all error is the solver's own."""

import math
from dataclasses import fields, replace
from functools import cache

import torch
from torch import Tensor

from seedsbench import api, registry
from seedsbench.denoisers.analytic import Gaussian, GaussianMixture
from seedsbench.solvers.base import Solver

STD, MEAN = 0.8, 0.3  # of the Gaussian problem
HIGH, LOW = 20.0, 0.2  # its noise levels: a range in which orders show with few steps


@cache
def mixture() -> GaussianMixture:
    """The three Gaussians of `model=gaussian_mixture`, in two dimensions."""
    config = registry.load("model", "gaussian_mixture")
    return GaussianMixture(config["means"], config["weights"], config["std"], sigma_min=0.002, sigma_max=80.0)


@cache
def line_mixture() -> GaussianMixture:
    """The mixture's first coordinate, a distribution on the line."""
    two = mixture()
    return GaussianMixture(two.means[:, :1], two.weights, two.std)


@cache
def gaussian() -> Gaussian:
    """One Gaussian on the line: a solver's map is then affine in the latent and in each normal."""
    return Gaussian(MEAN, STD, image_shape=(1, 1, 1))


def log_levels(n_steps: int, high: float, low: float) -> Tensor:
    """(n_steps + 1) levels uniform in log sigma, with the ends exactly as given."""
    levels = torch.exp(torch.linspace(math.log(high), math.log(low), n_steps + 1, dtype=torch.float64))
    levels[0], levels[-1] = high, low
    return levels


def as_solver(choice: Solver | api.Choice) -> Solver:
    """The solver itself, or the configured one of that name."""
    return choice if isinstance(choice, Solver) else api.solver(choice)


def fixed_steps(solver: Solver) -> Solver:
    """An adaptive solver with a tolerance no step meets: n_steps equal ones of its own clock. Others as is."""
    if not solver.adaptive:
        return solver
    named = {field.name for field in fields(solver)}
    return replace(solver, **{name: 1e-100 for name in ("rtol", "atol") if name in named})
