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
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.linear_multistep import ADAMS_BASHFORTH
from seedsbench.solvers.unscaled import Unscaled

WARM_UP = 3  # Runge-Kutta steps before four noise estimates are at hand
RK4_NODES = ((0.5, 0), (0.5, 1), (1.0, 2))  # of stages 2 to 4: place in the step, stage that leads there
RK4_WEIGHTS = (1 / 6, 2 / 6, 2 / 6, 1 / 6)


@dataclass(frozen=True)
class PNDM(Unscaled):
    """Four evaluations in each of the first three steps, then one a step.

    skip_prk_steps: start with one step of Heun's rule instead (two evaluations) and raise the order
    of the multistep part from 2 to 4, as S-PNDM and diffusers do.
    """

    family: ClassVar[str] = "multistep"
    order: ClassVar[int] = 2
    skip_prk_steps: bool = False

    def nfe(self, n_steps: int) -> int:
        return n_steps + 1 if self.skip_prk_steps else n_steps + 3 * min(n_steps, WARM_UP)

    def advance(
        self,
        process: Process,
        x: Tensor,
        sigma: Tensor,
        sigma_next: Tensor,
        state: tuple[Tensor, ...] | None,
        noise: Noise,
    ) -> StepResult:
        past = state or ()
        eps = (_eps(process, x, sigma), *past)[:4]
        if not self.skip_prk_steps and len(past) < WARM_UP:
            slope = _runge_kutta(process, x, sigma, sigma_next, eps[0])
        elif not past:
            ahead = x + expand(sigma_next - sigma, x) * eps[0]
            slope = (eps[0] + _eps(process, ahead, sigma_next)) / 2
        else:
            row = (sigma_next - sigma) * torch.tensor(ADAMS_BASHFORTH[len(eps) - 1], dtype=sigma.dtype)
            return StepResult(add_weighted(x, row, eps), eps)
        return StepResult(x + expand(sigma_next - sigma, x) * slope, eps)


def _eps(process: Process, x: Tensor, sigma: Tensor) -> Tensor:
    return (x - process.predict(x, sigma)) / expand(sigma, x)


def _mean(weights: tuple[float, ...], eps: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    total = weights[0] * eps[0]
    for weight, slope in zip(weights[1:], eps[1:], strict=True):
        total = total + weight * slope
    return total


def _runge_kutta(process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, first: Tensor) -> Tensor:
    """The mean noise estimate of a step; three evaluations beside the first estimate."""
    schedule = process.schedule
    middle = schedule.sigma((schedule.sigma_inv(sigma) + schedule.sigma_inv(sigma_next)) / 2)
    eps = [first]
    for place, leader in RK4_NODES:
        level = middle if place < 1 else sigma_next
        eps.append(_eps(process, x + expand(level - sigma, x) * eps[leader], level))
    return _mean(RK4_WEIGHTS, eps)
