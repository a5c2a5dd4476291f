"""Ancestral samplers (k-diffusion): a step of the ODE to below the next level, then fresh noise up to it.

The next level t is split as t^2 = down^2 + up^2, up^2 = eta^2 t^2 (1 - t^2/s^2) for a step from s. eta = 1
has the variance of DDPM's posterior (Song, Meng and Ermon 2021, eq. 16), eta = 0 is the ODE; small steps
follow the reverse SDE of strength eta. An exact ODE step to `down` gives the exact law at t: its order is the
weak order.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from seedsbench.checks import Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import Solver, StepResult, Unscaled
from seedsbench.solvers.dpm_solver import Rule, dpm1, dpm2, dpmpp2

NoiseFactor = Annotated[float, Range(0, 10)]


@dataclass(frozen=True)
class AddedNoise(Solver):
    """eta in [0, 1]: 0 the ODE, 1 the reverse SDE; s_noise: factor on the noise added."""

    eta: Share = 1.0
    s_noise: NoiseFactor = 1.0

    @property
    def stochastic(self) -> bool:
        return self.eta > 0 and self.s_noise > 0

    @property
    def right_law(self) -> bool:
        """Whether the marginal laws are those of the data, so that a weak order makes sense."""
        return self.stochastic and self.s_noise == 1

    def noisy(self, x: Tensor, std: Tensor, sigma: Tensor, sigma_next: Tensor, noise: Noise) -> Tensor:
        """x with noise of this std, times s_noise, in a step from sigma to sigma_next.

        Its normal is the increment, made unit, of one path in the clock sigma^-2, that of the reverse SDE at
        eta = 1: a fine and a coarse run can share the path.
        """
        if not self.stochastic:
            return x
        start, end = sigma**-2, sigma_next**-2
        return x + expand(std * self.s_noise, x) * (noise.increment(start, end) / (end - start).sqrt())


def split(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(down, up) with down^2 + up^2 = sigma_next^2; up is capped at sigma_next for eta > 1."""
    u = (sigma_next / sigma) ** 2
    # As a sum of positive terms: sigma_next^2 - up^2 cancels in a long step at eta = 1.
    down = sigma_next * ((1 - eta**2) + eta**2 * u).clamp(min=0).sqrt()
    return down, sigma_next * (eta * (1 - u).sqrt()).clamp(max=1)


@dataclass(frozen=True)
class AncestralOptions(AddedNoise, Unscaled):
    """eta sets how far below the next level a step goes: see `split`."""

    family: ClassVar[str] = "k_diffusion"
    # Not s_noise: without `up` the step must not go to `down` either. The order is that of the ODE step.
    without_noise: ClassVar[dict[str, Any]] = {"eta": 0.0}

    @property
    def weak_order(self) -> int | None:
        return self.order if self.right_law else None


@dataclass(frozen=True)
class Ancestral(AncestralOptions):
    """Order and weak order are those of `rule`, a step of the probability-flow ODE."""

    rule: ClassVar[Rule]

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        down, up = split(sigma, sigma_next, self.eta)
        x, _ = self.rule(process.predict, x, sigma, down)
        return StepResult(self.noisy(x, up, sigma, sigma_next, noise))


@dataclass(frozen=True)
class EulerAncestral(Ancestral):
    """Euler to `down`: one evaluation a step. The law of DDIM with the same eta."""

    order: ClassVar[int] = 1
    rule = staticmethod(dpm1)


@dataclass(frozen=True)
class DPM2Ancestral(Ancestral):
    """DPM-Solver-2 to `down`, its node halfway in log sigma: two evaluations a step."""

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    rule = staticmethod(dpm2)


@dataclass(frozen=True)
class DPMpp2SAncestral(DPM2Ancestral):
    """DPM-Solver++(2S) to `down`, its node halfway in log sigma: two evaluations a step."""

    rule = staticmethod(dpmpp2)
