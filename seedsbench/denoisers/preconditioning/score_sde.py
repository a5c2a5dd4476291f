"""VE and sub-VP networks of Song et al. 2021 (Eq. 13); `karras` has those of Karras et al. 2022, Table 1."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from seedsbench.denoisers.preconditioning.discrete import LevelTable
from seedsbench.denoisers.preconditioning.karras import VEPreconditioner, VPPreconditioner
from seedsbench.diffusion.schedule import Discrete


@dataclass(frozen=True)
class ScoreVE(VEPreconditioner):
    """Variance exploding; sigma_min and sigma_max are for data in [-1, 1].

    levels: number of noise levels of discrete training, in geometric progression; the network is told the
        index, counted from the largest. 0: continuous training, the network is told the logarithm.
    unit_range: training saw data in [0, 1], so the network counts noise and score in those units.
    divided: the network's output is divided by the noise level to give the score; else it is the score.
    fractional: with levels, tell a real-valued index and leave noise levels as they are in `round_sigma`.
    """

    levels: int = 0
    unit_range: bool = True
    divided: bool = True
    fractional: bool = False

    @cached_property
    def table(self) -> LevelTable:
        """All levels of discrete training, increasing."""
        ends = math.log(self.sigma_min), math.log(self.sigma_max)
        levels = torch.linspace(*ends, self.levels, dtype=torch.float64).exp()
        levels[0], levels[-1] = self.sigma_min, self.sigma_max  # exp(log(.)) is off by a bit
        return LevelTable(levels)

    @cached_property
    def trained_at(self) -> Discrete | None:
        return Discrete.at_levels(self.table.on(torch.device("cpu"))) if self.levels else None

    @property
    def _unit(self) -> float:
        """One unit of the network's noise level, in units of data in [-1, 1]."""
        return 2.0 if self.unit_range else 1.0

    def c_out(self, sigma: Tensor) -> Tensor:
        return sigma if self.divided else sigma**2 / self._unit

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.table.rounded(sigma) if self.levels and not self.fractional else sigma

    def c_noise(self, sigma: Tensor) -> Tensor:
        if not self.levels:
            return (sigma / self._unit).log()
        return (self.levels - 1 - self.table.index(sigma, fractional=self.fractional)).to(sigma.dtype)

    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        if not self.levels:
            return self._unit * c_noise.exp()
        return self.table.at(self.levels - 1 - c_noise).to(c_noise.dtype)


@dataclass(frozen=True)
class SubVPPreconditioner(VPPreconditioner):
    """The sub-VP process: x_t = m x0 + (1 - m^2) eps with m = exp(-beta_d t^2 / 4 - beta_min t / 2).

    In units of the data its noise level is sigma = 1/m - m = 2 sinh(-ln m). Options as of VP; epsilon_t is
    where the authors end sampling.
    """

    epsilon_t: float = 1e-3

    def _end(self, t: float) -> float:
        return float(self.sigma(torch.tensor(t, dtype=torch.float64)))

    def sigma(self, t: Tensor) -> Tensor:
        return 2 * torch.sinh((0.25 * self.beta_d * t + 0.5 * self.beta_min) * t)

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        decay = torch.asinh(sigma / 2)
        # The root of the quadratic in the form that keeps its digits where sigma is small.
        return 4 * decay / ((self.beta_min**2 + 4 * self.beta_d * decay).sqrt() + self.beta_min)

    def c_in(self, sigma: Tensor) -> Tensor:
        # m; the difference sqrt(1 + sigma^2/4) - sigma/2 would cancel where sigma is large
        return 1 / ((1 + sigma**2 / 4).sqrt() + sigma / 2)
