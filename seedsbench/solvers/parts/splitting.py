"""Splittings: which part of the reverse SDE an exponential solver carries exactly.

Everything is said in unscaled coordinates x = data + sigma noise. The reverse SDE of strength eta is
dx = (1 + eta^2)(D - x) dlambda + eta sqrt(2) sigma dW, lambda = -log sigma; eta = 1 is the reverse
SDE of SEEDS (Gonzalez et al. 2023), eta = 0 the probability-flow ODE. With k = 1 + eta^2, each
splitting writes it as

    d(x / A(sigma)) = N dy(sigma) + dB(q(sigma)),

A: the amplitude carried exactly; y: a positive clock, whose logarithm is the l of the exponential
method; q: the clock in which the noise is a standard Brownian path; N: what is left to approximate.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from seedsbench.diffusion.process import expand


@dataclass(frozen=True)
class Splitting(ABC):
    """eta in [0, 1]; sigma_data: data std of the EDM splitting (unused elsewhere)."""

    eta: float
    sigma_data: float = 0.5

    @property
    def k(self) -> float:
        return 1 + self.eta**2

    @abstractmethod
    def amplitude(self, sigma: Tensor) -> Tensor:
        """A(sigma)."""

    @abstractmethod
    def clock(self, sigma: Tensor) -> Tensor:
        """y(sigma) > 0, monotone."""

    @abstractmethod
    def sigma(self, clock: Tensor) -> Tensor:
        """Inverse of `clock`."""

    @abstractmethod
    def noise_clock(self, sigma: Tensor) -> Tensor:
        """q(sigma)."""

    @abstractmethod
    def nonlinear(self, x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        """N at the unscaled state x whose denoised image is given."""


@dataclass(frozen=True)
class DataSplitting(Splitting):
    """A = sigma^k, y = sigma^-k, N = D: decay of x is exact, D is interpolated.

    Noise over a step is sigma_t^k (W(sigma_t^(-2 eta^2)) - W(sigma_s^(-2 eta^2))).
    """

    def amplitude(self, sigma: Tensor) -> Tensor:
        return sigma**self.k

    def clock(self, sigma: Tensor) -> Tensor:
        return sigma**-self.k

    def sigma(self, clock: Tensor) -> Tensor:
        return clock ** (-1 / self.k)

    def noise_clock(self, sigma: Tensor) -> Tensor:
        return sigma ** (-2 * self.eta**2)

    def nonlinear(self, x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        return denoised


@dataclass(frozen=True)
class NoiseSplitting(Splitting):
    """A = 1, y = sigma, N = k eps with eps = (x - D)/sigma: the signal scale is exact."""

    def amplitude(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)

    def clock(self, sigma: Tensor) -> Tensor:
        return sigma

    def sigma(self, clock: Tensor) -> Tensor:
        return clock

    def noise_clock(self, sigma: Tensor) -> Tensor:
        return -((self.eta * sigma) ** 2)

    def nonlinear(self, x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        return self.k * (x - denoised) / expand(sigma, x)


@dataclass(frozen=True)
class EDMSplitting(Splitting):
    """The raw EDM network F is interpolated: D = c_skip x + c_out F (Karras et al. 2022, Table 1).

    A = (sigma^2 + S^2)^(k/2), N = -k S F with S = sigma_data, and y' = (sigma^2 + S^2)^(-(k+1)/2).
    Substituting sigma = S tan(theta), y is the integral of cos^(k-1), an incomplete beta function;
    it is sigma/(S^2 sqrt(sigma^2 + S^2)) at eta = 1 and arctan(sigma/S)/S at eta = 0, which are the
    log-SNRs of the SEEDS paper and of its ODE twin up to a constant. F is recovered from D, so any
    denoiser may be used; the splitting is the natural one for a network with that sigma_data.
    """

    def _spread(self, sigma: Tensor) -> Tensor:
        return sigma**2 + self.sigma_data**2

    def amplitude(self, sigma: Tensor) -> Tensor:
        return self._spread(sigma) ** (self.k / 2)

    def _full(self) -> float:
        # Integral of cos^(k-1) over a quarter turn, in the units of y.
        return 0.5 * float(scipy.special.beta(0.5, self.k / 2)) * self.sigma_data**-self.k

    def clock(self, sigma: Tensor) -> Tensor:
        share = (sigma**2 / self._spread(sigma)).detach().cpu().numpy()
        return torch.as_tensor(np.asarray(scipy.special.betainc(0.5, self.k / 2, share))) * self._full()

    def sigma(self, clock: Tensor) -> Tensor:
        share = np.asarray((clock / self._full()).detach().cpu().numpy())
        sine2 = scipy.special.betaincinv(0.5, self.k / 2, share)
        cosine2 = scipy.special.betaincinv(self.k / 2, 0.5, 1 - share)
        return torch.as_tensor(np.asarray(self.sigma_data * np.sqrt(sine2 / cosine2)))

    def noise_clock(self, sigma: Tensor) -> Tensor:
        return self._spread(sigma) ** (-(self.eta**2))

    def nonlinear(self, x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        s, spread = self.sigma_data, self._spread(sigma)
        c_skip, c_out = s**2 / spread, sigma * s / spread.sqrt()
        return -self.k * s * (denoised - expand(c_skip, x) * x) / expand(c_out, x)


SPLITTINGS: dict[str, type[Splitting]] = {"data": DataSplitting, "noise": NoiseSplitting, "edm": EDMSplitting}
