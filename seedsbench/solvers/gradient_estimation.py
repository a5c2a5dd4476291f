"""Gradient estimation (Permenter and Yuan 2024, Algorithm 2): Euler's step along an extrapolated estimate.

The noise estimate eps = (x - D)/sigma is replaced by gamma eps + (1 - gamma) eps_previous, an estimate of the
direction to the data with less error; the paper finds gamma = 2 best at few steps. One evaluation a step; its
first is Euler's. Order 1: on equal steps in sigma gamma = 3/2 is the Adams-Bashforth method of order 2.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from seedsbench.checks import Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import OneStage, StepResult


@dataclass(frozen=True)
class GradientEstimation(OneStage):
    """gamma: weight of the newest estimate; 1 is Euler's method."""

    family: ClassVar[str] = "multistep"
    order: ClassVar[int] = 1
    gamma: Annotated[float, Range(1, 5)] = 2.0

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        eps = (x - denoised) / expand(sigma, x)
        mean = eps if state is None else eps + (self.gamma - 1) * (eps - state)
        return StepResult(x + expand(sigma_next - sigma, x) * mean, eps)
