"""Ancestral samplers (k-diffusion): a step of the ODE to below the next level, then fresh noise up to it.

The next level t is split as t^2 = down^2 + up^2, up^2 = eta^2 t^2 (1 - t^2/s^2) for a step from s. eta = 1
has the variance of DDPM's posterior (Song, Meng and Ermon 2021, eq. 16), eta = 0 is the ODE; small steps
follow the reverse SDE of strength eta. An exact ODE step to `down` gives the exact law at t: its order is the
weak order.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Node, Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import Solver, StepResult, Unscaled
from seedsbench.solvers.dpm_solver import RULES, Rule, decay, dpm1, dpm2, dpmpp2, node
from seedsbench.solvers.parts.exponential import brownian_path

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


@dataclass(frozen=True)
class DPMppSDE(AncestralOptions):
    """r: where the second estimate is taken, in (0, 1]. noise_law: how the two noises of a step are related.

    path: both are read off one Brownian path, in the clock of the reverse SDE of strength eta; weak
    order 2. independent: two normals, k-diffusion's sampler with a plain source of normals; weak order 1.
    tree: one path in the clock sigma, k-diffusion's default source; weak order 2, though the correlation
    of the two is right in the limit of small steps only.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    r: Node = 0.5
    noise_law: Literal["path", "independent", "tree"] = "path"

    @property
    def weak_order(self) -> int | None:
        exact = super().weak_order
        return 1 if exact and self.noise_law == "independent" else exact

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        levels = node(sigma, sigma_next, self.r), sigma_next
        normals = self._normals(sigma, levels, noise)
        first = process.predict(x, sigma)
        inner = process.predict(self._to(x, sigma, levels[0], first, normals[:1]), levels[0])
        mean = first + (inner - first) / (2 * self.r)
        return StepResult(self._to(x, sigma, levels[1], mean, normals[1:]))

    def _to(
        self, x: Tensor, sigma: Tensor, sigma_next: Tensor, denoised: Tensor, normal: list[Tensor]
    ) -> Tensor:
        """The ancestral step to sigma_next with a given data prediction; no normal, no noise."""
        down, up = split(sigma, sigma_next, self.eta)
        x = decay(x, sigma, down, denoised)
        return x + expand(up * self.s_noise, x) * normal[0] if normal else x

    def _normals(self, sigma: Tensor, levels: tuple[Tensor, Tensor], noise: Noise) -> list[Tensor]:
        """A standard normal for the node and one for the end; none for the ODE."""
        if not self.stochastic:
            return []
        if self.noise_law == "independent":
            return [noise.normal() for _ in levels]
        clocks = [self._clock(level) for level in (sigma, *levels)]
        path = brownian_path(clocks, noise)
        return [w / (q - clocks[0]).sqrt() for w, q in zip(path[1:], clocks[1:], strict=True)]

    def _clock(self, sigma: Tensor) -> Tensor:
        if self.noise_law == "tree":
            return -sigma
        return sigma ** (-2 * max(self.eta**2, 1e-3))  # the floor keeps it moving for tiny eta


_Left = tuple[tuple[int, ...], Tensor]  # orders of the steps to come, the last level


@dataclass(frozen=True)
class DPMFast(AncestralOptions):
    """remainder: evaluations of the end, [3, ..., 3, 2, 1] for 0, [3, ..., 3, 1] for 1, [3, ..., 3, 2] for 2.

    One step alone is of order 1 for remainder 0 and 1, and of order 2 for 2.
    """

    family: ClassVar[str] = "dpm_solver"
    eta: Share = 0.0
    remainder: Literal[0, 1, 2] = 1

    @property
    def order(self) -> int:
        # One step of order p < 3 at the end costs O(h^(p + 1)).
        return 3 if self.remainder == 2 else 2

    def orders(self, n_steps: int) -> tuple[int, ...]:
        """The order of each step, which is its number of evaluations."""
        end = ((2, 1), (1,), (2,))[self.remainder][-n_steps:]
        return (3,) * (n_steps - len(end)) + end

    def nfe(self, n_steps: int) -> int:
        return sum(self.orders(n_steps))

    def init(self, process: Process, x: Tensor, times: Tensor) -> _Left:
        return self.orders(len(times) - 1), process.schedule.sigma(times[-1])

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: _Left, noise: Noise
    ) -> StepResult:
        (order, *later), end = state
        # Never to below the last level, where the network may know nothing: then less noise is added.
        down = split(sigma, sigma_next, self.eta)[0].clamp(min=end)
        x, _ = RULES[order](process.predict, x, sigma, down)
        up = (sigma_next**2 - down**2).clamp(min=0).sqrt()
        return StepResult(self.noisy(x, up, sigma, sigma_next, noise), (tuple(later), end))
