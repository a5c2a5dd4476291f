"""Ancestral samplers (k-diffusion): a step of the ODE to below the next level, then fresh noise up to it.

The next level t is split as t^2 = down^2 + up^2. With up^2 = eta^2 t^2 (1 - t^2/s^2) for a step from
s, eta = 1 has the variance of DDPM's posterior (Song, Meng and Ermon 2021, eq. 16) and eta = 0 is the
ODE. If the ODE step to `down` were exact, so would be the marginal law at t: the weak order is that of
the ODE step. For small steps it is the reverse SDE of strength eta.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.parts.added_noise import AddedNoise, unit_increment
from seedsbench.solvers.parts.dpm_rules import Predict, dpm1, dpm2, dpmpp2
from seedsbench.solvers.parts.unscaled import Unscaled


def split(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(down, up) with down^2 + up^2 = sigma_next^2; up is capped at sigma_next for eta > 1."""
    u = (sigma_next / sigma) ** 2
    # As a sum of positive terms: sigma_next^2 - up^2 cancels in a long step at eta = 1.
    down = sigma_next * ((1 - eta**2) + eta**2 * u).clamp(min=0).sqrt()
    up = sigma_next * (eta * (1 - u).sqrt()).clamp(max=1)
    return down, up


@dataclass(frozen=True)
class AncestralOptions(AddedNoise, Unscaled):
    """eta sets how far below the next level a step goes: see `split`."""

    family: ClassVar[str] = "k_diffusion"

    @property
    def weak_order(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.order if self.right_law else None

    @property
    def noise_free(self) -> "AncestralOptions":
        # Without `up` the step must not go to `down` either: the order is that of the ODE step.
        return replace(self, eta=0.0)


@dataclass(frozen=True)
class Ancestral(AncestralOptions):
    """A subclass writes `ode`."""

    @abstractmethod
    def ode(self, predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """A step of the probability-flow ODE, x unscaled."""

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        down, up = split(sigma, sigma_next, self.eta)
        x = self.ode(process.predict, x, sigma, down)
        if self.stochastic:
            x = x + expand(up * self.s_noise, x) * unit_increment(noise, sigma, sigma_next)
        return StepResult(x)


@dataclass(frozen=True)
class EulerAncestral(Ancestral):
    """Euler to `down`: order 1, weak order 1, one evaluation a step. The law of DDIM with the same eta."""

    order: ClassVar[int] = 1

    def nfe(self, n_steps: int) -> int:
        return n_steps

    def ode(self, predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return dpm1(predict, x, sigma, sigma_next)[0]


@dataclass(frozen=True)
class TwoStageAncestral(Ancestral):
    """Order 2, weak order 2, two evaluations a step."""

    order: ClassVar[int] = 2

    def nfe(self, n_steps: int) -> int:
        return 2 * n_steps


@dataclass(frozen=True)
class DPM2Ancestral(TwoStageAncestral):
    """DPM-Solver-2 to `down`, its node halfway in log sigma."""

    def ode(self, predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return dpm2(predict, x, sigma, sigma_next)[0]


@dataclass(frozen=True)
class DPMpp2SAncestral(TwoStageAncestral):
    """DPM-Solver++(2S) to `down`, its node halfway in log sigma."""

    def ode(self, predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return dpmpp2(predict, x, sigma, sigma_next)[0]
