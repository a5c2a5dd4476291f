"""RX-Euler (Choi et al. 2025): Euler's method with Richardson extrapolation that costs no evaluation.

After every k steps, of lengths h_m in sigma with sum H, one Euler step of length H from the block's start is
known too: its slope is the first of the block. Euler's leading error is in proportion to the sum of squared
lengths, so with r = sum h_m^2 / H^2

    x = (x_k - r x_1) / (1 - r),     x_k after the k steps, x_1 after the long one,

is free of it on any grid. One evaluation a step. Steps at the end that fill no block are plain (the paper's
code calls it skip_last). Order 2.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from seedsbench.checks import Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import OneStage, StepResult


@dataclass(frozen=True)
class Block:
    """Where a block began, and the steps taken in it. squares: the sum of their squared lengths."""

    x: Tensor
    sigma: Tensor
    slope: Tensor
    squares: Tensor
    taken: int = 0


@dataclass(frozen=True)
class RXEuler(OneStage):
    """k: steps of a block."""

    family: ClassVar[str] = "multistep"
    order: ClassVar[int] = 2
    k: Annotated[int, Range(2, 100)] = 2

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        slope, h = (x - denoised) / expand(sigma, x), sigma_next - sigma
        block: Block = state or Block(x, sigma, slope, torch.zeros_like(sigma))
        block = replace(block, taken=block.taken + 1, squares=block.squares + h**2)
        fine = x + expand(h, x) * slope
        if block.taken < self.k:
            return StepResult(fine, block)
        whole = sigma_next - block.sigma
        coarse = block.x + expand(whole, x) * block.slope
        r = block.squares / whole**2
        return StepResult(fine + expand(r / (1 - r), x) * (fine - coarse))
