"""DPM2 (k-diffusion): churn as in EDM's Algorithm 2, then DPM-Solver-2 with its node halfway in log sigma.

Lu et al. 2022, Algorithm 1, in unscaled coordinates; Karras et al. 2022, Algorithm 2, for the churn.
Order 2, two evaluations a step.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process
from seedsbench.solvers.base import StepResult, Unscaled
from seedsbench.solvers.dpm_solver import dpm2
from seedsbench.solvers.karras_sde import Churn


@dataclass(frozen=True)
class DPM2(Churn, Unscaled):
    """Deterministic unless S_churn > 0 (see Churn)."""

    family: ClassVar[str] = "k_diffusion"
    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Tensor, noise: Noise
    ) -> StepResult:
        x, t = self.churn(process, x, t, state, noise)
        return super().step(process, x, t, t_next, state, noise)

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        return StepResult(dpm2(process.predict, x, sigma, sigma_next)[0], state)
