"""DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2): data prediction, one evaluation a step, order 2.

With h the step and h_prev the previous one in lambda = -log sigma, the data prediction is
extrapolated to the middle of the step: D + h / (2 h_prev) (D - D_prev). The first step, without
history, is DDIM. History is (D, h) in `state`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.unscaled import OneStage


@dataclass(frozen=True)
class DPMpp2M(OneStage):
    """Deterministic, order 2, one evaluation a step."""

    family: ClassVar[str] = "dpm_solver"
    order: ClassVar[int] = 2

    def update(
        self,
        x: Tensor,
        denoised: Tensor,
        sigma: Tensor,
        sigma_next: Tensor,
        state: tuple[Tensor, Tensor] | None,
        noise: Noise,
    ) -> StepResult:
        h = (sigma / sigma_next).log()
        extrapolated = denoised
        if state is not None:
            previous, h_previous = state
            extrapolated = denoised + expand(h / (2 * h_previous), x) * (denoised - previous)
        x = expand(sigma_next / sigma, x) * x - expand(torch.expm1(-h), x) * extrapolated
        return StepResult(x, (denoised, h))
