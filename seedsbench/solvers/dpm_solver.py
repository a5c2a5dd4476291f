"""DPM-Solver (Lu et al. 2022a) and DPM-Solver++ (2022b), single-step: rules as plain functions, and solvers.

With eps = (x - D)/sigma and lambda = -log sigma the probability-flow ODE is dx = eps dsigma in unscaled x, so
a constant eps is integrated exactly. A node r of a step lies at sigma (sigma_next/sigma)^r, a share r of the
way in lambda. Each rule returns x and the estimates it took: from these an adaptive solver has the rule of
one order less (`end1`, `end2`), and the first estimate of its next trial. sigma may be a 0-dim or a (B,)
tensor.

A solver's step is one whole step of its rule, with 1, 2 or 3 evaluations at nodes inside it, and nothing is
kept for the next. The order is the number of evaluations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seedsbench.checks import Node
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, each, expand
from seedsbench.solvers.base import StepResult, Unscaled
from seedsbench.solvers.parts.tableau import phi

Predict = Callable[[Tensor, Tensor], Tensor]  # process.predict: D of unscaled x at sigma
Taken = tuple[Tensor, tuple[Tensor, ...]]  # x at sigma_next, and the estimates at the start and the nodes
Rule = Callable[[Predict, Tensor, Tensor, Tensor], Taken]


def node(sigma: Tensor, sigma_next: Tensor, r: float) -> Tensor:
    """The level a share r of the step on, in lambda."""
    return sigma * each(lambda ratio: ratio**r, sigma_next / sigma)


def noise_estimate(predict: Predict, x: Tensor, sigma: Tensor) -> Tensor:
    """eps = (x - D)/sigma; one evaluation."""
    return (x - predict(x, sigma)) / _like(sigma, x)


def end1(x: Tensor, sigma: Tensor, sigma_next: Tensor, eps: Tensor) -> Tensor:
    """The step of order 1 from its estimate."""
    return x + _like(sigma_next - sigma, x) * eps


def end2(x: Tensor, sigma: Tensor, sigma_next: Tensor, eps: Tensor, inner: Tensor, r1: float) -> Tensor:
    """The step of order 2 from its estimates at the start and at the node r1."""
    slope = _like((sigma_next - sigma) / (2 * r1), x) * (inner - eps)
    return end1(x, sigma, sigma_next, eps) + slope


def dpm1(predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor, eps: Tensor | None = None) -> Taken:
    """DPM-Solver-1 (Lu et al. 2022a, eq. 3.7), which is DDIM; one evaluation, none if eps is given."""
    eps = noise_estimate(predict, x, sigma) if eps is None else eps
    return end1(x, sigma, sigma_next, eps), (eps,)


def dpm2(
    predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor, r1: float = 0.5, eps: Tensor | None = None
) -> Taken:
    """DPM-Solver-2 (2022a, Algorithm 4, any r1); two evaluations, one if eps is given."""
    middle = node(sigma, sigma_next, r1)
    u, (eps,) = dpm1(predict, x, sigma, middle, eps)
    inner = noise_estimate(predict, u, middle)
    return end2(x, sigma, sigma_next, eps, inner, r1), (eps, inner)


def dpm3(
    predict: Predict,
    x: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    r1: float = 1 / 3,
    r2: float = 2 / 3,
    eps: Tensor | None = None,
) -> Taken:
    """DPM-Solver-3 (2022a, Algorithm 5); three evaluations, two if eps is given. Order 3 for r2 = 2/3."""
    first, second = node(sigma, sigma_next, r1), node(sigma, sigma_next, r2)
    h = (sigma / sigma_next).log()
    u, (eps,) = dpm1(predict, x, sigma, first, eps)
    inner = noise_estimate(predict, u, first)
    bend = _bend(second, r2 * h) * (r2 / r1)
    u = end1(x, sigma, second, eps) + _like(bend, x) * (inner - eps)
    outer = noise_estimate(predict, u, second)
    x = end1(x, sigma, sigma_next, eps) + _like(_bend(sigma_next, h) / r2, x) * (outer - eps)
    return x, (eps, inner, outer)


RULES: dict[int, Rule] = {1: dpm1, 2: dpm2, 3: dpm3}  # by order, which is the number of evaluations


def dpmpp2(predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor, r1: float = 0.5) -> Taken:
    """DPM-Solver++(2S) (2022b, Algorithm 1), D in place of eps: returns images. Two evaluations."""
    denoised = predict(x, sigma)
    middle = node(sigma, sigma_next, r1)
    inner = predict(decay(x, sigma, middle, denoised), middle)
    mean = denoised + (inner - denoised) / (2 * r1)
    return decay(x, sigma, sigma_next, mean), (denoised, inner)


def decay(x: Tensor, sigma: Tensor, sigma_next: Tensor, denoised: Tensor) -> Tensor:
    """The way to sigma_next of x whose denoised image stays as it is: (t/s) x + (1 - t/s) D."""
    return _like(sigma_next / sigma, x) * x - _like(torch.expm1((sigma_next / sigma).log()), x) * denoised


def _bend(sigma: Tensor, z: Tensor) -> Tensor:
    """-sigma ((exp(z) - 1)/z - 1): weight of an estimate that grows in proportion over a step z to sigma."""
    return -sigma * z * phi(2, z)


def _like(value: Tensor, x: Tensor) -> Tensor:
    """A coefficient of x's shape and dtype: a (B,) one is float64 and would promote a float32 state."""
    return expand(value, x).to(x.dtype)


@dataclass(frozen=True)
class Singlestep(Unscaled):
    """A subclass names its `rule`, to which its `nodes` are given."""

    family: ClassVar[str] = "dpm_solver"
    rule: ClassVar[Callable[..., Taken]]
    nodes: ClassVar[tuple[float, ...]] = ()

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        return StepResult(self.rule(process.predict, x, sigma, sigma_next, *self.nodes)[0])


@dataclass(frozen=True)
class DPMSolver1(Singlestep):
    """DDIM without noise."""

    order: ClassVar[int] = 1
    rule = staticmethod(dpm1)


@dataclass(frozen=True)
class DPMSolver2(Singlestep):
    """r1: the node, as a share of the step in lambda; 1 ends the step there, as Heun does."""

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    rule = staticmethod(dpm2)
    r1: Node = 0.5

    @property
    def nodes(self) -> tuple[float, ...]:
        return (self.r1,)


@dataclass(frozen=True)
class DPMpp2S(DPMSolver2):
    """The same with data prediction."""

    rule = staticmethod(dpmpp2)


@dataclass(frozen=True)
class DPMSolver3(DPMSolver2):
    """r1, r2: the nodes, 0 < r1 < r2 <= 1; of order 3 for r2 = 2/3 alone, of order 2 elsewhere."""

    evaluations: ClassVar[int] = 3
    rule = staticmethod(dpm3)
    r1: Node = 1 / 3
    r2: Node = 2 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.r1 < self.r2:
            raise ValueError(f"DPMSolver3: r1={self.r1} must be less than r2={self.r2}")

    @property
    def order(self) -> int:
        return 3 if abs(self.r2 - 2 / 3) < 1e-9 else 2

    @property
    def nodes(self) -> tuple[float, ...]:
        return self.r1, self.r2
