"""DDIM (Song, Meng and Ermon 2021, eq. 12): one evaluation a step, eta between ODE and ancestral.

In unscaled coordinates x = data + sigma noise the rule is free of alphas: with v^2 = eta^2
sigma_t^2 (sigma_s^2 - sigma_t^2) / sigma_s^2,  x_t = D + sqrt(sigma_t^2 - v^2) eps + v z.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from seedsbench.checks import Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.parts.clipping import Clipping
from seedsbench.solvers.parts.table_steps import TableSteps


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
