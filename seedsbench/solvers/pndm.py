"""PNDM (Liu et al. 2022): Runge-Kutta steps first, then linear multistep steps, along DDIM's transfer.

In unscaled coordinates DDIM's transfer is x + (sigma_next - sigma) eps (their eq. 11), so the method is
four-step Adams-Bashforth with the weights of equal steps (eq. 12) after three pseudo Runge-Kutta steps
(eq. 13), whose middle is that of the schedule's time. Its order is 2: equal weights and middles of
time stand for steps that are not equal in sigma.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import StepResult, Unscaled
from seedsbench.solvers.linear_multistep import ADAMS_BASHFORTH
from seedsbench.solvers.parts.table_steps import PreviousTimestep, landing, stride

WARM_UP = 3  # Runge-Kutta steps before four noise estimates are at hand
RK4_WEIGHTS = (1 / 6, 2 / 6, 2 / 6, 1 / 6)


class Run(NamedTuple):
    """State: T // n of previous_timestep=diffusers, else None, and the noise estimates, newest first."""

    by: int | None
    eps: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class PNDM(Unscaled):
    """Four evaluations in each of the first three steps, then one a step.

    skip_prk_steps: start with one step of Heun's rule instead (two evaluations) and raise the order
    of the multistep part from 2 to 4, as S-PNDM and diffusers do.
    previous_timestep: "grid" steps to the next level; "diffusers" to t - T // n (solvers/table_steps.py),
        and the middles of Runge-Kutta steps are half of that away.
    set_alpha_to_one: the last step goes to the data, by the loop's rule; else (diffusers' default) to the
        first level of a discrete schedule's table, by the multistep one. Neither where t - T // n is on
        the table: there it goes.
    """

    family: ClassVar[str] = "multistep"
    order: ClassVar[int] = 2
    skip_prk_steps: bool = False
    previous_timestep: PreviousTimestep = "grid"
    set_alpha_to_one: bool = True

    def nfe(self, n_steps: int) -> int:
        return n_steps + 1 if self.skip_prk_steps else n_steps + 3 * min(n_steps, WARM_UP)

    def init(self, process: Process, x: Tensor, times: Tensor) -> Run:
        options = self.previous_timestep, self.set_alpha_to_one
        return Run(stride("PNDM", process.schedule, len(times), *options))

    def warms_up(self, state: Run) -> bool:
        """Whether the step to be taken is one of the first, which have no history."""
        return len(state.eps) < (1 if self.skip_prk_steps else WARM_UP)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Run, noise: Noise
    ) -> StepResult:
        by = None if self.warms_up(state) else state.by
        return super().step(process, x, t, t_next if by is None else t - by, state, noise)

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Run, noise: Noise
    ) -> StepResult:
        eps = (_eps(process, x, sigma), *state.eps)[:4]
        if not self.warms_up(state):
            x = _multistep(x, sigma, sigma_next, eps)
        else:
            rule = _heun if self.skip_prk_steps else _runge_kutta
            x = rule(process, x, sigma, sigma_next, eps[0], state.by)
        return StepResult(x, Run(state.by, eps))

    def final_sample(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Run, noise: Noise
    ) -> Tensor:
        schedule, sigma = process.schedule, process.schedule.sigma(t)
        target = landing(schedule, t, state.by, self.set_alpha_to_one)
        if target is None:
            return denoised
        x = x / expand(schedule.scale_at(sigma), x)
        eps = ((x - denoised) / expand(sigma, x), *state.eps)[:4]
        return _multistep(x, sigma, target, eps) * expand(schedule.scale_at(target), x)


def _eps(process: Process, x: Tensor, sigma: Tensor) -> Tensor:
    return (x - process.predict(x, sigma)) / expand(sigma, x)


def _mean(weights: tuple[float, ...], eps: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    total = weights[0] * eps[0]
    for weight, slope in zip(weights[1:], eps[1:], strict=True):
        total = total + weight * slope
    return total


def _multistep(x: Tensor, sigma: Tensor, sigma_next: Tensor, eps: tuple[Tensor, ...]) -> Tensor:
    row = (sigma_next - sigma) * torch.tensor(ADAMS_BASHFORTH[len(eps) - 1], dtype=sigma.dtype)
    return add_weighted(x, row, eps)


def _taken(schedule: Schedule, x: Tensor, level: Tensor, other: Tensor) -> Tensor:
    """Unscaled x at a level, when its scaled state is taken for one at the other level."""
    return x if other is level else x * expand(schedule.scale_at(level) / schedule.scale_at(other), x)


def _heun(
    process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, first: Tensor, by: int | None
) -> Tensor:
    """x at sigma_next; one evaluation beside the first estimate."""
    schedule, start, arrival = process.schedule, sigma, sigma_next
    if by is not None:  # the second call steps to its own timestep from a stride above it
        arrival = schedule.sigma(schedule.sigma_inv(sigma) - by)
        start = schedule.sigma(schedule.sigma_inv(sigma_next) + by)
    ahead = x + expand(arrival - sigma, x) * first
    slope = (first + _eps(process, _taken(schedule, ahead, arrival, sigma_next), sigma_next)) / 2
    return _taken(schedule, x, sigma, start) + expand(sigma_next - start, x) * slope


def _runge_kutta(
    process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, first: Tensor, by: int | None
) -> Tensor:
    """x at sigma_next; three evaluations beside the first estimate."""
    schedule = process.schedule
    t, t_next = schedule.sigma_inv(sigma), schedule.sigma_inv(sigma_next)
    arrival = middle = schedule.sigma((t + t_next) / 2)
    if by is not None:
        arrival, middle = schedule.sigma(t - by // 2), schedule.sigma(t_next + by // 2)
    eps = [first]
    for level, other in ((arrival, middle), (middle, middle), (sigma_next, sigma_next)):
        stage = x + expand(level - sigma, x) * eps[-1]
        eps.append(_eps(process, _taken(schedule, stage, level, other), other))
    return x + expand(sigma_next - sigma, x) * _mean(RK4_WEIGHTS, eps)
