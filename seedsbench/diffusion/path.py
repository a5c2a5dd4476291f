"""One Brownian path that runs of any step length may follow."""

import math
from bisect import bisect_left

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise


class NoPathError(ValueError):
    """There is no path along which the solver's runs could be refined."""


class BrownianPath:
    """W at every clock reading asked for, remembered; readings between known ones are bridged exactly.

    The increments of a run and of a finer one are then increments of the same path, whichever runs first.
    normals: where the path is drawn from beyond the readings known, one draw a reading but for the first, at
    which W is 0: a run that goes first, one reading after the other, has the increments that it would have
    from `normals`, to rounding. bridges: where it is drawn from between them. Readings closer than 1e-11
    (relative) are one: a clock computed two ways. fresh: what is drawn beside the path, if anything may be.
    """

    def __init__(self, normals: Noise, bridges: Noise, fresh: Noise | None = None) -> None:
        self._normals, self._bridges, self._fresh = normals, bridges, fresh
        self._readings: list[float] = []
        self._values: list[Tensor] = []
        self._latest = 0.0

    def normal(self) -> Tensor:
        """Of `fresh`; NoPathError without it."""
        if self._fresh is None:
            raise NoPathError("this solver draws fresh normals: it follows no path")
        return self._fresh.normal()

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        """W(q1) - W(q0), whichever of the two is the larger; each (). NoPathError for one a sample."""
        if q0.ndim or q1.ndim:
            raise NoPathError("this solver has steps of its own for each sample: it follows no path")
        start = self._value(float(q0))  # drawn before the end is
        self._latest = float(q1)
        return self._value(self._latest) - start

    def forget(self) -> None:
        """Keep W at the end of the increment asked for last alone: no later one begins before it."""
        if self._readings:
            place = min(range(len(self._readings)), key=lambda i: abs(self._readings[i] - self._latest))
            self._readings, self._values = [self._readings[place]], [self._values[place]]

    def _value(self, q: float) -> Tensor:
        place = bisect_left(self._readings, q)
        for near in range(max(place - 1, 0), min(place + 1, len(self._readings))):
            if math.isclose(self._readings[near], q, rel_tol=1e-11):
                return self._values[near]
        self._values.insert(place, self._draw(q, place))
        self._readings.insert(place, q)
        return self._values[place]

    def _draw(self, q: float, place: int) -> Tensor:
        if not self._readings:
            return torch.zeros((), dtype=torch.float64)
        if place == 0:
            return self._values[0] + (self._readings[0] - q) ** 0.5 * self._normals.normal()
        if place == len(self._readings):
            return self._values[-1] + (q - self._readings[-1]) ** 0.5 * self._normals.normal()
        low, high = self._readings[place - 1], self._readings[place]
        share = (q - low) / (high - low)
        mean = self._values[place - 1] * (1 - share) + self._values[place] * share
        return mean + ((q - low) * (1 - share)) ** 0.5 * self._bridges.normal()
