"""Steps along a table of timesteps as diffusers takes them: from t to t - T // n, wherever the grid goes.

n is the number of levels. Where the grid is not spaced by T // n (linspace, most trailing ones) the next
evaluation takes the state for one of the grid's level, though it is not: a defect of that library, by which
published samples were made.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.diffusion.schedule import Discrete, Schedule
from seedsbench.solvers.base import OneStage, StepResult


class TableState(NamedTuple):
    """stride: T // n for previous_timestep=diffusers, else None. eps: noise estimates, newest first."""

    stride: int | None
    eps: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class TableSteps(OneStage):
    """set_alpha_to_one: the last step goes to the data, by the loop's rule; else to the first level of a
        discrete schedule's table, by `update`, and the sample is the (scaled) state there. Neither where
        t - T // n is on the table: there it goes.
    previous_timestep: "grid" steps to the next level; "diffusers" to t - T // n.
    """

    set_alpha_to_one: bool = True
    previous_timestep: Literal["grid", "diffusers"] = "grid"

    def warms_up(self, state: TableState) -> bool:
        """Whether the step to be taken is to the grid's level in any case, for want of history."""
        return False

    def init(self, process: Process, x: Tensor, times: Tensor) -> TableState:
        schedule, levels, name = process.schedule, len(times), type(self).__name__
        if self.set_alpha_to_one and self.previous_timestep == "grid":
            return TableState(None)
        if not isinstance(schedule, Discrete):
            option = "previous_timestep=diffusers" if self.set_alpha_to_one else "set_alpha_to_one=false"
            raise ValueError(
                f"{name}: {option} needs a table of timesteps and schedule {type(schedule).__name__} has "
                "none: use schedule=discrete"
            )
        if self.previous_timestep == "grid":
            return TableState(None)
        if levels > schedule.num_train_timesteps:
            raise ValueError(
                f"{name}: previous_timestep=diffusers with {levels} levels on {schedule.num_train_timesteps} "
                "timesteps would never move: use fewer levels or previous_timestep=grid"
            )
        return TableState(schedule.num_train_timesteps // levels)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: TableState, noise: Noise
    ) -> StepResult:
        if state.stride is not None and not self.warms_up(state):
            t_next = t - state.stride
        return super().step(process, x, t, t_next, state, noise)

    def final_sample(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: TableState, noise: Noise
    ) -> Tensor:
        schedule, sigma = process.schedule, process.schedule.sigma(t)
        target = self._last_level(schedule, t, state.stride)
        if target is None:
            return super().final_sample(process, x, t, denoised, state, noise)
        x = x / expand(schedule.scale_at(sigma), x)
        x = self.update(x, denoised, sigma, target, state, noise).x
        return x * expand(schedule.scale_at(target), x)

    def _last_level(self, schedule: Schedule, t: Tensor, stride: int | None) -> Tensor | None:
        """The level that the step from the run's last time t goes to; None: to the data."""
        # Timesteps are integers up to the rounding of sigma_inv, so "before the table" is below -1/2.
        if stride is not None and float(t) - stride > -0.5:
            target = schedule.sigma(t - stride)
        elif self.set_alpha_to_one:
            return None
        else:
            target = schedule.sigma(torch.zeros_like(t))
        # A level below the table's first one stays where it is.
        return torch.minimum(target, schedule.sigma(t))
