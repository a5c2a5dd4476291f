"""DDIM (Song, Meng and Ermon 2021, eq. 12) and DDPM (Ho, Jain and Abbeel 2020, Algorithm 2).

Both step between any two noise levels, with one evaluation. In unscaled coordinates, x = data + sigma noise,
their rules are free of alphas. DDIM: with v^2 = eta^2 sigma_t^2 (sigma_s^2 - sigma_t^2) / sigma_s^2,
x_t = D + sqrt(sigma_t^2 - v^2) eps + v z. DDPM: the posterior q(x_t | x_s, data = D) has mean
D + (sigma_t/sigma_s)^2 (x - D) and variance sigma_t^2 (sigma_s^2 - sigma_t^2) / sigma_s^2 ("small"); "large"
is beta of the variance-preserving process, (sigma_s^2 - sigma_t^2)(1 + sigma_t^2)/(1 + sigma_s^2).
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.checks import Positive, Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import OneStage, StepResult
from seedsbench.solvers.parts.table_steps import TableSteps


def dynamic_threshold(image: Tensor, ratio: float, max_value: float) -> Tensor:
    """Each sample clamped to its `ratio` quantile of |pixel|, kept in [1, max_value], and divided by it.

    Saharia et al. 2022, section 2.3.
    """
    # Sample by sample: torch.quantile refuses large batches, and no sample may depend on its neighbours.
    bounds = torch.stack([torch.quantile(sample.abs().flatten(), ratio) for sample in image])
    bound = expand(bounds.clamp(1, max_value), image)
    return torch.minimum(torch.maximum(image, -bound), bound) / bound


@dataclass(frozen=True)
class Clipping(OneStage):
    """A one-stage solver that steps with `self.clipped(denoised)` and ends on it.

    clip_sample clips to +-clip_sample_range; thresholding is dynamic, with dynamic_thresholding_ratio the
    quantile and sample_max_value the largest bound (at 1 it is plain clipping to +-1).
    """

    clip_sample: bool = False
    clip_sample_range: Positive = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: Share = 0.995
    sample_max_value: Annotated[float, Range(1)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_sample and self.thresholding:
            raise ValueError(
                "clip_sample and thresholding are both true and only one can act: switch one of them off"
            )

    def clipped(self, denoised: Tensor) -> Tensor:
        """The denoised image, (B, C, H, W), brought into range as the options say."""
        if self.thresholding:
            return dynamic_threshold(denoised, self.dynamic_thresholding_ratio, self.sample_max_value)
        if self.clip_sample:
            return denoised.clamp(-self.clip_sample_range, self.clip_sample_range)
        return denoised

    def final_sample(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Any, noise: Noise
    ) -> Tensor:
        return self.clipped(denoised)


@dataclass(frozen=True)
class DDIM(TableSteps, Clipping):
    """eta = 0 is the deterministic sampler, eta = 1 has the variance of DDPM's posterior; order 1.

    use_clipped_model_output: the noise estimate is that of the clipped image, not the network's.
    set_alpha_to_one, previous_timestep: see TableSteps.
    """

    family: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    zero_snr: ClassVar[bool] = True
    eta: Share = 0.0
    use_clipped_model_output: bool = False

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def weak_order(self) -> int | None:
        # The injected variance has the right rate only at eta = 1; in between the step itself still
        # keeps the marginals of the forward process, so first order holds for every eta.
        return 1 if self.eta > 0 else None

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        std = self.eta * sigma_next * (sigma**2 - sigma_next**2).sqrt() / sigma
        # sigma_t^2 - v^2, written so that nothing cancels where eta = 1 leaves next to nothing of eps.
        kept = (1 - self.eta**2) * sigma_next**2 + (self.eta * sigma_next**2 / sigma) ** 2
        image = self.clipped(denoised)
        origin = image if self.use_clipped_model_output else denoised
        x = image + expand(kept.sqrt() / sigma, x) * (x - origin)
        return StepResult(x + expand(std, x) * noise.normal() if self.stochastic else x, state)


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
