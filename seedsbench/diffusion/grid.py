"""Grids: at which noise levels a sampler stops. A rule and its range; the schedule is another choice.

Formulas of the four regimes: Karras et al. 2022, Table 1 ("time steps") with the default ranges of
its appendix. A grid of n steps has n + 1 decreasing levels, all positive; the way from the last one
to zero is the loop's `final` policy.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from seedsbench.checks import Level, Range, check_fields, filled
from seedsbench.diffusion.schedule import NOT_GIVEN, VP, Discrete, EarliestTime, Schedule

Exponent = Annotated[float, Range(0.5, 100)]


@dataclass(frozen=True)
class Grid(ABC):
    """sigma_min, sigma_max: range in data std units, before it is clipped to the denoiser's."""

    sigma_min: Level = 0.002
    sigma_max: Level = 80.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.sigma_min < self.sigma_max:
            raise ValueError(
                f"{type(self).__name__}: sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; "
                "need 0 < sigma_min < sigma_max"
            )

    @property
    def own_steps(self) -> int | None:
        """The number of steps of a grid that has levels of its own; None for a rule that makes any number."""
        return None

    def range(self, low: float, high: float) -> tuple[float, float]:
        """The grid's own range clipped to [low, high], what the denoiser is good for."""
        clipped = max(self.sigma_min, low), min(self.sigma_max, high)
        if not clipped[0] < clipped[1]:
            raise ValueError(
                f"the grid's range [{self.sigma_min:g}, {self.sigma_max:g}] does not meet the denoiser's "
                f"[{low:g}, {high:g}]: set grid.sigma_min and grid.sigma_max inside the latter"
            )
        return clipped

    def of_network(self, spacing: "DiscreteGrid | None") -> "Grid":
        """This grid for a network whose own scheduler spaces timesteps so (None: it has none)."""
        return self

    @abstractmethod
    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        """(n,) float64 noise levels from `high` down to `low`; n >= 2."""


def _ramp(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) / (n - 1)


@dataclass(frozen=True)
class EDM(Grid):
    """Uniform in sigma^(1/rho) (Karras et al. 2022, eq. 5)."""

    rho: Exponent = 7.0

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        first, last = high ** (1 / self.rho), low ** (1 / self.rho)
        return (first + _ramp(n) * (last - first)) ** self.rho


# Range of the VP process: sigma(epsilon_s) .. sigma(1) with beta_d 19.9, beta_min 0.1, as torch computes it.
_VP_LOW, _VP_HIGH = 0.010485992786702987, 152.1669702839464


@dataclass(frozen=True)
class VPGrid(Grid):
    """Uniform in t^(1/power), t the time of the VP process from 1 down to epsilon_s, fitted to the range.

    power 1 is uniform in time, 2 the quadratic spacing of DDIM and DPM-Solver.
    """

    sigma_min: Level = _VP_LOW
    sigma_max: Level = _VP_HIGH
    epsilon_s: EarliestTime = 1e-3
    power: Exponent = 1.0

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        fitted = VP(epsilon_s=self.epsilon_s).through(low, high)
        return fitted.sigma((1 + _ramp(n) * (self.epsilon_s ** (1 / self.power) - 1)) ** self.power)


@dataclass(frozen=True)
class VEGrid(Grid):
    """Geometric in sigma^2, which is the time of the VE process."""

    sigma_min: Level = 0.02
    sigma_max: Level = 100.0

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        return (high**2 * (low**2 / high**2) ** _ramp(n)).sqrt()


@dataclass(frozen=True)
class IDDPMGrid(Grid):
    """Evenly picked entries of the iDDPM table (Nichol and Dhariwal 2021, eq. 17; EDM Table 1)."""

    sigma_max: Level = 81.0
    C_1: Annotated[float, Range(0, 1, open_high=True)] = 0.001
    C_2: Annotated[float, Range(0, 1)] = 0.008
    M: Annotated[int, Range(2, 10**4)] = 1000

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        table = iddpm_table(self.C_1, self.C_2, self.M)
        table = table[(table >= low) & (table <= high)]
        if len(table) < 2:
            raise ValueError(
                f"the iDDPM table has {len(table)} levels in [{low:g}, {high:g}]: widen the range"
            )
        return table[(_ramp(n) * (len(table) - 1)).round().long()]


def iddpm_table(C_1: float, C_2: float, M: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(M + 1,) noise levels u_0 > ... > u_M = 0 of a network trained as iDDPM is.

    Backward recursion u_(j-1)^2 = (u_j^2 + 1) / max(a_(j-1)/a_j, C_1) - 1 with
    a_j = sin^2(pi/2 * j / (M (C_2 + 1))) (Karras et al. 2022, Table 1 and appendix C.3.4).
    """
    # alpha_bar in float32, as in the tables published networks were trained with (3e-7 relative apart
    # from the exact ones, 5e-4 at the lowest level): these, not better ones, are the levels they know.
    j = torch.arange(M + 1)
    alpha_bar = torch.sin(0.5 * math.pi * j / M / (C_2 + 1)) ** 2
    ratio = (alpha_bar[:-1] / alpha_bar[1:]).clamp(min=C_1).to(dtype)
    levels = [torch.zeros((), dtype=dtype)]
    for r in reversed(ratio.unbind()):
        levels.append(((levels[-1] ** 2 + 1) / r - 1).sqrt())
    return torch.stack(levels[::-1])


@dataclass(frozen=True)
class LogSNR(Grid):
    """log sigma falls as (1 - i/(n-1))^rho: uniform for rho = 1, denser at low noise for larger rho."""

    rho: Exponent = 1.0

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        return (math.log(low) + (1 - _ramp(n)) ** self.rho * math.log(high / low)).exp()


@dataclass(frozen=True)
class FlowUniform(Grid):
    """Uniform in the time t = sigma/(1 + sigma) of flow matching, from `start` towards 0; ignores the range.

    Of n levels the i-th is at start (n - i)/n, so that the final step, from the last of them to the data, is
    as long as the others. sigma is infinite at t = 1, where a run would begin: it begins at `start`, or where
    the denoiser's range ends if that is earlier. The signal left out there, 1 - start, is 0.001 by default.

    shift: s of t' = s t/(1 + (s - 1) t), which makes the levels denser at high noise for s > 1, as in
    Esser et al. 2024, eq. 23 (3 for SD3's 1024x1024 pixels); 1 is none. It acts before `start` does.
    """

    start: Annotated[float, Range(0.5, 1 - 1e-6)] = 0.999
    shift: Annotated[float, Range(0.01, 100)] = 1.0

    def range(self, low: float, high: float) -> tuple[float, float]:
        return max(low, self.sigma_min), min(self.start / (1 - self.start), high)

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        t = 1 - torch.arange(n, dtype=torch.float64) / n
        t = self.shift * t / (1 + (self.shift - 1) * t) * (high / (1 + high))
        return t / (1 - t)


@dataclass(frozen=True)
class DiscreteGrid(Grid):
    """Timesteps of a discrete schedule, spaced as diffusers names it; ignores the sigma range.

    A run of n - 1 steps has n levels, and with the final evaluation n is diffusers' num_inference_steps.
    leading: multiples of T // n, plus steps_offset. linspace: n rounded points of 0 .. T - 1.
    trailing: T, T - T/n, ... rounded, less one (Lin et al. 2024, Table 2).
    Neither given: as the network's own scheduler says, else leading and 0.
    """

    timestep_spacing: Literal["leading", "linspace", "trailing"] = NOT_GIVEN
    steps_offset: Annotated[int, Range(0, 10**6)] = NOT_GIVEN
    given: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", filled(self, {"timestep_spacing": "leading", "steps_offset": 0}))
        super().__post_init__()
        if self.steps_offset and self.timestep_spacing != "leading":
            raise ValueError(
                f"steps_offset={self.steps_offset} moves leading timesteps and no others: set steps_offset=0 "
                f"with timestep_spacing={self.timestep_spacing}"
            )

    def of_network(self, spacing: "DiscreteGrid | None") -> "DiscreteGrid":
        return self if self.given or spacing is None else spacing

    def range(self, low: float, high: float) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        if not isinstance(schedule, Discrete):
            raise ValueError(
                f"grid=discrete picks timesteps of a table and schedule {type(schedule).__name__} has none: "
                "use schedule=discrete"
            )
        total = schedule.num_train_timesteps
        if n > total:
            raise ValueError(f"{n} levels do not fit num_train_timesteps={total}")
        timesteps = self.timesteps(n, total)
        if int(timesteps[0]) >= total:
            room = total - 1 - (n - 1) * (total // n)
            raise ValueError(
                f"steps_offset={self.steps_offset} with {n} levels starts at timestep {int(timesteps[0])} "
                f"and the table ends at {total - 1}: use steps_offset={room} or less, or fewer levels"
            )
        return schedule.sigma(timesteps.double())

    def timesteps(self, n: int, total: int) -> Tensor:
        """(n,) int64 decreasing timesteps; ties are rounded to even, as numpy does."""
        ramp = torch.arange(n, dtype=torch.float64)
        if self.timestep_spacing == "leading":
            return (ramp.flip(0) * (total // n)).long() + self.steps_offset
        if self.timestep_spacing == "linspace":
            return (ramp.flip(0) * ((total - 1) / max(n - 1, 1))).round().long()
        step = total - (total - total / n)  # numpy's arange has this rounding, and it decides ties
        return (total - ramp * step).round().long() - 1


@dataclass(frozen=True)
class Explicit(Grid):
    """The given levels, literally: never rounded to the denoiser's table, never clipped."""

    sigmas: tuple[Annotated[float, Range(0, 1e16, open_low=True)], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))
        check_decreasing(self.sigmas)

    @property
    def own_steps(self) -> int:
        return len(self.sigmas) - 1

    def range(self, low: float, high: float) -> tuple[float, float]:
        return self.sigmas[-1], self.sigmas[0]

    def levels(self, n: int, low: float, high: float, schedule: Schedule) -> Tensor:
        if n != len(self.sigmas):
            raise ValueError(
                f"the explicit grid has {len(self.sigmas)} levels ({len(self.sigmas) - 1} steps), not {n}"
            )
        return torch.tensor(self.sigmas, dtype=torch.float64)


def check_decreasing(sigmas: Tensor | Sequence[float]) -> None:
    """Raise ValueError unless there are at least two levels, finite, positive, strictly decreasing."""
    levels = [float(sigma) for sigma in sigmas]
    if len(levels) < 2:
        raise ValueError(f"sigmas={levels}: a grid needs at least two noise levels")
    if not all(0 < level < math.inf for level in levels):
        raise ValueError(f"noise levels must be finite and positive (the step to 0 is `final`), got {levels}")
    if not all(after < before for before, after in itertools.pairwise(levels)):
        raise ValueError(f"noise levels must decrease strictly, got {levels}")
