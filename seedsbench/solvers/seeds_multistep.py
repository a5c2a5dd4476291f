"""SEEDS, multistep: drift and weak order 3 with one evaluation a step, taken in its middle.

In a splitting (parts/splitting.py) the SDE is dv = N dy + dB(q), v = x/A. With L the polynomial in sigma
through the three newest values of N, a step from v_n is

    z_n = v_n + (integral of L dy to the middle) + the noise there,
    v_(n+1) = v_n + (integral of L dy over the step, N(z_n) now one of the three) + B's noise over the step.

Evaluated inside the step, N sees a part of the step's own noise, which it does not in other multistep
methods. The noise in the middle is a point of B's path but for one thing, that takes its weak order from 2 to
3: the bridges of neighbouring steps are correlated (parts/bridges.py).

Derivation and measurements are in docs/weak-order-3.md. No multistep solver of weak order 3 for diffusion
models is known to us.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.parts.bridges import bridge_conditions, moving_average
from seedsbench.solvers.parts.quadrature import lagrange, step_nodes
from seedsbench.solvers.parts.split_sde import SplitSDE

VALUES = 3
"""Values of N, and normals of a bridge."""


@dataclass(frozen=True)
class Recent:
    """sigmas, values: where N was evaluated and what it was; normals: of the bridges. Newest first."""

    sigmas: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()
    normals: tuple[Tensor, ...] = ()

    def seen(self, sigma: Tensor, value: Tensor) -> "Recent":
        """With one more evaluation."""
        return replace(self, sigmas=(sigma, *self.sigmas)[:VALUES], values=(value, *self.values)[:VALUES])

    def drawn(self, noise: Noise) -> "Recent":
        """With one more normal; at the first step with all that a bridge is made of."""
        new = [noise.normal() for _ in range(1 if self.normals else VALUES)]
        return replace(self, normals=(*new, *self.normals)[:VALUES])


@dataclass(frozen=True)
class SeedsMultistep(SplitSDE):
    """One evaluation a step and one more at the start, two normals a step; drift and weak order 3.

    For any drift, at any eta. In few long steps it extrapolates far: with 10 evaluations on EDM's grid
    SEEDS-3 is better.
    """

    order: ClassVar[int] = 3
    node: ClassVar[float] = 1 / 2
    """Where a step is evaluated, as a share of the step of log y."""
    correlations: ClassVar[tuple[float, float]] = (-1 / 168, -27 / 168)
    """Of the bridges of steps one and two apart: what the conditions ask for at this node."""

    @property
    def weak_order(self) -> int | None:
        matrix, wanted = bridge_conditions(self.node)
        right = np.allclose(matrix @ self.correlations, wanted)
        return None if not self.stochastic else 3 if right else 2

    def nfe(self, n_steps: int) -> int:
        return n_steps + 1

    def init(self, process: Process, x: Tensor, times: Tensor) -> Recent:
        return Recent()

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Recent, noise: Noise
    ) -> StepResult:
        splitting = self.splitting
        start, end = splitting.clock(sigma), splitting.clock(sigma_next)
        middle = splitting.sigma(start * (end / start) ** self.node)
        if not state.values:
            state = state.seen(sigma, splitting.nonlinear(x, process.predict(x, sigma), sigma))
        if self.stochastic:
            state = state.drawn(noise)
        inside, whole = self._noises((sigma, middle, sigma_next), state.normals, noise)
        at = self._moved(x, sigma, middle, state, inside)
        state = state.seen(middle, splitting.nonlinear(at, process.predict(at, middle), middle))
        return StepResult(self._moved(x, sigma, sigma_next, state, whole), state)

    def _moved(self, x: Tensor, sigma: Tensor, end: Tensor, known: Recent, noises: list[Tensor]) -> Tensor:
        """x moved from sigma to another level of the step, by the polynomial through what is known."""
        gain = self.splitting.amplitude(end)
        row = [gain * weight for weight in self._integrals(sigma, end, known.sigmas)] + [gain] * len(noises)
        start = expand(gain / self.splitting.amplitude(sigma), x) * x
        return add_weighted(start, row, [*known.values, *noises], owned=True)

    def _integrals(self, sigma: Tensor, end: Tensor, sigmas: tuple[Tensor, ...]) -> list[Tensor]:
        """Weights of the values at `sigmas` in the integral of their polynomial dy between two levels."""
        y, measure = step_nodes(self.splitting.clock(sigma), self.splitting.clock(end))
        places = self.variable(torch.stack(sigmas)), self.variable(self.splitting.sigma(y))
        return list((lagrange(*places) * measure).sum(1))

    def variable(self, sigma: Tensor) -> Tensor:
        """What N is a polynomial in. In sigma it is extrapolated less far at low levels than in log sigma."""
        return sigma

    def _noises(
        self, sigmas: tuple[Tensor, Tensor, Tensor], normals: tuple[Tensor, ...], noise: Noise
    ) -> tuple[list[Tensor], list[Tensor]]:
        """B's noise inside the step and over all of it, each the one of a list; none for the ODE.

        sigmas: the step's start, its node, its end.
        """
        if not self.stochastic:
            return [], []
        start, inside, end = (self.splitting.noise_clock(sigma) for sigma in sigmas)
        whole = noise.increment(start, end)
        share = (inside - start) / (end - start)
        bridge = (share * (1 - share) * (end - start).abs()).sqrt()
        row = [bridge * weight for weight in moving_average(*self.correlations)]
        return [add_weighted(expand(share, whole) * whole, row, normals, owned=True)], [whole]
