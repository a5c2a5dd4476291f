"""PNDM (Liu et al. 2022): Runge-Kutta steps first, then linear multistep steps, along DDIM's transfer.

In unscaled coordinates DDIM's transfer is x + (sigma_next - sigma) eps (their eq. 11), so the method is
four-step Adams-Bashforth with the weights of equal steps (eq. 12) after three pseudo Runge-Kutta steps
(eq. 13), whose middle is that of the schedule's time. Its order is 2: equal weights and middles of
time stand for steps that are not equal in sigma.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.dpm_solver import noise_estimate
from seedsbench.solvers.linear_multistep import adams_bashforth
from seedsbench.solvers.parts.table_steps import TableState, TableSteps

WARM_UP = 3  # Runge-Kutta steps before four noise estimates are at hand
RK4_WEIGHTS = torch.tensor([1 / 6, 2 / 6, 2 / 6, 1 / 6], dtype=torch.float64)


@dataclass(frozen=True)
class PNDM(TableSteps):
    """Four evaluations in each of the first three steps, then one a step.

    skip_prk_steps: start with one step of Heun's rule instead (two evaluations) and raise the order
    of the multistep part from 2 to 4, as S-PNDM and diffusers do.
    set_alpha_to_one (diffusers' default is false), previous_timestep: see TableSteps. The middles of
    Runge-Kutta steps are half of T // n away for previous_timestep=diffusers.
    """

    family: ClassVar[str] = "multistep"
    order: ClassVar[int] = 2
    skip_prk_steps: bool = False

    def nfe(self, n_steps: int) -> int:
        return n_steps + 1 if self.skip_prk_steps else n_steps + 3 * min(n_steps, WARM_UP)

    def warms_up(self, state: TableState) -> bool:
        return len(state.eps) < (1 if self.skip_prk_steps else WARM_UP)

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: TableState, noise: Noise
    ) -> StepResult:
        if not self.warms_up(state):
            return super().advance(process, x, sigma, sigma_next, state, noise)
        eps = noise_estimate(process.predict, x, sigma)
        rule = _heun if self.skip_prk_steps else _runge_kutta
        x = rule(process, x, sigma, sigma_next, eps, state.stride)
        return StepResult(x, TableState(state.stride, (eps, *state.eps)))

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: TableState, noise: Noise
    ) -> StepResult:
        eps = ((x - denoised) / expand(sigma, x), *state.eps)[:4]
        x = add_weighted(x, adams_bashforth(len(eps), sigma_next - sigma), eps)
        return StepResult(x, TableState(state.stride, eps))


def _taken(schedule: Schedule, x: Tensor, level: Tensor, other: Tensor) -> Tensor:
    """Unscaled x at a level, when its scaled state is taken for one at the other level."""
    return x if other is level else x * expand(schedule.scale_at(level) / schedule.scale_at(other), x)


def _heun(
    process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, first: Tensor, stride: int | None
) -> Tensor:
    """x at sigma_next; one evaluation beside the first estimate."""
    schedule, start, arrival = process.schedule, sigma, sigma_next
    if stride is not None:  # the second call steps to its own timestep from a stride above it
        arrival = schedule.sigma(schedule.sigma_inv(sigma) - stride)
        start = schedule.sigma(schedule.sigma_inv(sigma_next) + stride)
    ahead = x + expand(arrival - sigma, x) * first
    ahead = _taken(schedule, ahead, arrival, sigma_next)
    slope = (first + noise_estimate(process.predict, ahead, sigma_next)) / 2
    return _taken(schedule, x, sigma, start) + expand(sigma_next - start, x) * slope


def _runge_kutta(
    process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, first: Tensor, stride: int | None
) -> Tensor:
    """x at sigma_next; three evaluations beside the first estimate."""
    schedule = process.schedule
    t, t_next = schedule.sigma_inv(sigma), schedule.sigma_inv(sigma_next)
    arrival = middle = schedule.sigma((t + t_next) / 2)
    if stride is not None:
        arrival, middle = schedule.sigma(t - stride // 2), schedule.sigma(t_next + stride // 2)
    eps = [first]
    for level, other in ((arrival, middle), (middle, middle), (sigma_next, sigma_next)):
        stage = x + expand(level - sigma, x) * eps[-1]
        eps.append(noise_estimate(process.predict, _taken(schedule, stage, level, other), other))
    mean = add_weighted(torch.zeros_like(x), RK4_WEIGHTS, eps)
    return x + expand(sigma_next - sigma, x) * mean
