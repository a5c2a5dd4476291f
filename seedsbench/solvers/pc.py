"""Predictor-corrector sampling of score SDEs (Song et al. 2021, Algorithms 2 to 5).

A step corrects x at its noise level by Langevin dynamics, x + e score + sqrt(2 e) z, then predicts it at the
next one (parts/pc_predictors.py); the corrector at the last level is `before_final`. The process is VE, VP or
sub-VP by the solver's name, whatever coordinates the schedule has (they are changed on the way in and out),
in the schedule's time.

discretization: "grid" uses the levels given, exactly (reverse_diffusion, ancestral) or with their real
spacing in time (euler_maruyama), and ends in the denoised image. "reference" is what the authors' code and
diffusers do: steps of 1/N whatever the spacing, table entries k = floor(t (N - 1)), and the mean of one more
predictor step at the end; N is the number of levels, and the schedule's time must run from 1.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.checks import Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.diffusion.schedule import Scaling, Schedule
from seedsbench.exact.same_bits import tree_sum
from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.parts import pc_predictors as predictors
from seedsbench.solvers.parts.pc_predictors import Transition, UniformTable

COUNTERPART = {"none": "ve_geometric", "vp": "vp", "subvp": "subvp"}
Predictor = Literal["reverse_diffusion", "ancestral", "euler_maruyama", "none"]


@dataclass(frozen=True)
class LangevinPC(Solver):
    """Order 1; one evaluation a step for the predictor and one for each corrector step, which end it too.

    corrector: how the size e of its steps is found. langevin, the paper's: from the norms of the score and of
    z at hand; annealed_langevin, the default: from their typical ratio, the noise's std. In the many
    dimensions of images that is the same. In few, a size that depends on the state does not keep the law
    invariant (on the two-dimensional mixture it doubles the variance).
    snr: "signal-to-noise ratio" r of the correctors. probability_flow: a predictor without noise, on the ODE.
    norms: "per_sample" as the paper's algorithms say; "batch" takes the means of both norms over the batch,
    as the public implementations do (a sample then depends on its neighbours).
    With a corrector no fixed SDE is approximated and no weak order is declared. State: the table.
    """

    family: ClassVar[str] = "score_sde"
    order: ClassVar[int] = 1
    scaling: ClassVar[Scaling] = "none"
    predictor: Predictor = "reverse_diffusion"
    corrector: Literal["annealed_langevin", "langevin", "none"] = "annealed_langevin"
    snr: Share = 0.16
    corrector_steps: Annotated[int, Range(1, 100)] = 1
    probability_flow: bool = False
    norms: Literal["per_sample", "batch"] = "per_sample"
    discretization: Literal["grid", "reference"] = "grid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor == self.corrector == "none":
            raise ValueError(f"{type(self).__name__}: predictor and corrector are none: choose one of them")

    @property
    def stochastic(self) -> bool:
        return self.corrector != "none" or not self.probability_flow

    @property
    def weak_order(self) -> int | None:
        return 1 if self.stochastic and self.corrector == "none" else None

    @property
    def noise_free(self) -> "LangevinPC":
        """The predictor alone, if there is one: Langevin steps without noise would lead off the path."""
        return self if self.predictor == "none" else replace(self, corrector="none")

    @property
    def before_final_nfe(self) -> int:
        return 0 if self.corrector == "none" else self.corrector_steps

    def nfe(self, n_steps: int) -> int:
        return n_steps * (self.before_final_nfe + (self.predictor != "none"))

    def init(self, process: Process, x: Tensor, times: Tensor) -> UniformTable:
        own = replace(process.schedule, scaling=self.scaling)
        foreign = process.schedule.scaling != self.scaling or float(times[0]) > 1 + 1e-6
        if self.discretization == "reference" and foreign:
            raise ValueError(
                f"{type(self).__name__}: discretization=reference needs the coordinates and time (1 to 0) of "
                f"Song et al., not those of {type(own).__name__}: use schedule={COUNTERPART[self.scaling]}"
            )
        return UniformTable(own, len(times))

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: UniformTable, noise: Noise
    ) -> StepResult:
        own = state.own
        sigma, sigma_next = own.sigma(t), own.sigma(t_next)
        x = x * expand(own.scale_at(sigma) / process.schedule.scale_at(sigma), x)
        x = self._correct(process, x, t, sigma_next, state, noise)
        if self.predictor != "none":
            score = _score(process, own, x, sigma)
            transition = self._transition(state, t, t_next)
            x = self._mean(x, score, transition)
            if not self.probability_flow:
                variance = transition.ancestral if self.predictor == "ancestral" else transition.variance
                x = x + expand(variance.sqrt(), x) * noise.normal()
        back = process.schedule.scale_at(sigma_next) / own.scale_at(sigma_next)
        return StepResult(x * expand(back, x), state)

    def before_final(
        self, process: Process, x: Tensor, t: Tensor, state: UniformTable, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        sigma = state.own.sigma(t)
        change = expand(state.own.scale_at(sigma) / process.schedule.scale_at(sigma), x)
        return self._correct(process, x * change, t, torch.zeros_like(sigma), state, noise) / change, t

    def final_sample(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: UniformTable, noise: Noise
    ) -> Tensor:
        """The denoised image, or the mean of one more predictor step for discretization=reference."""
        if self.discretization == "grid":
            return denoised
        if self.predictor == "none":
            return x
        sigma = state.own.sigma(t)
        score = _score_of(x, denoised, state.own.scale_at(sigma), sigma)
        return self._mean(x, score, self._transition(state, t, t))

    def _correct(
        self, process: Process, x: Tensor, t: Tensor, sigma_next: Tensor, table: UniformTable, noise: Noise
    ) -> Tensor:
        """The Langevin steps at time t of x, in the solver's own coordinates."""
        sigma, std = table.own.sigma(t), table.own.scale(t) * table.own.sigma(t)
        alpha = self._alpha(table, t, sigma_next)
        for _ in range(self.before_final_nfe):
            score, z = _score(process, table.own, x, sigma), noise.normal()
            # Algorithms 4 and 5, and annealed Langevin dynamics (Song and Ermon 2019).
            langevin = self.corrector == "langevin"
            size = self._langevin_size(score, z, alpha) if langevin else 2 * alpha * (self.snr * std) ** 2
            x = x + expand(size, x) * score + expand((2 * size).sqrt(), x) * z
        return x

    def _langevin_size(self, score: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
        """e = 2 alpha (snr |z| / |score|)^2, (B,); 0 where the score vanishes."""
        noise, gradient = (tree_sum(v.double().flatten(1).square()).sqrt() for v in (z, score))
        if self.norms == "batch":
            noise, gradient = noise.mean().expand_as(noise), gradient.mean().expand_as(gradient)
        size = 2 * alpha * (self.snr * noise / gradient) ** 2
        return torch.where(gradient > 0, size, 0.0).to(score.dtype)

    def _alpha(self, table: UniformTable, t: Tensor, sigma_next: Tensor) -> Tensor:
        """1 for VE, else 1 - beta of the transition from the next level, the data after the last one."""
        if self.scaling == "none":
            return torch.ones_like(t)
        if self.discretization == "reference":
            return 1 - table.beta(t)
        return (table.own.scale(t) / table.own.scale_at(sigma_next)) ** 2

    def _transition(self, table: UniformTable, t: Tensor, t_next: Tensor) -> Transition:
        own, reference = table.own, self.discretization == "reference"
        if self.predictor == "euler_maruyama":
            return predictors.euler(own, t, torch.ones_like(t) / table.n if reference else t - t_next)
        if reference:
            return predictors.tabulated(table, t)
        return predictors.exact(own, own.sigma(t), own.sigma(t_next))

    def _mean(self, x: Tensor, score: Tensor, transition: Transition) -> Tensor:
        mean = predictors.ancestral if self.predictor == "ancestral" else predictors.reverse
        return mean(x, score, transition, 0.5 if self.probability_flow else 1.0)


def _score(process: Process, own: Schedule, x: Tensor, sigma: Tensor) -> Tensor:
    """The score of x in the coordinates of `own`; one evaluation."""
    scale = own.scale_at(sigma)
    return _score_of(x, process.predict(x / expand(scale, x), sigma), scale, sigma)


def _score_of(x: Tensor, denoised: Tensor, scale: Tensor, sigma: Tensor) -> Tensor:
    """The score (s D - x) / (s sigma)^2 at x = s (data + sigma noise) from its denoised image."""
    return (expand(scale, x) * denoised - x) / expand((scale * sigma) ** 2, x)


@dataclass(frozen=True)
class PCVE(LangevinPC):
    """On the variance-exploding process (Algorithms 2 and 4)."""


@dataclass(frozen=True)
class PCVP(LangevinPC):
    """On the variance-preserving process (Algorithms 3 and 5)."""

    scaling: ClassVar[Scaling] = "vp"


@dataclass(frozen=True)
class PCSubVP(LangevinPC):
    """On the sub-VP process (eq. 29), with Euler-Maruyama as its released configurations have.

    Their corrector lacks alpha there (it stops with an error); here it is VP's, which has the same signal.
    """

    scaling: ClassVar[Scaling] = "subvp"
    predictor: Predictor = "euler_maruyama"
