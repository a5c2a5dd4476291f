"""A scheduler of diffusers as a solver: `solver=diffusers solver.scheduler=...`.

A run of n steps and the final evaluation is the scheduler's run of n + 1 inference steps: its last one, which
ends at zero by itself, is the loop's final=denoise. Its noise is drawn from our streams, so that samples
depend neither on the batch nor on torch's generators.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise, Silent
from seedsbench.diffusion.process import Process, expand
from seedsbench.integrations.driven import Driven
from seedsbench.integrations.schedulers import check_scheduler, order_of
from seedsbench.integrations.torch_randn import InPlaceOfTorch
from seedsbench.solvers.base import Solver, StepResult

_FEWEST = 4  # steps that every scheduler can take
_PROBE = torch.linspace(4.4, -6.2, 12, dtype=torch.float64).exp()  # levels over which noise is looked for


@dataclass(frozen=True)
class DiffusersSolver(Solver):
    """scheduler: its class's name. config: options of its constructor; step_options: of its step.

    levels: "grid" fills the scheduler's table with the noise levels of the run, each of them a timestep;
    "own" lets it choose as many as it does in a pipeline, whatever the grid says. Either way the network is
    asked at the timestep's level, where some schedulers round it too.

    Raises ValueError, when it is first asked for anything, for unknown names and options (with the nearest),
    for schedulers that cannot be driven (with the reason), and without diffusers.
    """

    family: ClassVar[str] = "diffusers"
    library: ClassVar[str | None] = "diffusers"
    scheduler: str = "DPMSolverMultistepScheduler"
    config: Mapping[str, Any] | None = None
    step_options: Mapping[str, Any] | None = None
    levels: Literal["grid", "own"] = "grid"

    @property
    def order(self) -> int:
        self._check()
        return order_of(self.scheduler, self.config or {}, self.step_options or {})

    @property
    def stochastic(self) -> bool:
        self._check()
        return _draws(self.scheduler, _text(self.config), _text(self.step_options), self.levels == "grid") > 0

    def notes(self) -> tuple[str, ...]:
        if self.levels == "grid":
            return ()
        return (f"{self.scheduler} chose its own noise levels: those of the grid were not used",)

    def nfe(self, n_steps: int) -> int:
        self._check()
        return sum(_calls(self.scheduler, _text(self.config), n_steps + 1, self.levels == "grid")) - 1

    def init(self, process: Process, x: Tensor, times: Tensor) -> Driven:
        self._check()
        levels = process.schedule.sigma(times) if self.levels == "grid" else None
        driven = Driven.started(self.scheduler, self.config or {}, len(times), levels, x.device)
        if levels is None:
            first = process.schedule.sigma(times[0])
            latents = x / expand(first * process.schedule.scale_at(first), x)
            return replace(driven, x=latents * driven.init_noise_sigma)
        return driven

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Driven, noise: Noise
    ) -> StepResult:
        driven, schedule = state, process.schedule
        sigma = schedule.sigma(t) if self.levels == "grid" else driven.level
        if driven.done > 0 or driven.x is None:
            unscaled = x / expand(schedule.scale_at(sigma), x)
            driven = replace(driven, x=unscaled * driven.scale(sigma))
        for _ in range(driven.calls[driven.index]):
            asked, level = driven.question()
            driven = self._advanced(driven, process.predict(asked, level), noise)
        driven = replace(driven, index=driven.index + 1)
        sigma = schedule.sigma(t_next) if self.levels == "grid" else driven.level
        assert driven.x is not None
        return StepResult(driven.x / driven.scale(sigma) * expand(schedule.scale_at(sigma), x), driven)

    def before_final(
        self, process: Process, x: Tensor, t: Tensor, state: Driven, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        if self.levels == "grid":
            return x, t
        asked, level = state.question()
        return asked * expand(process.schedule.scale_at(level), x), process.schedule.sigma_inv(level)

    def final_sample(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Driven, noise: Noise
    ) -> Tensor:
        final = self._advanced(state, denoised, noise).x
        assert final is not None
        return final

    def _advanced(self, driven: Driven, denoised: Tensor, noise: Noise) -> Driven:
        return driven.advanced(denoised, self.step_options or {}, InPlaceOfTorch(noise))

    def _check(self) -> None:
        _checked(self.scheduler, _text(self.config), _text(self.step_options), self.levels == "grid")


def _text(options: Mapping[str, Any] | None) -> str:
    return json.dumps(dict(options or {}), sort_keys=True, default=list)


@lru_cache(maxsize=256)
def _checked(name: str, config: str, step_options: str, grid_levels: bool) -> None:
    check_scheduler(name, json.loads(config), json.loads(step_options), grid_levels=grid_levels)


@lru_cache(maxsize=4096)
def _calls(name: str, config: str, n: int, grid_levels: bool) -> tuple[int, ...]:
    """How often a run of n levels asks the network in each step, the final one included."""
    levels = torch.linspace(4, -4, n, dtype=torch.float64).exp() if grid_levels else None
    options = json.loads(config)
    if levels is None and n > (most := Driven.most_levels(name, options)):
        inner = _calls(name, config, most, False)  # such a run is refused, but steps are counted up to it
        return (*inner[:-1], *[inner[-2]] * (n - most), inner[-1])
    try:
        return Driven.started(name, options, n, levels, torch.device("cpu")).calls
    except ValueError:
        if n >= _FEWEST:
            raise
    four = _calls(name, config, _FEWEST, grid_levels)  # so few are refused too, when a run begins
    return (four[0] - _FEWEST + n, *four[1:]) if len(four) > 1 else four


@lru_cache(maxsize=256)
def _draws(name: str, config: str, step_options: str, grid_levels: bool) -> int:
    """How many normals a run draws."""
    levels, zeros = _PROBE if grid_levels else None, torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    driven = Driven.started(name, json.loads(config), len(_PROBE), levels, torch.device("cpu"))
    driven, draws = replace(driven, x=zeros + 1), 0
    for _ in range(sum(driven.calls)):
        driven.question()
        source = InPlaceOfTorch(Silent(tuple(zeros.shape)))
        driven = driven.advanced(zeros, json.loads(step_options), source)
        draws += source.draws
    return draws
