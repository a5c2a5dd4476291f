"""Schedules of Song et al. 2021 beside VP: the sub-VP process, and VE in the time of that paper."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedsbench.checks import Level
from seedsbench.diffusion.schedule import VP, Scaling, Schedule


@dataclass(frozen=True)
class SubVP(VP):
    """The sub-VP process of Song et al. 2021 (eq. 29): VP's signal scale, variance (1 - s^2)^2.

    With B the integral of beta, s = exp(-B/2) and sigma = (1 - s^2)/s = 2 sinh(B/2). Constants as VP's.
    """

    scaling: Scaling = "subvp"

    def sigma(self, t: Tensor) -> Tensor:
        return 2 * torch.sinh(0.25 * self.beta_d * t**2 + 0.5 * self.beta_min * t)

    def dsigma(self, t: Tensor) -> Tensor:
        return 0.5 * (self.beta_min + self.beta_d * t) * (self.sigma(t) ** 2 + 4).sqrt()

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return self.when(2 * torch.asinh(sigma / 2))

    def integral(self, sigma: float) -> float:
        return 2 * math.asinh(sigma / 2)


@dataclass(frozen=True)
class Geometric(Schedule):
    """sigma(t) = sigma_0 (sigma_1 / sigma_0)^t: the variance-exploding SDE in the time of Song et al. 2021.

    fit_range: sigma_0 and sigma_1 are the ends of the sampled range (t = 0 and 1), as Song et al. choose
    them; without it they are used as given. `VE` is the same process in the time of Karras et al.
    """

    sigma_0: Level = 0.01
    sigma_1: Level = 50.0
    fit_range: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma_0 < self.sigma_1:
            raise ValueError(
                f"Geometric: sigma_0={self.sigma_0}, sigma_1={self.sigma_1}; need 0 < sigma_0 < sigma_1"
            )

    def _rate(self) -> float:
        return math.log(self.sigma_1 / self.sigma_0)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_0 * (self._rate() * t).exp()

    def dsigma(self, t: Tensor) -> Tensor:
        return self._rate() * self.sigma(t)

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_0).log() / self._rate()

    def through(self, sigma_min: float, sigma_max: float) -> "Geometric":
        if not self.fit_range:
            return self
        return replace(self, sigma_0=sigma_min, sigma_1=sigma_max, fit_range=False)
