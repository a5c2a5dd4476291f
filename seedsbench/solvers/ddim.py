"""DDIM (Song, Meng and Ermon 2021, eq. 12): one evaluation a step, eta between ODE and ancestral.

In unscaled coordinates x = data + sigma noise the rule is free of alphas: with v^2 = eta^2
sigma_t^2 (sigma_s^2 - sigma_t^2) / sigma_s^2,  x_t = D + sqrt(sigma_t^2 - v^2) eps + v z.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seedsbench.checks import check_range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.unscaled import OneStage


@dataclass(frozen=True)
class DDIM(OneStage):
    """eta = 0 is the deterministic sampler, eta = 1 has the variance of DDPM's posterior; order 1."""

    family: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "eta", 0, 1)

    @property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.eta > 0

    @property
    def weak_order(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # The injected variance has the right rate only at eta = 1; in between the step itself still
        # keeps the marginals of the forward process, so first order holds for every eta.
        return 1 if self.eta > 0 else None

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        std = self.eta * sigma_next * (sigma**2 - sigma_next**2).sqrt() / sigma
        keep = (sigma_next**2 - std**2).clamp(min=0).sqrt() / sigma
        x = denoised + expand(keep, x) * (x - denoised)
        return StepResult(x + expand(std, x) * noise.normal() if self.stochastic else x)
