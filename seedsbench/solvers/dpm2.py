"""DPM2 (k-diffusion): churn as in EDM's Algorithm 2, then DPM-Solver-2 with its node halfway in log sigma.

Lu et al. 2022, Algorithm 1, in unscaled coordinates; Karras et al. 2022, Algorithm 2, for the churn.
Order 2, two evaluations a step.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from seedsbench.checks import NotNegative
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.karras_sde import KarrasSDE, UpperLevel
from seedsbench.solvers.parts.added_noise import NoiseFactor
from seedsbench.solvers.parts.dpm_rules import dpm2
from seedsbench.solvers.parts.unscaled import Unscaled


@dataclass(frozen=True)
class DPM2(Unscaled):
    """Deterministic unless S_churn > 0; then one normal is drawn a step, the final one included.

    S_churn, S_min, S_max, S_noise: as in KarrasSDE. Churn approximates no fixed SDE: no weak order.
    """

    family: ClassVar[str] = "k_diffusion"
    order: ClassVar[int] = 2
    S_churn: NotNegative = 0.0
    S_min: NotNegative = 0.0
    S_max: UpperLevel = math.inf
    S_noise: NoiseFactor = 1.0

    @property
    def churn(self) -> KarrasSDE:
        """The solver that raises the noise level."""
        return KarrasSDE(self.S_churn, self.S_min, self.S_max, self.S_noise)

    @property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.S_churn > 0

    @property
    def noise_free(self) -> "DPM2":
        return replace(self, S_churn=0.0)

    def nfe(self, n_steps: int) -> int:
        return 2 * n_steps

    def init(self, process: Process, x: Tensor, times: Tensor) -> float:
        return self.churn.init(process, x, times)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        x, t = self.finish(process, x, t, state, noise)
        return super().step(process, x, t, t_next, state, noise)

    def finish(
        self, process: Process, x: Tensor, t: Tensor, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        return self.churn.finish(process, x, t, state, noise) if self.stochastic else (x, t)

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        return StepResult(dpm2(process.predict, x, sigma, sigma_next)[0], state)
