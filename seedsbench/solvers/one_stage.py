"""Solvers that evaluate once a step and say their rule in unscaled coordinates x = data + sigma noise."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import Solver, StepResult


@dataclass(frozen=True)
class OneStage(Solver):
    """One evaluation a step. A subclass writes `advance`; scaling and the evaluation are done here."""

    @abstractmethod
    def advance(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """From x at sigma, whose denoised image is given, to sigma_next; x unscaled on both sides."""

    def nfe(self, n_steps: int) -> int:
        return n_steps

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        schedule = process.schedule
        sigma, sigma_next = schedule.sigma(t), schedule.sigma(t_next)
        x = x / expand(schedule.scale_at(sigma), x)
        result = self.advance(x, process.predict(x, sigma), sigma, sigma_next, state, noise)
        return StepResult(result.x * expand(schedule.scale_at(sigma_next), x), result.state)
