"""Keeping the denoised image in the range of the data: clipping and dynamic thresholding.

Dynamic thresholding (Saharia et al. 2022, section 2.3): a sample's image is clamped to its own
quantile of |pixel| and divided by it, where that quantile exceeds 1.
"""

from abc import ABC
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from seedsbench.checks import Positive, Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import OneStage


def dynamic_threshold(image: Tensor, ratio: float, max_value: float) -> Tensor:
    """Each sample clamped to its `ratio` quantile of |pixel|, kept in [1, max_value], and divided by it."""
    # Sample by sample: torch.quantile refuses large batches, and no sample may depend on its neighbours.
    bounds = torch.stack([torch.quantile(sample.abs().flatten(), ratio) for sample in image])
    bound = expand(bounds.clamp(1, max_value), image)
    return torch.minimum(torch.maximum(image, -bound), bound) / bound


@dataclass(frozen=True)
class Clipping(OneStage, ABC):
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
