"""DPM-Solver++(2M) and (3M) (Lu et al. 2022b, Algorithm 2, and its third-order relative), multistep.

With h the step and h_prev the previous one in lambda = -log sigma, the data prediction is extrapolated to the
middle of the step: D + h / (2 h_prev) (D - D_prev). The first step, without history, is DDIM. 3M puts a
parabola through the three newest predictions; its second step is 2M. Its first step is of order 2, which
shows only where runs start at a level as low as the data's own spread. One evaluation a step. In noise
prediction the same methods are the multistep DPM-Solver.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import OneStage, StepResult
from seedsbench.solvers.parts.exponential_adams import DataOrNoise, History, phi_table
from seedsbench.solvers.parts.splitting import SPLITTINGS


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
