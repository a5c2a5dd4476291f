"""One Brownian path that runs of any step length may follow, for strong orders and weak ones by sampling."""

import math
from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

from seedsbench import api
from seedsbench.certify.problems import END, START, AnySolver, as_solver, fixed_steps, log_levels, mixture
from seedsbench.diffusion.noise import Philox, latents

CERTIFY = 0x200  # stream of the certificate's own draws, apart from sampling's and the data sets'


class NoPathError(ValueError):
    """There is no path along which the solver's runs could be refined."""


class BrownianPath:
    """W at every clock reading asked for, remembered; readings between known ones are bridged exactly.

    The increments of a run and of a finer one are then increments of the same path, whichever runs first.
    shape: (B, C, H, W). Readings closer than 1e-11 (relative) are one: a clock computed two ways.
    """

    def __init__(self, shape: tuple[int, int, int, int], *, seed: int = 0) -> None:
        self._normals = Philox(torch.arange(shape[0]), shape[1:], seed=seed, stream=CERTIFY)
        self._readings: list[float] = []
        self._values: list[Tensor] = []

    def normal(self) -> Tensor:
        """Raises NoPathError."""
        raise NoPathError("this solver draws fresh normals: it follows no path")

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        """W(q1) - W(q0), whichever of the two is the larger."""
        start = self._value(float(q0))  # drawn before the end is
        return self._value(float(q1)) - start

    def _value(self, q: float) -> Tensor:
        place = bisect_left(self._readings, q)
        for near in range(max(place - 1, 0), min(place + 1, len(self._readings))):
            if math.isclose(self._readings[near], q, rel_tol=1e-11):
                return self._values[near]
        self._values.insert(place, self._draw(q, place))
        self._readings.insert(place, q)
        return self._values[place]

    def _draw(self, q: float, place: int) -> Tensor:
        z = self._normals.normal()
        if not self._readings:
            return torch.zeros_like(z)
        if place == 0:
            return self._values[0] + (self._readings[0] - q) ** 0.5 * z
        if place == len(self._readings):
            return self._values[-1] + (q - self._readings[-1]) ** 0.5 * z
        low, high = self._readings[place - 1], self._readings[place]
        share = (q - low) / (high - low)
        mean = torch.lerp(self._values[place - 1], self._values[place], share)
        return mean + ((q - low) * (1 - share)) ** 0.5 * z


def ends_along_one_path(solver: AnySolver, counts: Sequence[int], *, paths: int) -> list[Tensor]:
    """Final states (paths, 2) of runs on the mixture from START to END, one a step count, longest first.

    All runs follow the same Brownian paths, which live in the solver's own clock and are refined by exact
    bridges. NoPathError for a solver without noise or with fresh normals, which are increments of no path.
    """
    method, path = fixed_steps(as_solver(solver)), BrownianPath((paths, 2, 1, 1))
    if not method.stochastic:
        raise NoPathError("this solver has no noise: it follows no path")
    start = latents(torch.arange(paths), (2, 1, 1), seed=0)
    ends = []
    for n in sorted(counts, reverse=True):  # the finest first: coarser ones find its readings
        levels = log_levels(n, START, END)
        run = api.sample(mixture(), start, solver=method, sigmas=levels, final="stop", noise=path)
        ends.append(run.x.flatten(1))
    return ends
