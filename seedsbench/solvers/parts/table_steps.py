"""Steps along a table of timesteps as diffusers takes them: from t to t - T // n, wherever the grid goes.

n is the number of levels. Where the grid is not spaced by T // n (linspace, most trailing ones) the next
evaluation takes the state for one of the grid's level, though it is not: a defect of that library, by which
published samples were made.
"""

from typing import Literal

import torch
from torch import Tensor

from seedsbench.diffusion.schedule import Discrete, Schedule

PreviousTimestep = Literal["grid", "diffusers"]


def stride(
    solver: str, schedule: Schedule, levels: int, previous: PreviousTimestep, set_alpha_to_one: bool
) -> int | None:
    """T // n of `diffusers`, None for `grid`; ValueError where the schedule has not what the options need."""
    if set_alpha_to_one and previous == "grid":
        return None
    if not isinstance(schedule, Discrete):
        option = "previous_timestep=diffusers" if set_alpha_to_one else "set_alpha_to_one=false"
        raise ValueError(
            f"{solver}: {option} needs a table of timesteps and schedule {type(schedule).__name__} has none: "
            "use schedule=discrete"
        )
    if previous == "grid":
        return None
    if levels > schedule.num_train_timesteps:
        raise ValueError(
            f"{solver}: previous_timestep=diffusers with {levels} levels on {schedule.num_train_timesteps} "
            "timesteps would never move: use fewer levels or previous_timestep=grid"
        )
    return schedule.num_train_timesteps // levels


def landing(schedule: Schedule, t: Tensor, by: int | None, set_alpha_to_one: bool) -> Tensor | None:
    """The level that the step from the run's last time t goes to; None: to the data.

    A stride before t, where there is one and that is on the table; else, if not set_alpha_to_one, the
    table's first level.
    """
    # Timesteps are integers up to the rounding of sigma_inv, so "before the table" is below -1/2.
    if by is not None and float(t) - by > -0.5:
        target = schedule.sigma(t - by)
    elif set_alpha_to_one:
        return None
    else:
        target = schedule.sigma(torch.zeros_like(t))
    return torch.minimum(target, schedule.sigma(t))  # a level below the table's first one stays where it is
