"""Karras et al. 2022, Algorithm 2, for variance-exploding models, as diffusers' KarrasVeScheduler has it.

`compat: paper` is Algorithm 2 on the levels of the grid; with grid=ve these are the VE column of Table 1,
sigma_i^2 = sigma_max^2 (sigma_min^2/sigma_max^2)^(i/(N-1)).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from seedsbench.checks import NotNegative
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.karras_sde import KarrasSDE, UpperLevel
from seedsbench.solvers.parts.added_noise import NoiseFactor
from seedsbench.solvers.runge_kutta import rk_step


class Begun(NamedTuple):
    """gamma of Algorithm 2, and the level by whose root the first state is still to be divided."""

    gamma: float
    first: Tensor | None


@dataclass(frozen=True)
class KarrasVE(KarrasSDE):
    """Drift order 2, two evaluations a step; defaults of S_* are those of diffusers.

    compat: "diffusers" reproduces a slip there: its levels are sigma^2 where the paper has sigma (from
    sigma_max^2 down; S_min and S_max are compared with them too), but the state starts at sigma_max z.
    Give these levels as explicit sigmas; the solver divides the loop's starting state, scaled by the
    first level, by its square root in the first step. schedule=linear is the time diffusers steps in.
    """

    S_churn: NotNegative = 80.0
    S_min: NotNegative = 0.05
    S_max: UpperLevel = 50.0
    S_noise: NoiseFactor = 1.007
    compat: Literal["paper", "diffusers"] = "paper"

    def init(self, process: Process, x: Tensor, times: Tensor) -> Begun:
        first = process.schedule.sigma(times[0]) if self.compat == "diffusers" else None
        return Begun(super().init(process, x, times), first)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Begun, noise: Noise
    ) -> StepResult:
        if state.first is not None:
            x = x / expand(state.first.sqrt(), x)
        x, t = self.finish(process, x, t, state, noise)
        return StepResult(rk_step(process, self.tableau, x, t, t_next), Begun(state.gamma, None))

    def finish(
        self, process: Process, x: Tensor, t: Tensor, state: Begun, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        return super().finish(process, x, t, state.gamma, noise)
