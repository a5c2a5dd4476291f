"""One Brownian path that solvers of any step length may read, for strong orders."""

from bisect import bisect_left

import torch
from torch import Tensor

from seedsbench.diffusion.noise import LATENTS, Philox

CERTIFY = 0x200  # stream of the certificate's own draws, apart from sampling's and the data sets'


class NoPathError(ValueError):
    """The solver draws fresh normals: there is no path along which it could be refined."""


class BrownianPath:
    """W at every clock reading asked for, remembered; readings between known ones are bridged exactly.

    The increments of a run and of a finer one are then increments of the same path, whichever runs first.
    shape: (B, C, H, W). Readings closer than `tolerance` (relative) are one: a clock computed two ways.
    """

    def __init__(self, shape: tuple[int, int, int, int], *, seed: int = 0, tolerance: float = 1e-11) -> None:
        self._normals = Philox(torch.arange(shape[0]), shape[1:], seed=seed, stream=CERTIFY)
        self._tolerance = tolerance
        self._readings: list[float] = []
        self._values: list[Tensor] = []

    def normal(self) -> Tensor:
        """Raises NoPathError."""
        raise NoPathError("this solver draws fresh normals: it has no path to refine")

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        """W(q1) - W(q0); in the direction of decreasing q its sign is that of a path run from q0."""
        start, end = self._value(float(q0)), self._value(float(q1))
        return end - start

    def _value(self, q: float) -> Tensor:
        place = bisect_left(self._readings, q)
        for near in (place - 1, place):
            if 0 <= near < len(self._readings):
                known = self._readings[near]
                if abs(known - q) <= self._tolerance * max(abs(known), abs(q)):
                    return self._values[near]
        value = self._draw(q, place)
        self._readings.insert(place, q)
        self._values.insert(place, value)
        return value

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


def latents(n: int, dim: int, *, seed: int = 0) -> Tensor:
    """(n, dim, 1, 1) standard normals, a function of (seed, index)."""
    return Philox(torch.arange(n), (dim, 1, 1), seed=seed, stream=LATENTS).normal()
