"""Restart sampling (Xu et al. 2023, Algorithm 1): EDM's Heun, which goes back up some intervals of noise.

When the main run comes to the level nearest t_min of an interval (t_min, t_max, n_levels, k), noise takes
it back to t_max and n_levels - 1 Heun steps down again, k times over. The noise contracts the errors made
so far, as that of an SDE does, and the steps between remain those of an ODE. Order 2 (without restarts);
2 evaluations a step and 2 k (n_levels - 1) an interval.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from seedsbench.checks import Level, Range
from seedsbench.diffusion.grid import EDM
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.runge_kutta import Heun, rk_step

Interval = tuple[Level, Level, Annotated[int, Range(2, 1000)], Annotated[int, Range(0, 1000)]]
"""t_min, t_max, n_levels (the ends included), k: the paper's N_Restart and K."""
_Restarts = tuple[tuple[Tensor, ...], ...]  # of each step to come: the times of each restart after it


@dataclass(frozen=True)
class Restart(Heun):
    """intervals: in noise levels sigma, in any order; those that share a level follow one another as listed.

    The default is the paper's cheapest for CIFAR-10 (Table 3), 43 evaluations with 17 steps and the final
    one. The levels of an interval are EDM's (rho = 7), as in the paper, whatever the grid of the main run.
    S_noise: factor on the noise added; the authors' commands say 1.003.
    It approximates no fixed SDE, so it declares no weak order.
    """

    without_noise: ClassVar[dict[str, Any]] = {"intervals": ()}
    intervals: tuple[Interval, ...] = ((0.06, 0.3, 3, 2),)
    S_noise: Annotated[float, Range(0, 10, open_low=True)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for interval in self.intervals:
            if not interval[0] < interval[1]:
                raise ValueError(f"Restart: interval {interval!r} must have noise levels t_min < t_max")
        object.__setattr__(self, "intervals", tuple(map(tuple, self.intervals)))

    @property
    def stochastic(self) -> bool:
        return any(k > 0 for *_, k in self.intervals)

    def nfe(self, n_steps: int) -> int:
        return super().nfe(n_steps + sum(k * (n_levels - 1) for _, _, n_levels, k in self.intervals))

    def init(self, process: Process, x: Tensor, times: Tensor) -> _Restarts:
        plan: list[tuple[Tensor, ...]] = [() for _ in times[1:]]
        for interval in self.intervals:
            place, restart = _placed(interval, process, times)
            plan[place] += (restart,) * interval[3]
        return tuple(plan)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: _Restarts, noise: Noise
    ) -> StepResult:
        x = rk_step(process, self.tableau, x, t, t_next)
        for times in state[0]:
            x = self._raised(process.schedule, x, t_next, times[0], noise)
            for start, end in itertools.pairwise(times):
                x = rk_step(process, self.tableau, x, start, end)
        return StepResult(x, state[1:])

    def _raised(self, schedule: Schedule, x: Tensor, t: Tensor, t_up: Tensor, noise: Noise) -> Tensor:
        """x at t, taken up to the noise level of t_up: the forward process."""
        sigma, sigma_up = schedule.sigma(t), schedule.sigma(t_up)
        scale, scale_up = schedule.scale_at(sigma), schedule.scale_at(sigma_up)
        std = self.S_noise * (sigma_up**2 - sigma**2).clamp(min=0).sqrt()
        return expand(scale_up / scale, x) * x + expand(scale_up * std, x) * noise.normal()


def _placed(interval: Interval, process: Process, times: Tensor) -> tuple[int, Tensor]:
    """After which step an interval's restarts come, and their (n_levels,) times from t_max down."""
    t_min, t_max, n_levels, _ = interval
    levels = process.schedule.sigma(times)
    if t_max > float(levels[0]) or t_max <= float(levels[-1]):
        raise ValueError(
            f"Restart: interval {interval} must have t_max in the run's range of noise levels, "
            f"({float(levels[-1]):g}, {float(levels[0]):g}]"
        )
    # Nearest, as in the authors' code, but below t_max however coarse the grid.
    distances = (levels[1:] - t_min).abs().masked_fill(levels[1:] >= t_max, math.inf)
    place = int(distances.argmin())
    end = levels[place + 1]
    inner = process.round_sigma(EDM().levels(n_levels, float(end), t_max, process.schedule)[:-1])
    return place, torch.cat([process.schedule.sigma_inv(inner.clamp(min=end)), times[place + 1 :][:1]])
