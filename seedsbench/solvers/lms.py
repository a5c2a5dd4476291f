"""Linear multistep (Adams-Bashforth) in sigma, as in k-diffusion's LMS: one evaluation a step.

dx/dsigma = (x - D)/sigma; the polynomial through the last slopes is integrated exactly over the step,
whatever the spacing (Hairer, Norsett and Wanner 1993, section III.5). The first steps use the slopes
there are: Euler, then two, and so on. Their error is O(h^2) but small, being made at high noise where
the slope hardly changes: it shows beyond some hundred steps. k-diffusion goes on with the same rule
from the last level to 0; here that way is the loop's `final`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from seedsbench.checks import Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import add_weighted, expand
from seedsbench.solvers.base import OneStage, StepResult

GAUSS = torch.tensor([0.5 - 3**-0.5 / 2, 0.5 + 3**-0.5 / 2], dtype=torch.float64)  # exact to degree 3


def weights(nodes: list[Tensor], end: Tensor) -> Tensor:
    """Integrals from nodes[0] to `end` of the Lagrange polynomials of at most four nodes."""
    v = (torch.stack(nodes) - nodes[0]) / (end - nodes[0])
    total = []
    for j in range(len(v)):
        others = torch.cat([v[:j], v[j + 1 :]])
        total.append(((GAUSS[:, None] - others) / (v[j] - others)).prod(1).mean())
    return (end - nodes[0]) * torch.stack(total)


@dataclass(frozen=True)
class LMS(OneStage):
    """Deterministic. order: 1 to 4, which is the number of slopes."""

    family: ClassVar[str] = "multistep"
    order: Annotated[int, Range(1, 4)] = 4  # pyright: ignore[reportIncompatibleVariableOverride]

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        slope = (x - denoised) / expand(sigma, x)
        history = ((sigma, slope), *(state or ()))[: self.order]  # newest first
        levels, slopes = zip(*history, strict=True)
        return StepResult(add_weighted(x, weights(list(levels), sigma_next), slopes), history)
