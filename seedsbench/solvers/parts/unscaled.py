"""Solvers that say their rule in unscaled coordinates x = data + sigma noise, whatever the schedule."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import Solver, StepResult


@dataclass(frozen=True)
class Unscaled(Solver):
    """A subclass writes `advance`; the schedule's scaling is taken off before it and put back after."""

    @abstractmethod
    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """From x at sigma to sigma_next, x unscaled on both sides. Evaluates `process.predict(x, sigma)`."""

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        schedule = process.schedule
        sigma, sigma_next = schedule.sigma(t), schedule.sigma(t_next)
        x = x / expand(schedule.scale_at(sigma), x)
        result = self.advance(process, x, sigma, sigma_next, state, noise)
        return StepResult(result.x * expand(schedule.scale_at(sigma_next), x), result.state)


@dataclass(frozen=True)
class OneStage(Unscaled):
    """One evaluation a step, at its start: a subclass writes `update`."""

    @abstractmethod
    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """From x at sigma, whose denoised image is given, to sigma_next; x unscaled on both sides."""

    def nfe(self, n_steps: int) -> int:
        return n_steps

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        return self.update(x, process.predict(x, sigma), sigma, sigma_next, state, noise)
