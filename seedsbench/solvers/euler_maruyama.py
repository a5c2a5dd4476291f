"""Euler-Maruyama on the reverse-time SDE (Song et al. 2021, eq. 6), in the time of the schedule.

The diffusion coefficient depends on time alone, so its variance over a step is integrated exactly:
s^2 (sigma_s^2 - sigma_t^2), the increment of a Brownian path in the clock -sigma^2.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import Solver, StepResult


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """One evaluation a step, drift and weak order 1. With sigma(t) = t it is noise-prediction SEEDS-1."""

    family: ClassVar[str] = "score_sde"
    order: ClassVar[int] = 1
    weak_order: ClassVar[int | None] = 1
    stochastic: ClassVar[bool] = True

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        schedule = process.schedule
        x = x + expand(t_next - t, x) * process.drift(x, t, reverse_sde=True)
        change = noise.increment(-(schedule.sigma(t) ** 2), -(schedule.sigma(t_next) ** 2))
        return StepResult(x + expand(schedule.scale(t), x) * change)
