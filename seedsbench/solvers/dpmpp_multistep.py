"""DPM-Solver++ multistep: 2M and 3M on the ODE, and 2M SDE and 3M SDE on the reverse SDE.

Lu et al. 2022b, Algorithm 2 and section 5, and their third-order relatives (3M SDE is k-diffusion's). One
evaluation a step; the first steps use the history there is.

ODE: with h the step and h_prev the previous one in lambda = -log sigma, the data prediction is extrapolated
to the middle of the step: D + h / (2 h_prev) (D - D_prev). The first step, without history, is DDIM. 3M puts
a parabola through the three newest predictions; its second step is 2M. Its first step is of order 2, which
shows only where runs start at a level as low as the data's own spread. In noise prediction the same methods
are the multistep DPM-Solver.

SDE: the one of rate eta, dx = (1 + eta)(D - x) dlambda + sqrt(2 eta) sigma dW, is solved exactly but for D: a
polynomial in lambda through the last two or three estimates. With z = (1 + eta) h, d1 its slope and d2 half
its second derivative at the start, in units of h:

    x_next = exp(-z) x + (1 - exp(-z)) D + z phi_2(-z) d1 + 2 z phi_3(-z) d2 + noise

eta is k-diffusion's: a rate. The SEEDS solvers' eta is its square root; they agree at 0 and 1. One normal a
step.
"""

import itertools
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.solvers.ancestral import AddedNoise
from seedsbench.solvers.base import OneStage, StepResult
from seedsbench.solvers.parts.exponential_adams import DataOrNoise, History, phi_table
from seedsbench.solvers.parts.quadrature import newton
from seedsbench.solvers.parts.splitting import SPLITTINGS
from seedsbench.solvers.parts.tableau import phi


@dataclass(frozen=True)
class DPMpp2M(OneStage):
    """solver_type: weight of the slope, at its midpoint value or ("heun") integrated exactly.
    prediction: what is extrapolated. lower_order_final: the last step of the path is of order 1, the
    one before of order 2 at most. denoise_to_zero: whether that last step is the one to zero (false
    for final: stop); if so, lower_order_final changes nothing in 2M.
    """

    family: ClassVar[str] = "dpm_solver"
    order: ClassVar[int] = 2
    values: ClassVar[int] = 2  # predictions that a step uses
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    prediction: DataOrNoise = "data"
    lower_order_final: bool = True
    denoise_to_zero: bool = True

    def init(self, process: Process, x: Tensor, times: Tensor) -> History:
        sigmas = process.schedule.sigma(times)
        h = (sigmas[:-1] / sigmas[1:]).log()
        return History(phi_table(-h if self.prediction == "data" else h))

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: History, noise: Noise
    ) -> StepResult:
        h = (sigma / sigma_next).log()
        state = state.seen(SPLITTINGS[self.prediction](0.0).nonlinear(x, denoised, sigma), h, self.values)
        order = state.order(self.values, self.lower_order_final, self.denoise_to_zero)
        extrapolated = self.extrapolate(order, state.phis[state.taken], state)
        if self.prediction == "noise":
            x = x - expand(sigma - sigma_next, x) * extrapolated
        else:
            x = expand(sigma_next / sigma, x) * x - expand(torch.expm1(-h), x) * extrapolated
        return StepResult(x, replace(state, taken=state.taken + 1))

    def extrapolate(self, order: int, phis: Tensor, state: History) -> Tensor:
        """The mean of the prediction over the step under its exponential weight."""
        newest = state.outputs[0]
        if order == 1:
            return newest
        h, h_previous = state.steps[:2]
        slope = h / (2 * h_previous)
        if self.solver_type == "heun":
            slope = h / h_previous * phis[1] / phis[0]
        return newest + expand(slope, newest) * (newest - state.outputs[1])


@dataclass(frozen=True)
class DPMpp3M(DPMpp2M):
    """Deterministic, three values, one evaluation a step.

    compat: the released codes (diffusers, diff-sampler) give the second difference phi_3 where a parabola
    has 2 phi_3, so half of the curvature is lost and the order is 2; "paper" has the parabola.
    solver_type is that of the steps of order 2.
    """

    values: ClassVar[int] = 3
    compat: Literal["paper", "diffusers"] = "paper"

    @property
    def order(self) -> int:
        return 3 if self.compat == "paper" else 2

    def extrapolate(self, order: int, phis: Tensor, state: History) -> Tensor:
        if order < 3:
            return super().extrapolate(order, phis, state)
        h, *before = state.steps
        r0, r1 = (h_past / h for h_past in before)
        first, second, third = state.outputs
        slope = phis[1] / phis[0]
        curvature = (2 if self.compat == "paper" else 1) * phis[2] / phis[0]
        # Divided differences, newest first: d0 = (first - second)/r0, d1 = (second - third)/r1.
        d0 = slope + (slope * r0 + curvature) / (r0 + r1)
        d1 = -(slope * r0 + curvature) / (r0 + r1)
        return first + expand(d0 / r0, first) * (first - second) + expand(d1 / r1, first) * (second - third)


@dataclass(frozen=True)
class MultistepSDE(AddedNoise, OneStage):
    """A subclass writes `moments` and says how many `values` of D it interpolates."""

    family: ClassVar[str] = "k_diffusion"
    values: ClassVar[int]

    @property
    def weak_order(self) -> int | None:
        # 2 as measured, not 1. D is a martingale of the reverse SDE, so extrapolating it errs by O(h^2) in
        # a step; what a single stage leaves out, that D follows the noise within the step, is as large and
        # of the other sign. A third point does not better this.
        return 2 if self.right_law else None

    @abstractmethod
    def moments(self, h: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """What the step makes of a D that grows as s and, with three values, as s^2 / 2 in lambda."""

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        history = ((denoised, sigma.log()), *(state or ()))[: self.values]  # newest first
        h = (sigma / sigma_next).log()
        z = (1 + self.eta) * h
        values, logs = zip(*history, strict=True)
        gaps = [earlier - later for later, earlier in itertools.pairwise(logs)]
        first, *others = newton(self.moments(h, z), gaps)
        row = [first - torch.expm1(-z), *others]
        x = add_weighted(expand((-z).exp(), x) * x, row, values, owned=True)
        std = sigma_next * (-torch.expm1(-2 * self.eta * h)).sqrt()
        return StepResult(self.noisy(x, std, sigma, sigma_next, noise), history)


@dataclass(frozen=True)
class DPMpp2MSDE(MultistepSDE):
    """Order 2. solver_type: d1 has its exact weight ("heun") or that of D at the middle ("midpoint")."""

    order: ClassVar[int] = 2
    values: ClassVar[int] = 2
    solver_type: Literal["midpoint", "heun"] = "midpoint"

    def moments(self, h: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return (h * (-torch.expm1(-z) / 2 if self.solver_type == "midpoint" else z * phi(2, -z)),)


@dataclass(frozen=True)
class DPMpp3MSDE(MultistepSDE):
    """Order 3. compat: "k_diffusion" gives d2 half its weight, z phi_3(-z), as public code does: order 2."""

    values: ClassVar[int] = 3
    compat: Literal["exact", "k_diffusion"] = "exact"

    @property
    def order(self) -> int:
        return 3 if self.compat == "exact" else 2

    def moments(self, h: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        second = h**2 * z * phi(3, -z)
        return h * z * phi(2, -z), second if self.compat == "exact" else second / 2
