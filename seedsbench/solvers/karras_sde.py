"""EDM's stochastic sampler (Karras et al. 2022, Algorithm 2): churn, then a Runge-Kutta step.

Before a step the noise level is raised from sigma to sigma_hat = (1 + gamma) sigma by fresh noise,
gamma = min(S_churn / N, sqrt(2) - 1) while sigma is in [S_min, S_max] and 0 otherwise. It is defined
for every schedule, as in EDM's ablations. N is the number of noise levels (EDM's num_steps).
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Node, NotNegative, Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.parts.added_noise import NoiseFactor
from seedsbench.solvers.parts.tableau import ButcherTableau
from seedsbench.solvers.runge_kutta import EULER, rk_step, second_order

UpperLevel = Annotated[float, Range(0, infinite=True)]
MAX_GAMMA = math.sqrt(2) - 1


@dataclass(frozen=True)
class KarrasSDE(Solver):
    """Algorithm 2: `rk_order` evaluations a step; one normal drawn a step, the final one included.

    S_churn, S_min, S_max, S_noise: the paper's; defaults in the YAML are those of its ImageNet-64
    column (Table 5). rk_order 2 is Algorithm 2, 1 its Euler form; alpha as in Heun.
    It approximates no fixed SDE, so it declares no weak order; its drift order is that of the
    Runge-Kutta step, without churn.
    """

    family: ClassVar[str] = "edm"
    S_churn: NotNegative = 40.0
    S_min: NotNegative = 0.05
    S_max: UpperLevel = 50.0
    S_noise: NoiseFactor = 1.003
    rk_order: Literal[1, 2] = 2
    alpha: Node = 1.0

    @property
    def order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.rk_order

    @property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.S_churn > 0

    @property
    def noise_free(self) -> "KarrasSDE":
        return replace(self, S_churn=0.0)

    @property
    def tableau(self) -> ButcherTableau:
        """The Runge-Kutta rule of a step."""
        return EULER if self.rk_order == 1 else second_order(self.alpha)

    def nfe(self, n_steps: int) -> int:
        return self.rk_order * n_steps

    def init(self, process: Process, x: Tensor, times: Tensor) -> float:
        return min(self.S_churn / len(times), MAX_GAMMA)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: float, noise: Noise
    ) -> StepResult:
        x, t = self.finish(process, x, t, state, noise)
        return StepResult(rk_step(process, self.tableau, x, t, t_next), state)

    def finish(
        self, process: Process, x: Tensor, t: Tensor, state: float, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Raise the noise level of x from sigma(t) to sigma_hat. Draws also where gamma is 0, so that
        draw i belongs to step i, as in Algorithm 2."""
        schedule, z = process.schedule, noise.normal()
        sigma = schedule.sigma(t)
        if not self.S_min <= float(sigma) <= self.S_max or state == 0:
            return x, t
        sigma_hat = process.round_sigma(sigma * (1 + state))
        t_hat = schedule.sigma_inv(sigma_hat)
        scale, scale_hat = schedule.scale_at(sigma), schedule.scale_at(sigma_hat)
        added = (sigma_hat**2 - sigma**2).clamp(min=0).sqrt()
        return x * expand(scale_hat / scale, x) + expand(added * scale_hat * self.S_noise, x) * z, t_hat
