"""The adaptive solver of the reverse SDE of Jolicoeur-Martineau et al. 2021 ("Gotta Go Fast", Algorithm 1).

Euler-Maruyama and stochastic improved Euler with the same normal z, on dx = (f x - g^2 score) dt + g dw
in the schedule's time and coordinates (f = s'/s, g^2 = 2 s^2 sigma sigma'):

    x'  = x - h (f x - g^2 score)(x, t) + sqrt(h) g(t) z
    x~  = x - h (f x - g^2 score)(x', t - h) + sqrt(h) g(t - h) z
    x'' = (x' + x~)/2

The error is the difference of x' and x'' in units of max(atol, rtol max(|x'|, |x'_prev|)); an accepted
step keeps x'' (extrapolation). Two evaluations a trial, one after a rejection. As published, a rejected
trial draws fresh noise for the next: acceptance depends on the noise, which biases the law a little.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.checks import PositiveShare, Range
from seedsbench.diffusion.process import Process, each, expand
from seedsbench.solvers.parts.adaptive import AdaptiveSolver, Leg, Memory, RelativeTolerance, Trial


@dataclass(frozen=True)
class AdaptiveSDE(AdaptiveSolver):
    """Drift order 2, weak order 2 while every step is accepted; defaults are the paper's.

    error_norm: root mean square over elements (q = 2), or the largest (q = inf). safety (theta), exponent
    (r): the next step is safety h error^-r. h_init: first step, as a share of the way (1 to 0 in the paper's
    time).
    """

    order: ClassVar[int] = 2
    weak_order: ClassVar[int | None] = 2
    stochastic: ClassVar[bool] = True
    evaluations: ClassVar[int] = 2
    rtol: RelativeTolerance = 0.02
    atol: PositiveShare = 0.0078
    error_norm: Literal["l2", "linf"] = "l2"
    safety: PositiveShare = 0.9
    exponent: Annotated[float, Range(0.5, 1)] = 0.9
    h_init: PositiveShare = 0.01

    def begin(self, process: Process, x: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Memory]:
        none = torch.zeros_like(start)
        memory = {"low": x.clone(), "drift": torch.zeros_like(x), "known": none.bool()}
        return self.h_init * (end - start).abs(), memory

    def trial(self, process: Process, x: Tensor, leg: Leg, memory: Memory) -> Trial:
        h, drift, new = leg.now - leg.then, memory["drift"].clone(), ~memory["known"]
        if bool(new.any()):
            drift[new] = process.drift(x[new], leg.now[new], leg.rows[new], reverse_sde=True)
        assert leg.z is not None
        z = expand(h.sqrt(), x) * leg.z
        low = x - expand(h, x) * drift + expand(_diffusion(process, leg.now), x) * z
        second = x - expand(h, x) * process.drift(low, leg.then, leg.rows, reverse_sde=True)
        high = 0.5 * (low + second + expand(_diffusion(process, leg.then), x) * z)
        tolerance = (self.rtol * low.abs().maximum(memory["low"].abs())).clamp(min=self.atol)
        known = torch.ones_like(memory["known"])
        accepted = {"low": low, "drift": drift, "known": ~known}
        error = self._norm((low - high) / tolerance)
        return Trial(high, error, accepted, {"drift": drift, "known": known})

    def _norm(self, error: Tensor) -> Tensor:
        if self.error_norm == "l2":
            return self.mean_square_root(error)
        largest = error.flatten(1).abs().amax(1)
        return largest.max().expand_as(largest) if self.norms == "batch" else largest

    def control(self, trial: Trial, memory: Memory) -> tuple[Tensor, Tensor]:
        return trial.error <= 1, self.safety * each(lambda error: error**-self.exponent, trial.error)


def _diffusion(process: Process, t: Tensor) -> Tensor:
    """g(t) = s sqrt(2 sigma sigma')."""
    schedule = process.schedule
    return each(lambda t: schedule.scale(t) * (2 * schedule.sigma(t) * schedule.dsigma(t)).sqrt(), t)
