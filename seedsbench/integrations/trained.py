"""How the network of a diffusers pipeline was trained: its noise levels, timesteps and outputs.

Two kinds, in scaled coordinates x_t = a x0 + s eps: a table of betas with a^2 + s^2 = 1, and flow matching
with a + s = 1. Solvers are told sigma = s / a, the level of x_t / a = x0 + sigma eps.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from scipy.special import betaincinv
from torch import Tensor

from seedsbench.denoisers.prediction import Predicted, PredictionType, denoised_of
from seedsbench.diffusion.grid import EDM, DiscreteGrid, LogSNR, check_decreasing
from seedsbench.diffusion.process import expand
from seedsbench.diffusion.schedule import Discrete, Linear, Schedule

FLOW = "flow_prediction"
Spacing = Literal["leading", "linspace", "trailing"]
Spread = Literal["timesteps", "karras", "exponential", "beta"]
MOST_FLOW = 1 - 2.0**-12
"""Stands for flow's level 1, where no data is left and sigma = s / a would be infinite."""


class _FlowScale(Schedule):
    """The signal scale a = 1 / (1 + sigma) of flow matching."""

    def scale_at(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def dscale(self, t: Tensor) -> Tensor:
        return -self.dsigma(t) * self.scale(t) ** 2


@dataclass(frozen=True)
class FlowTime(_FlowScale):
    """Flow matching in its own time t in (0, 1): sigma(t) = t / (1 - t), so that s = t."""

    def sigma(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def dsigma(self, t: Tensor) -> Tensor:
        return (1 - t) ** -2

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)


@dataclass(frozen=True)
class FlowSigma(_FlowScale, Linear):
    """Flow matching in the time t = sigma."""


class Trained(ABC):
    """schedule: for the solver, in the network's own time; in_sigma: in the time t = sigma instead."""

    schedule: Schedule
    in_sigma: Schedule
    steps: int  # num_train_timesteps
    prediction: PredictionType

    @abstractmethod
    def timesteps(self, sigmas: Tensor) -> Tensor:
        """What the network is told at each sigma: of their shape, float64, whole numbers on a table."""

    @abstractmethod
    def level(self, timesteps: Tensor) -> Tensor:
        """sigma, float64, at timesteps: the inverse of `timesteps`."""

    @abstractmethod
    def shown(self, sigmas: Tensor) -> Tensor:
        """Noise levels as diffusers lists them; `from_shown` is the inverse."""

    @abstractmethod
    def from_shown(self, levels: Tensor) -> Tensor:
        """sigma at levels as diffusers lists them."""

    @abstractmethod
    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest level that the network was trained at."""

    @abstractmethod
    def denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised image, of x's type, in a network's output at x = x_t / a."""

    @abstractmethod
    def levels(self, n: int, spread: Spread, mu: float | None) -> Tensor:
        """(n,) float64 decreasing sigmas of a run of n - 1 steps. mu: of dynamic shifting."""

    def scale_at(self, sigma: Tensor) -> Tensor:
        """The signal scale a."""
        return self.schedule.scale_at(sigma)

    def noised(self, image: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """a image + s noise at each timestep, () or (1,) or (B,), in the image's type."""
        sigma = self.level(timesteps)
        a = self.scale_at(sigma)
        a, s = (expand(value, image).to(image) for value in (a, a * sigma))
        return a * image + s * noise


def respread(spread: Spread, levels: Tensor) -> Tensor:
    """As many levels between the ends of `levels` (decreasing), spread by another rule.

    karras: uniform in sigma^(1/7); exponential: in log sigma; beta: quantiles of the beta distribution with
    both parameters 0.6, as diffusers has them.
    """
    n, high, low = len(levels), float(levels[0]), float(levels[-1])
    if spread == "timesteps" or n == 1:
        return levels
    if spread == "beta":
        quantiles = betaincinv(0.6, 0.6, torch.linspace(1, 0, n, dtype=torch.float64).numpy())
        return low + torch.from_numpy(quantiles) * (high - low)
    rule = EDM() if spread == "karras" else LogSNR()
    return rule.levels(n, low, high, Linear())


def noise_removed(noise: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """x - sigma noise in x's type, in one buffer. sigma: ()."""
    return noise.to(x, copy=True).mul_(-sigma).add_(x)


class TrainedOnTable(Trained):
    """A table of betas. spacing, offset: diffusers' timestep_spacing and steps_offset.

    exact_end: whether the solver is exact where a table ends without signal. A network that predicts the
    noise knows nothing there, so that its runs start from a stand-in with a little signal, as diffusers'
    own do.
    """

    def __init__(
        self, table: Discrete, prediction: PredictionType, spacing: Spacing, offset: int, *, exact_end: bool
    ) -> None:
        self.prediction: PredictionType = prediction
        self._network = Predicted(None, "sample", table, img_channels=1, img_resolution=1)
        self.steps = table.num_train_timesteps
        in_limit = exact_end and prediction != "epsilon"
        self.schedule = table if in_limit else table.short_of_limit()
        self.in_sigma = Linear(scaling="vp")
        self.alphas_cumprod = 1 / (1 + self.level(torch.arange(self.steps)) ** 2)
        # Other spacings have no offset, though configurations may carry one on.
        used = offset if spacing == "leading" else 0
        self._grid = DiscreteGrid(timestep_spacing=spacing, steps_offset=used)

    def timesteps(self, sigmas: Tensor) -> Tensor:
        return self._network.time_of(sigmas)

    def level(self, timesteps: Tensor) -> Tensor:
        return self.schedule.sigma(timesteps.double())

    def shown(self, sigmas: Tensor) -> Tensor:
        return sigmas

    def from_shown(self, levels: Tensor) -> Tensor:
        return levels

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self._network.round_sigma(sigma)

    def denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise_removed(output, x, sigma)
        return denoised_of(self.prediction, output.to(x), x * self.scale_at(sigma), sigma)

    def levels(self, n: int, spread: Spread, mu: float | None) -> Tensor:
        return respread(spread, self._grid.levels(n, 0.0, math.inf, self.schedule))


class TrainedOnFlow(Trained):
    """Flow matching, where diffusers' levels are s = sigma / (1 + sigma) and timesteps num_train_timesteps s.

    shift: factor of sigma at every level of a run. to_lowest: the n levels of a run go from 1 to the
    (shifted) lowest of training, as FlowMatchEulerDiscreteScheduler's do; else they are the first n of n + 1
    from 1 to the lowest, as with use_flow_sigmas. time_shift: of dynamic shifting, by mu: "exponential",
    "linear" or "none". terminal: the last level, to which all are stretched.
    """

    def __init__(
        self,
        steps: int,
        prediction: PredictionType,
        *,
        shift: float,
        to_lowest: bool,
        time_shift: str,
        terminal: float | None,
    ) -> None:
        self.steps, self.prediction = steps, prediction
        self._shift, self._to_lowest, self._time_shift, self._terminal = (
            shift,
            to_lowest,
            time_shift,
            terminal,
        )
        self.schedule, self.in_sigma = FlowTime(), FlowSigma()

    def timesteps(self, sigmas: Tensor) -> Tensor:
        levels = self.shown(sigmas)
        return self.steps * torch.where(levels > MOST_FLOW - 1e-9, 1.0, levels)

    def level(self, timesteps: Tensor) -> Tensor:
        return self.from_shown(timesteps.double() / self.steps)

    def shown(self, sigmas: Tensor) -> Tensor:
        return sigmas / (1 + sigmas)

    def from_shown(self, levels: Tensor) -> Tensor:
        levels = levels.clamp(max=MOST_FLOW)
        return levels / (1 - levels)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma

    def denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        if self.prediction == "sample":
            return output.to(x)
        left = noise_removed(output, x, sigma)
        return left * self.scale_at(sigma) if self.prediction == FLOW else left

    def levels(self, n: int, spread: Spread, mu: float | None) -> Tensor:
        if self._to_lowest:
            # The lowest level of training is shifted once as such, and once more as a level of the run.
            lowest = 1 / self.steps
            lowest = lowest if self._dynamic else _shifted(lowest, self._shift)
            levels = torch.linspace(1, lowest, n, dtype=torch.float64)
        else:
            levels = torch.linspace(1, 1 / self.steps, n + 1, dtype=torch.float64)[:-1]
        return self.from_shown(respread(spread, self.shifted(levels, mu)))

    @property
    def _dynamic(self) -> bool:
        return self._time_shift != "none"

    def shifted(self, levels: Tensor, mu: float | None) -> Tensor:
        """(n,) levels as diffusers lists them, shifted and stretched as the options say."""
        factor = self._shift
        if self._dynamic:
            if mu is None:
                said = "use_dynamic_shifting=True needs set_timesteps(mu=...)"
                raise ValueError(f"{said}: the pipeline computes it")
            factor = math.exp(mu) if self._time_shift == "exponential" else mu
        levels = _shifted(levels, factor)
        if self._terminal:
            levels = 1 - (1 - levels) * (1 - self._terminal) / (1 - levels[-1])
        return levels


Levels = TypeVar("Levels", float, Tensor)


def _shifted(levels: Levels, factor: float) -> Levels:
    """Levels s with s / (1 - s) multiplied."""
    return factor * levels / (1 + (factor - 1) * levels)


def checked_levels(given: Sequence[float] | Tensor | Any, name: str) -> Tensor:
    """Timesteps or sigmas given by hand, (n,) float64, without the 0 that a list of sigmas may end in."""
    levels = torch.as_tensor(given, dtype=torch.float64).cpu()
    if levels.ndim != 1 or len(levels) == 0:
        raise ValueError(f"{name} have shape {tuple(levels.shape)}: expected a list of numbers")
    if name == "sigmas" and len(levels) > 1 and float(levels[-1]) == 0:
        levels = levels[:-1]
    return levels


def check_falling(sigmas: Tensor, name: str) -> None:
    """Raise ValueError unless the noise levels of a run are positive and decrease strictly."""
    if len(sigmas) > 1 or not bool((sigmas > 0).all() and sigmas.isfinite().all()):
        try:
            check_decreasing(sigmas)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
