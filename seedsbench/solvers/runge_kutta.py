"""Explicit Runge-Kutta methods on the probability-flow ODE, in the time of the schedule."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seedsbench.checks import Node
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted
from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.parts.tableau import ButcherTableau

EULER = ButcherTableau(c=(0.0,), a=((),), b=(1.0,))


def second_order(alpha: float) -> ButcherTableau:
    """The two-stage family: alpha = 1 is Heun, 1/2 midpoint, 2/3 Ralston (EDM, Algorithm 3)."""
    half = 0.5 / alpha
    return ButcherTableau(c=(0.0, alpha), a=((), (alpha,)), b=(1 - half, half))


def rk_step(process: Process, tableau: ButcherTableau, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """One explicit Runge-Kutta step of dx/dt = drift; costs len(tableau.b) evaluations."""
    h = t_next - t
    slopes: list[Tensor] = []
    for node, weights in zip(tableau.c, tableau.a, strict=True):
        slopes.append(process.drift(_advance(x, h, weights, slopes), t + node * h))
    return _advance(x, h, tableau.b, slopes)


def _advance(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    used = [(weight * h, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    return add_weighted(x, *zip(*used, strict=True)) if used else x


@dataclass(frozen=True)
class RungeKutta(Solver):
    """Explicit Runge-Kutta with a fixed tableau: len(b) evaluations a step, deterministic."""

    family: ClassVar[str] = "edm"
    tableau: ClassVar[ButcherTableau]

    def nfe(self, n_steps: int) -> int:
        return len(self.tableau.b) * n_steps

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        return StepResult(rk_step(process, self.tableau, x, t, t_next))


@dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method: order 1, one evaluation a step. On an unscaled schedule this is DDIM."""

    order: ClassVar[int] = 1
    tableau: ClassVar[ButcherTableau] = EULER


@dataclass(frozen=True)
class Heun(RungeKutta):
    """EDM's deterministic sampler (Karras et al. 2022, Algorithms 1 and 3): order 2, two evaluations a step.

    alpha in (0, 1]: where the second slope is taken, as a share of the step (1 is Heun's rule).
    """

    order: ClassVar[int] = 2
    alpha: Node = 1.0

    @property
    def tableau(self) -> ButcherTableau:
        return second_order(self.alpha)


@dataclass(frozen=True)
class Midpoint(RungeKutta):
    """The midpoint rule, which is Heun's with alpha = 1/2: order 2, two evaluations a step."""

    family: ClassVar[str] = "runge_kutta"
    order: ClassVar[int] = 2
    tableau: ClassVar[ButcherTableau] = second_order(0.5)


@dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical Runge-Kutta method (Kutta 1901): order 4, four evaluations a step."""

    family: ClassVar[str] = "runge_kutta"
    order: ClassVar[int] = 4
    tableau: ClassVar[ButcherTableau] = ButcherTableau(
        c=(0.0, 0.5, 0.5, 1.0),
        a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        b=(1 / 6, 2 / 6, 2 / 6, 1 / 6),
    )
