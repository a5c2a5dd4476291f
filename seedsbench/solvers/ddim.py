"""DDIM (Song, Meng and Ermon 2021, eq. 12): one evaluation a step, eta between ODE and ancestral.

In unscaled coordinates x = data + sigma noise the rule is free of alphas: with v^2 = eta^2
sigma_t^2 (sigma_s^2 - sigma_t^2) / sigma_s^2,  x_t = D + sqrt(sigma_t^2 - v^2) eps + v z.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from seedsbench.checks import Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.parts.clipping import Clipping
from seedsbench.solvers.parts.table_steps import PreviousTimestep, landing, stride


@dataclass(frozen=True)
class DDIM(Clipping):
    """eta = 0 is the deterministic sampler, eta = 1 has the variance of DDPM's posterior; order 1.

    use_clipped_model_output: the noise estimate is that of the clipped image, not the network's.
    set_alpha_to_one: the last step goes to the data; else to the first level of a discrete schedule's
        table, noise included, and the sample is the (scaled) state there.
    previous_timestep: "grid" steps to the next level; "diffusers" to t - T // n (solvers/table_steps.py).
    State: T // n for "diffusers", else None.
    """

    family: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    zero_snr: ClassVar[bool] = True
    eta: Share = 0.0
    use_clipped_model_output: bool = False
    set_alpha_to_one: bool = True
    previous_timestep: PreviousTimestep = "grid"

    @property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.eta > 0

    @property
    def weak_order(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # The injected variance has the right rate only at eta = 1; in between the step itself still
        # keeps the marginals of the forward process, so first order holds for every eta.
        return 1 if self.eta > 0 else None

    def init(self, process: Process, x: Tensor, times: Tensor) -> int | None:
        return stride("DDIM", process.schedule, len(times), self.previous_timestep, self.set_alpha_to_one)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: int | None, noise: Noise
    ) -> StepResult:
        return super().step(process, x, t, t_next if state is None else t - state, state, noise)

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

    def final_sample(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Any, noise: Noise
    ) -> Tensor:
        schedule, sigma = process.schedule, process.schedule.sigma(t)
        target = landing(schedule, t, state, self.set_alpha_to_one)
        if target is None:
            return self.clipped(denoised)
        x = x / expand(schedule.scale_at(sigma), x)
        x = self.update(x, denoised, sigma, target, state, noise).x
        return x * expand(schedule.scale_at(target), x)
