"""Predictor-corrector sampling of score SDEs (Song et al. 2021, Algorithms 2 to 5).

A step corrects x at its noise level by Langevin dynamics, then predicts it at the next one; the corrector
at the last level is the loop's `finish`. The process is VE, VP or sub-VP by the solver's name, whatever
coordinates the schedule has (they are changed on the way in and out), in the schedule's time.

discretization: "grid" uses the levels given, exactly (reverse_diffusion, ancestral) or with their real
spacing in time (euler_maruyama), and ends in the denoised image. "reference" is what the authors' code and
diffusers do: steps of 1/N whatever the spacing, table entries k = floor(t (N - 1)), and the mean of one more
predictor step at the end; N is the number of levels, and the schedule's time must run from 1.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from seedsbench.checks import Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.diffusion.schedule import Scaling, Schedule
from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.parts import pc_correctors as correctors
from seedsbench.solvers.parts import pc_predictors as predictors

COUNTERPART = {"none": "ve_geometric", "vp": "vp", "subvp": "subvp"}
MEANS: dict[str, predictors.Mean] = {
    "reverse_diffusion": predictors.reverse,
    "euler_maruyama": predictors.reverse,
    "ancestral": predictors.ancestral,
}


class Run(NamedTuple):
    """Constants of a run: the schedule in the solver's own coordinates, and the reference's table."""

    own: Schedule
    table: predictors.Table


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """Order 1; one evaluation a step for the predictor and one for each corrector step, which end it too.

    probability_flow: a predictor without noise, on the ODE. snr: "signal-to-noise ratio" r of the correctors.
    With a corrector no fixed SDE is approximated and no weak order is declared. The paper's corrector is
    langevin, the default is annealed_langevin: see solvers/pc_correctors.py.
    """

    family: ClassVar[str] = "score_sde"
    order: ClassVar[int] = 1
    scaling: ClassVar[Scaling] = "none"
    predictor: Literal["reverse_diffusion", "ancestral", "euler_maruyama", "none"] = "reverse_diffusion"
    corrector: Literal["annealed_langevin", "langevin", "none"] = "annealed_langevin"
    snr: Share = 0.16
    corrector_steps: Annotated[int, Range(1, 100)] = 1
    probability_flow: bool = False
    norms: correctors.Norms = "per_sample"
    discretization: Literal["grid", "reference"] = "grid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor == self.corrector == "none":
            raise ValueError(f"{type(self).__name__}: predictor and corrector are none: choose one of them")

    @property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.corrector != "none" or not self.probability_flow

    @property
    def weak_order(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 if self.stochastic and self.corrector == "none" else None

    @property
    def noise_free(self) -> "PredictorCorrector":
        """The predictor alone, if there is one: Langevin steps without noise would lead off the path."""
        return self if self.predictor == "none" else replace(self, corrector="none")

    @property
    def finish_nfe(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0 if self.corrector == "none" else self.corrector_steps

    def nfe(self, n_steps: int) -> int:
        return n_steps * (self.finish_nfe + (self.predictor != "none"))

    def init(self, process: Process, x: Tensor, times: Tensor) -> Run:
        own = replace(process.schedule, scaling=self.scaling)
        foreign = process.schedule.scaling != self.scaling or float(times[0]) > 1 + 1e-6
        if self.discretization == "reference" and foreign:
            raise ValueError(
                f"{type(self).__name__}: discretization=reference needs the coordinates and time (1 to 0) of "
                f"Song et al., not those of {type(own).__name__}: use schedule={COUNTERPART[self.scaling]}"
            )
        return Run(own, predictors.Table(own, len(times)))

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Run, noise: Noise
    ) -> StepResult:
        own = state.own
        sigma, sigma_next = own.sigma(t), own.sigma(t_next)
        x = x * expand(own.scale_at(sigma) / process.schedule.scale_at(sigma), x)
        x = self._correct(process, x, t, sigma_next, state, noise)
        if self.predictor != "none":
            score = self._score(process, own, x, sigma)
            transition = self._transition(state, t, t_next)
            x = self._mean(x, score, transition)
            if not self.probability_flow:
                variance = transition.ancestral if self.predictor == "ancestral" else transition.variance
                x = x + expand(variance.sqrt(), x) * noise.normal()
        back = process.schedule.scale_at(sigma_next) / own.scale_at(sigma_next)
        return StepResult(x * expand(back, x), state)

    def finish(
        self, process: Process, x: Tensor, t: Tensor, state: Run, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        sigma = state.own.sigma(t)
        change = expand(state.own.scale_at(sigma) / process.schedule.scale_at(sigma), x)
        return self._correct(process, x * change, t, torch.zeros_like(sigma), state, noise) / change, t

    def land(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Run, noise: Noise
    ) -> Tensor:
        """The denoised image, or the mean of one more predictor step for discretization=reference."""
        if self.discretization == "grid":
            return denoised
        if self.predictor == "none":
            return x
        sigma = state.own.sigma(t)
        score = score_of(x, denoised, state.own.scale_at(sigma), sigma)
        return self._mean(x, score, self._transition(state, t, t))

    def _correct(
        self, process: Process, x: Tensor, t: Tensor, sigma_next: Tensor, state: Run, noise: Noise
    ) -> Tensor:
        """The Langevin steps at time t of x, in the solver's own coordinates."""
        sigma = state.own.sigma(t)
        alpha = self._alpha(state, t, sigma_next)
        for _ in range(self.finish_nfe):
            score, z = self._score(process, state.own, x, sigma), noise.normal()
            if self.corrector == "langevin":
                size = correctors.langevin_size(score, z, self.snr, alpha, self.norms)
            else:
                size = correctors.annealed_size(state.own.scale_at(sigma) * sigma, self.snr, alpha)
            x = correctors.langevin_step(x, score, z, size)
        return x

    def _alpha(self, state: Run, t: Tensor, sigma_next: Tensor) -> Tensor:
        """1 for VE, else 1 - beta of the transition from the next level, the data after the last one."""
        own = state.own
        if self.scaling == "none":
            return torch.ones_like(t)
        if self.discretization == "reference":
            return 1 - state.table.beta(t)
        return (own.scale(t) / own.scale_at(sigma_next)) ** 2

    def _transition(self, state: Run, t: Tensor, t_next: Tensor) -> predictors.Transition:
        own, reference = state.own, self.discretization == "reference"
        if self.predictor == "euler_maruyama":
            return predictors.euler(own, t, torch.ones_like(t) / state.table.n if reference else t - t_next)
        if reference:
            return predictors.tabulated(state.table, t)
        return predictors.exact(own, own.sigma(t), own.sigma(t_next))

    def _mean(self, x: Tensor, score: Tensor, transition: predictors.Transition) -> Tensor:
        return MEANS[self.predictor](x, score, transition, 0.5 if self.probability_flow else 1.0)

    def _score(self, process: Process, own: Schedule, x: Tensor, sigma: Tensor) -> Tensor:
        """(s D - x) / (s sigma)^2 of x in the coordinates of `own`; one evaluation."""
        scale = own.scale_at(sigma)
        return score_of(x, process.predict(x / expand(scale, x), sigma), scale, sigma)


def score_of(x: Tensor, denoised: Tensor, scale: Tensor, sigma: Tensor) -> Tensor:
    """The score at x = s (data + sigma noise) from its denoised image."""
    return (expand(scale, x) * denoised - x) / expand((scale * sigma) ** 2, x)


@dataclass(frozen=True)
class PCVE(PredictorCorrector):
    """On the variance-exploding process (Algorithms 2 and 4)."""


@dataclass(frozen=True)
class PCVP(PredictorCorrector):
    """On the variance-preserving process (Algorithms 3 and 5)."""

    scaling: ClassVar[Scaling] = "vp"


@dataclass(frozen=True)
class PCSubVP(PredictorCorrector):
    """On the sub-VP process (eq. 29), with Euler-Maruyama as its released configurations have.

    Their corrector lacks alpha there (it stops with an error); here it is VP's, which has the same signal.
    """

    scaling: ClassVar[Scaling] = "subvp"
    predictor: Literal["reverse_diffusion", "ancestral", "euler_maruyama", "none"] = "euler_maruyama"
