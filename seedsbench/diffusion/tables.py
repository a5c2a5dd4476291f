"""Grids that are tables: published ones, stretched to any number of steps, and those that a search found."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from seedsbench.checks import Level, Range
from seedsbench.diffusion.grid import Grid, check_decreasing
from seedsbench.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Interpolated(Grid):
    """A published table of levels, for other numbers of steps interpolated in log sigma over its index.

    sigmas: (m,) decreasing, as printed: its last level is where the run ends. Of n levels here the first n of
    n + 1 interpolated are taken, and the final step goes from the last of them to the data, as the table's
    authors do by replacing its end with 0. The range is the table's own, clipped to the denoiser's.
    """

    sigmas: tuple[Level, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(map(float, self.sigmas)))
        check_decreasing(self.sigmas)
        super().__post_init__()

    def range(self, low: float, high: float) -> tuple[float, float]:
        return max(low, self.sigmas[-1]), min(high, self.sigmas[0])

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        places = np.linspace(0, len(self.sigmas) - 1, n + 1)[:-1]
        logs = np.interp(places, np.arange(len(self.sigmas)), np.log(self.sigmas))
        return torch.from_numpy(logs).exp().clamp(low, high)


@dataclass(frozen=True)
class Searched(Grid):
    """Levels that `seedsbench-schedule` found, a list for each number of steps that they were searched for.

    path: the YAML file with all that follows, in place of which it is read; a row keeps what it says, which
    identifies the row. grids: decreasing levels, (n + 1) for n steps. method, solver, model: how, for which
    solver and on which network they were found. evaluations: of the network, that the search cost in all.
    """

    path: str | None = None
    grids: tuple[tuple[Level, ...], ...] = ()
    method: str = ""
    solver: str = ""
    model: str = ""
    evaluations: Annotated[int, Range(0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        grids = tuple(tuple(map(float, levels)) for levels in self.grids)
        object.__setattr__(self, "grids", grids)
        if not grids:
            raise ValueError("Searched: no grids: give grid.path=<file that seedsbench-schedule wrote>")
        for levels in grids:
            check_decreasing(levels)

    def range(self, low: float, high: float) -> tuple[float, float]:
        return min(levels[-1] for levels in self.grids), max(levels[0] for levels in self.grids)

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        for levels in self.grids:
            if len(levels) == n:
                return torch.tensor(levels, dtype=torch.float64)
        known = ", ".join(str(count) for count in sorted(len(levels) - 1 for levels in self.grids))
        raise ValueError(
            f"the searched grid has levels for {known} steps and none for {n - 1}: search for more budgets "
            "with seedsbench-schedule"
        )
