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
from seedsbench.solvers.parts.clipping import Clipping

Variance = Literal[
    "fixed_small",
    "fixed_small_log",
    "fixed_large",
    "fixed_large_log",
    "learned",
    "learned_range",
    "small",
    "large",
]


@dataclass(frozen=True)
class DDPM(Clipping):
    """One evaluation a step, drift order 1, weak order 1.

    variance: fixed_small, the posterior's, or fixed_large, beta. The _log forms say how diffusers computes
    them, exp of a logarithm, and are the same numbers (its fixed_large_log takes the root of the logarithm
    and gives NaN). "small" and "large" are short names. The learned ones need a network that predicts a
    variance beside the image, and what a solver sees is the image alone: they are refused.
    """

    family: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    weak_order: ClassVar[int | None] = 1
    stochastic: ClassVar[bool] = True
    zero_snr: ClassVar[bool] = True
    variance: Variance = "fixed_small"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance.startswith("learned"):
            raise ValueError(
                f"DDPM: variance={self.variance} needs a denoiser that predicts a variance, and denoisers "
                "here predict the image alone: use fixed_small or fixed_large"
            )

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        gap = sigma**2 - sigma_next**2
        small, large = sigma_next**2 / sigma**2, (1 + sigma_next**2) / (1 + sigma**2)
        std = (gap * (small if "small" in self.variance else large)).sqrt()
        image = self.clipped(denoised)
        x = image + expand(small, x) * (x - image)
        return StepResult(x + expand(std, x) * noise.normal())
