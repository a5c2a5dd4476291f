"""Orders of the drift (noise off) and of the strong error (along one Brownian path)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seedsbench import api
from seedsbench.certify.paths import ends_along_one_path
from seedsbench.certify.problems import AnySolver, as_solver, log_levels, mixture
from seedsbench.diffusion.noise import Silent


@dataclass(frozen=True)
class Measured:
    """An order, and its standard error where it was estimated by sampling (0 where it was not)."""

    order: float
    stderr: float = 0.0


def drift_order(
    solver: AnySolver,
    schedule: str = "linear",
    counts: tuple[int, int, int] = (32, 64, 128),
    high: float = 10.0,
    low: float = 0.1,
) -> float:
    """log2 of the ratio of successive differences on the mixture, noise off: needs no reference solution.

    counts: numbers of steps, each twice the one before, uniform in log sigma.
    """
    x = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(8, 2, 1, 1)
    options: Any = {"solver": solver, "schedule": schedule, "final": "stop", "noise": Silent(x.shape)}
    ends = [api.sample(mixture(), x, sigmas=log_levels(n, high, low), **options).x for n in counts]
    first, second = ((b - a).norm() for a, b in itertools.pairwise(ends))
    return float(torch.log2(first / second))


def limit_drift_order(
    solver: AnySolver,
    schedule: str = "linear",
    *,
    counts: tuple[int, int, int] = (64, 128, 256),
    within: float = 0.3,
) -> float:
    """The drift order of `solver.noise_free` in the limit of many steps.

    While it is not within `within` of the declared one the steps are doubled, up to 4096, where the
    measurement stands.
    """
    silent = as_solver(solver).noise_free
    # The steps of an adaptive solver are uniform in its own clock, which resolves a wide range late.
    levels = {"high": 2.0, "low": 0.3} if silent.adaptive else {}
    measured = drift_order(silent, schedule, counts, **levels)
    while abs(measured - silent.order) > within and counts[-1] < 4096:
        counts = (2 * counts[0], 2 * counts[1], 2 * counts[2])
        measured = drift_order(silent, schedule, counts, **levels)
    return measured


def strong_order(solver: AnySolver, counts: Sequence[int] = (32, 64, 128), *, paths: int = 2000) -> Measured:
    """Order of the mean distance between runs along the same Brownian path (see `ends_along_one_path`)."""
    ends = ends_along_one_path(solver, counts, paths=paths)
    fine, coarse = ((b - a).norm(dim=1) for a, b in itertools.pairwise(ends))
    order = math.log2(float(coarse.mean() / fine.mean()))
    # The standard error of the logarithm of a ratio of paired means, by the delta method.
    difference = coarse / coarse.mean() - fine / fine.mean()
    return Measured(order, float(difference.std() / math.sqrt(paths) / math.log(2)))
