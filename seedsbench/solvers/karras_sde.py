"""EDM's stochastic sampler (Karras et al. 2022, Algorithm 2): churn, then a Runge-Kutta step.

Churn is fresh noise that raises the level of x before each step, from sigma to (1 + gamma) sigma, with gamma
= min(S_churn / N, sqrt(2) - 1) while sigma is in [S_min, S_max] and 0 otherwise. N is the number of noise
levels (EDM's num_steps). Here it is defined for every schedule, as in EDM's ablations.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Node, NotNegative, Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.ancestral import NoiseFactor
from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.runge_kutta import EULER, rk_step, second_order

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


@dataclass(frozen=True)
class KarrasSDE(Churn):
    """rk_order 2 is Algorithm 2, 1 its Euler form; it is also the order, without churn, and the evaluations.

    S_*: defaults are those of the paper's ImageNet-64 column (Table 5). alpha as in Heun.
    """

    family: ClassVar[str] = "edm"
    S_churn: NotNegative = 40.0
    S_min: NotNegative = 0.05
    S_max: UpperLevel = 50.0
    S_noise: NoiseFactor = 1.003
    rk_order: Literal[1, 2] = 2
    alpha: Node = 1.0

    @property
    def order(self) -> int:
        return self.rk_order

    def nfe(self, n_steps: int) -> int:
        return self.rk_order * n_steps

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Tensor, noise: Noise
    ) -> StepResult:
        x, t = self.churn(process, x, t, state, noise)
        tableau = EULER if self.rk_order == 1 else second_order(self.alpha)
        return StepResult(rk_step(process, tableau, x, t, t_next), state)


@dataclass(frozen=True)
class KarrasVE(KarrasSDE):
    """The defaults of diffusers' KarrasVeScheduler; with grid=ve its levels are the VE column of Table 1.

    compat: "paper" is Algorithm 2 on the levels of the grid; "diffusers" reproduces a slip there. Its
    levels are sigma^2 where the paper has sigma (from sigma_max^2 down; S_min and S_max are compared with
    them too), but the state starts at sigma_max z. Give these levels as explicit sigmas; the solver divides
    the loop's starting state, scaled by the first level, by its square root in the first step.
    schedule=linear is the time diffusers steps in.
    """

    S_churn: NotNegative = 80.0
    S_noise: NoiseFactor = 1.007
    compat: Literal["paper", "diffusers"] = "paper"

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Tensor, noise: Noise
    ) -> StepResult:
        if self.compat == "diffusers" and t == state[0]:
            x = x / expand(process.schedule.sigma(t).sqrt(), x)
        return super().step(process, x, t, t_next, state, noise)
