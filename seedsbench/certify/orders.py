"""Orders of the drift (noise off) and of the strong error (one Brownian path, refined)."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seedsbench import api
from seedsbench.certify.paths import BrownianPath, NoPathError, latents
from seedsbench.certify.problems import as_solver, fixed_steps, log_levels, mixture
from seedsbench.diffusion.noise import Silent
from seedsbench.solvers.base import Solver

Choice = Solver | api.Choice


@dataclass(frozen=True)
class Measured:
    """An order, and its standard error where it was estimated by sampling (0 where it was not)."""

    order: float
    stderr: float = 0.0


def drift_order(
    solver: Choice,
    schedule: str = "linear",
    counts: tuple[int, int, int] = (32, 64, 128),
    high: float = 10.0,
    low: float = 0.1,
) -> float:
    """log2 of the ratio of successive differences on the mixture, noise off: needs no reference solution.

    counts: numbers of steps, each twice the one before, uniform in log sigma.
    """
    x = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(8, 2, 1, 1)
    ends = []
    for n in counts:
        result = api.sample(
            mixture(),
            x,
            solver=solver,
            sigmas=log_levels(n, high, low),
            schedule=schedule,
            final="stop",
            noise=Silent(x.shape),
        )
        ends.append(result.x)
    first, second = ((b - a).norm() for a, b in itertools.pairwise(ends))
    return float(torch.log2(first / second))


def limit_drift_order(
    solver: Choice,
    schedule: str = "linear",
    *,
    counts: tuple[int, int, int] = (64, 128, 256),
    within: float = 0.3,
) -> float:
    """The drift order of `solver.noise_free`, looked for further out where few steps do not show it.

    Orders are limits: while it is not within `within` of the declared one the steps are doubled, up
    to 4096, where the measurement stands.
    """
    silent = as_solver(solver).noise_free
    # The steps of an adaptive solver are uniform in its own clock, which resolves a wide range late.
    levels = {"high": 2.0, "low": 0.3} if silent.adaptive else {}
    measured = drift_order(silent, schedule, counts, **levels)
    while abs(measured - silent.order) > within and counts[-1] < 4096:
        counts = (2 * counts[0], 2 * counts[1], 2 * counts[2])
        measured = drift_order(silent, schedule, counts, **levels)
    return measured


def strong_order(
    solver: Choice, counts: tuple[int, int, int] = (32, 64, 128), *, paths: int = 2000, seed: int = 0
) -> Measured | None:
    """Order of the mean difference between runs along the same Brownian path, on the mixture.

    The path lives in the solver's own clock, and is refined by exact bridges. None for a solver without
    noise and for one that draws fresh normals, which are increments of no path.
    """
    method = fixed_steps(as_solver(solver))
    if not method.stochastic:
        return None
    x = latents(paths, 2, seed=seed)
    path = BrownianPath((paths, 2, 1, 1), seed=seed)
    ends = []
    try:
        for n in reversed(counts):  # the finest first: coarser ones find its readings
            levels = log_levels(n, 5.0, 0.4)
            ends.append(api.sample(mixture(), x, solver=method, sigmas=levels, final="stop", noise=path).x)
    except NoPathError:
        return None
    fine, coarse = ((b - a).flatten(1).norm(dim=1) for a, b in itertools.pairwise(ends))
    return Measured(math.log2(float(coarse.mean() / fine.mean())), _log2_ratio(coarse, fine))


def _log2_ratio(a: Tensor, b: Tensor) -> float:
    """Standard error of log2(mean a / mean b) of paired samples, by the delta method."""
    difference = a / a.mean() - b / b.mean()
    return float(difference.std() / math.sqrt(len(a)) / math.log(2))
