"""EDM's stochastic sampler (Karras et al. 2022, Algorithm 2): churn, then a Runge-Kutta step.

Order 2 without churn (parts/churn.py), two evaluations a step. `KarrasVE` has the defaults of diffusers'
KarrasVeScheduler for variance-exploding models; with grid=ve the levels are the VE column of Table 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Node, NotNegative
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.parts.added_noise import NoiseFactor
from seedsbench.solvers.parts.churn import Churn, UpperLevel
from seedsbench.solvers.runge_kutta import EULER, rk_step, second_order


@dataclass(frozen=True)
class KarrasSDE(Churn):
    """rk_order 2 is Algorithm 2, 1 its Euler form; it is also the order and the evaluations of a step.

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
    """compat: "paper" is Algorithm 2 on the levels of the grid; "diffusers" reproduces a slip there.

    Its levels are sigma^2 where the paper has sigma (from sigma_max^2 down; S_min and S_max are compared with
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
