"""DDPM's ancestral sampler (Ho, Jain and Abbeel 2020, Algorithm 2) between any two noise levels.

In unscaled coordinates the posterior q(x_t | x_s, data = D) has mean D + (sigma_t/sigma_s)^2 (x - D)
and variance sigma_t^2 (sigma_s^2 - sigma_t^2) / sigma_s^2 ("small"); "large" is beta of the
variance-preserving process, (sigma_s^2 - sigma_t^2)(1 + sigma_t^2)/(1 + sigma_s^2).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.unscaled import OneStage


@dataclass(frozen=True)
class DDPM(OneStage):
    """One evaluation a step, drift order 1, weak order 1. variance: "small" (the posterior's) or "large"."""

    family: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    weak_order: ClassVar[int | None] = 1
    stochastic: ClassVar[bool] = True
    variance: Literal["small", "large"] = "small"

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        gap = sigma**2 - sigma_next**2
        small, large = sigma_next**2 / sigma**2, (1 + sigma_next**2) / (1 + sigma**2)
        std = (gap * (small if self.variance == "small" else large)).sqrt()
        x = denoised + expand(small, x) * (x - denoised)
        return StepResult(x + expand(std, x) * noise.normal())
