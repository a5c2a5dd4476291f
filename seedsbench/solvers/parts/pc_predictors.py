"""Predictors of Song et al. 2021: from one noise level to the next by the reverse of a forward transition.

A predictor looks at the forward process between two levels as x = r x_next + G z, z standard normal, and
goes back with the score at x. In coordinates x = s (data + sigma noise) the transition is exactly
r = s/s_next, G^2 = s^2 (sigma^2 - sigma_next^2); the Euler discretisation of dx = f x dt + g dw is
r = 1 + f h, G^2 = g^2 h with f = s'/s, g^2 = 2 s^2 sigma sigma'.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seedsbench.diffusion.process import expand
from seedsbench.diffusion.schedule import Schedule

EARLIEST = 1e-14  # stands for time 0, where the VP process has no derivative of sigma


@dataclass(frozen=True)
class Transition:
    """r and G^2 of a forward transition, and the variance that the ancestral predictor adds."""

    ratio: Tensor
    variance: Tensor
    ancestral: Tensor


@dataclass(frozen=True)
class UniformTable:
    """The discretisation of Song et al.'s code: n equal steps from time 1, rounded down to table entries.

    own: the schedule in the solver's own coordinates.
    """

    own: Schedule
    n: int

    def entry(self, t: Tensor) -> Tensor:
        """k of t: a time that is an entry up to rounding is that entry."""
        return (t * (self.n - 1) + 1e-9).floor()

    def beta(self, t: Tensor) -> Tensor:
        """beta_k = beta(k/(n-1))/n of the VP process, where s'/s = -beta/2."""
        t = (self.entry(t) / (self.n - 1)).clamp(min=EARLIEST)
        return -2 * self.own.dscale(t) / self.own.scale(t) / self.n


def exact(own: Schedule, sigma: Tensor, sigma_next: Tensor) -> Transition:
    """Between two levels, exactly. Ancestral noise: G^2 itself for VP (eq. 4), else the posterior's."""
    scale, scale_next = own.scale_at(sigma), own.scale_at(sigma_next)
    variance = scale**2 * (sigma**2 - sigma_next**2)
    posterior = variance * (scale_next * sigma_next / (scale * sigma)) ** 2
    return Transition(scale / scale_next, variance, variance if own.scaling == "vp" else posterior)


def euler(own: Schedule, t: Tensor, h: Tensor) -> Transition:
    """The Euler discretisation over a time h > 0 with the coefficients at t."""
    sigma, scale = own.sigma(t), own.scale(t)
    variance = 2 * scale**2 * sigma * own.dsigma(t) * h
    return Transition(1 + own.dscale(t) / scale * h, variance, variance)


def tabulated(table: UniformTable, t: Tensor) -> Transition:
    """What `discretize` of the reference gives: table entries for VE and VP, Euler with 1/n for sub-VP."""
    own, k = table.own, table.entry(t)
    if own.scaling == "subvp":
        return euler(own, t, torch.ones_like(t) / table.n)
    if own.scaling == "vp":
        beta = table.beta(t)
        return Transition((1 - beta).sqrt(), beta, beta)
    sigma = own.sigma(k / (table.n - 1))
    below = own.sigma((k - 1) / (table.n - 1)) if k > 0 else torch.zeros_like(sigma)
    variance = sigma**2 - below**2
    return Transition(torch.ones_like(sigma), variance, variance * (below / sigma) ** 2)


def reverse(x: Tensor, score: Tensor, transition: Transition, weight: float) -> Tensor:
    """x - (r - 1) x + weight G^2 score (eq. 46): weight 1 for the reverse SDE, 1/2 for the ODE."""
    return expand(2 - transition.ratio, x) * x + expand(weight * transition.variance, x) * score


def ancestral(x: Tensor, score: Tensor, transition: Transition, weight: float) -> Tensor:
    """(x + weight G^2 score) / r, the mean of the posterior (eq. 4 and appendix F)."""
    return (x + expand(weight * transition.variance, x) * score) / expand(transition.ratio, x)
