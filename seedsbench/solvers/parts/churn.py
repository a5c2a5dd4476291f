"""Churn (Karras et al. 2022, Algorithm 2): fresh noise raises the level of x before each step.

It goes from sigma to (1 + gamma) sigma, with gamma = min(S_churn / N, sqrt(2) - 1) while sigma is in
[S_min, S_max] and 0 otherwise. N is the number of noise levels (EDM's num_steps). Here it is defined for
every schedule, as in EDM's ablations.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from seedsbench.checks import NotNegative, Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import Solver
from seedsbench.solvers.parts.added_noise import NoiseFactor

UpperLevel = Annotated[float, Range(0, infinite=True)]
MAX_GAMMA = math.sqrt(2) - 1


@dataclass(frozen=True)
class Churn(Solver):
    """S_churn, S_min, S_max, S_noise: the paper's. A subclass's `step` begins with `self.churn(...)`.

    One normal is drawn a step, the final one included. Churn approximates no fixed SDE: no weak order.
    State: the times of the run.
    """

    without_noise: ClassVar[dict[str, Any]] = {"S_churn": 0.0}
    S_churn: NotNegative = 0.0
    S_min: NotNegative = 0.0
    S_max: UpperLevel = math.inf
    S_noise: NoiseFactor = 1.0

    @property
    def stochastic(self) -> bool:
        return self.S_churn > 0

    def init(self, process: Process, x: Tensor, times: Tensor) -> Tensor:
        return times

    def churn(
        self, process: Process, x: Tensor, t: Tensor, times: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """x and t with the noise level raised from sigma(t)."""
        if not self.stochastic:
            return x, t
        # Drawn also where gamma is 0, so that draw i belongs to step i, as in Algorithm 2.
        schedule, z = process.schedule, noise.normal()
        sigma = schedule.sigma(t)
        if not self.S_min <= float(sigma) <= self.S_max:
            return x, t
        sigma_hat = process.round_sigma(sigma * (1 + min(self.S_churn / len(times), MAX_GAMMA)))
        scale, scale_hat = schedule.scale_at(sigma), schedule.scale_at(sigma_hat)
        added = (sigma_hat**2 - sigma**2).clamp(min=0).sqrt() * scale_hat * self.S_noise
        return x * expand(scale_hat / scale, x) + expand(added, x) * z, schedule.sigma_inv(sigma_hat)

    def before_final(
        self, process: Process, x: Tensor, t: Tensor, state: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        return self.churn(process, x, t, state, noise)
