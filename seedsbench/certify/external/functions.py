"""A sampler that is one function over all noise levels, as k-diffusion's `sample_*` are, taken step by step.

`function(model, x, sigmas, ..., noise_sampler=...)` runs from x at sigmas[0] to sigmas[-1]. One step of it is
its run over two levels. A sampler that remembers is run again from the start: the denoised images and the
noise of earlier steps are given again, so that only the newest step evaluates and draws.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process
from seedsbench.solvers.base import StepResult, Unscaled

Draw = Callable[[Tensor, Tensor], Tensor]  # noise_sampler(sigma, sigma_next): a standard normal


@dataclass(frozen=True)
class Replayed:
    """What a run has been given so far: its levels, first state, denoised images and normals."""

    start: Tensor
    levels: tuple[Tensor, ...]
    denoised: tuple[Tensor, ...] = ()
    normals: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class FunctionSolver(Unscaled):
    """function: the sampler; options: its own. draws: whether it takes a `noise_sampler`.

    evaluations_a_step: network evaluations of each step. remembers: whether steps depend on earlier ones.
    independent: each call of the noise sampler is a fresh normal, not the increment of one path over sigma.
    """

    family: ClassVar[str] = "external"
    order: ClassVar[int] = 1  # what is published stands in the claim
    function: Callable[..., Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    evaluations_a_step: int = 1
    remembers: bool = False
    draws: bool = False
    independent: bool = False

    @property
    def stochastic(self) -> bool:
        return self.draws and self.options.get("eta", 1.0) > 0

    def nfe(self, n_steps: int) -> int:
        return self.evaluations_a_step * n_steps

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        history = state or Replayed(x, (sigma,))
        sigmas = torch.stack([*history.levels, sigma_next])
        model = _Again(history.denoised, lambda x, sigma: process.predict(x, sigma[0]))
        normals = _Again(history.normals, _Increments(noise, independent=self.independent))
        options = {"noise_sampler": normals, **self.options} if self.draws else self.options
        end = self.function(model, history.start, sigmas, disable=True, **options)
        if not self.remembers:
            return StepResult(end)
        return StepResult(end, Replayed(history.start, tuple(sigmas), model.given, normals.given))


class _Again:
    """The first answers again, in order, then those of `ask`. given: all of them."""

    def __init__(self, answers: tuple[Tensor, ...], ask: Callable[[Any, Any], Tensor]) -> None:
        self.given, self._ask, self._place = answers, ask, 0

    def __call__(self, first: Any, second: Any) -> Tensor:
        if self._place == len(self.given):
            self.given += (self._ask(first, second),)
        self._place += 1
        return self.given[self._place - 1]


class _Increments:
    """Normals of a step: increments of one Brownian path over sigma, which may share their start."""

    def __init__(self, noise: Noise, *, independent: bool) -> None:
        self._noise, self._independent = noise, independent
        self._walked: list[tuple[Tensor, Tensor]] = []  # (level, W there less W at the start)

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if self._independent:
            return self._noise.normal()
        if not self._walked or sigma != self._walked[0][0]:
            self._walked = [(sigma, torch.zeros((), dtype=torch.float64))]
        place, walked = self._walked[-1]
        if sigma_next < place:
            walked = walked + self._noise.increment(-place, -sigma_next)
            self._walked.append((sigma_next, walked))
        return walked / (sigma - sigma_next).sqrt()
