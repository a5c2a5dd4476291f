"""What solvers are certified on: exact denoisers, so that all error is the solver's own."""

import math
from dataclasses import fields, replace
from functools import cache

import torch
from torch import Tensor

from seedsbench import api, registry
from seedsbench.denoisers.analytic import GaussianMixture
from seedsbench.solvers.base import Solver

START, END = 5.0, 0.4  # noise levels between which weak and strong orders on the mixture are measured
AnySolver = Solver | api.Choice
"""A solver, or the name of a configured one, with options or without."""


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


def log_levels(n_steps: int, high: float, low: float) -> Tensor:
    """(n_steps + 1) noise levels uniform in log sigma, with the ends exactly as given."""
    levels = torch.exp(torch.linspace(math.log(high), math.log(low), n_steps + 1, dtype=torch.float64))
    levels[0], levels[-1] = high, low
    return levels


def as_solver(choice: AnySolver) -> Solver:
    """The solver that is meant."""
    return choice if isinstance(choice, Solver) else api.solver(choice)


def fixed_steps(solver: Solver) -> Solver:
    """An adaptive solver with a tolerance no step meets: equal steps in its own clock. Others as is."""
    if not solver.adaptive:
        return solver
    tolerances = {field.name for field in fields(solver)} & {"rtol", "atol"}
    return replace(solver, **dict.fromkeys(tolerances, 1e-100))
