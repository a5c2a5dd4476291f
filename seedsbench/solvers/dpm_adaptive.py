"""DPM-Solver with adaptive steps (Lu et al. 2022, Algorithm 7 and appendix C), PID-controlled.

Two single-step rules that share their evaluations, of orders 1 and 2 (DPM-Solver-12) or 2 and 3
(DPM-Solver-23), are compared; the higher one is kept. The clock is lambda = -log sigma. The step is
controlled as in k-diffusion: with e_n the inverse errors of this and the last two accepted steps, the
next length is this one times 1 + atan(e_n^b1 e_(n-1)^b2 e_(n-2)^b3 - 1) (Soederlind 2003), and a step is
accepted if that factor is at least `accept_safety`. `order` evaluations a trial, one less after a rejection.

At high noise errors are next to nothing and steps grow: one of five e-foldings into the data may then be
accepted, both rules being wrong alike. So steps have a longest length, which k-diffusion's have not.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.checks import PositiveShare, Range, Share
from seedsbench.diffusion.process import Process, each, expand
from seedsbench.solvers.ancestral import NoiseFactor
from seedsbench.solvers.dpm_solver import dpm2, dpm3, end1, end2, noise_estimate
from seedsbench.solvers.parts.adaptive import AdaptiveSolver, Leg, Memory, RelativeTolerance, Trial

LEAST_ERROR = 1e-8

Gain = Annotated[float, Range(0, 10)]


@dataclass(frozen=True)
class DPMAdaptive(AdaptiveSolver):
    """Order 2 or 3, its option; defaults are k-diffusion's.

    h_init, h_max: first and longest step, in lambda; from a long one k-diffusion's measure of the error, in
    units of the state it comes from, sees nothing. pcoeff, icoeff, dcoeff: of the controller, whose factors
    lie between 0.21 and 2.6. accept_safety: least factor of an accepted trial. eta, s_noise: ancestral
    noise, of which Lu et al. have none (a step goes lower by the ODE and back up by noise); a rejected
    trial's is not used again, and no weak order is claimed. compat: "k_diffusion" goes on from the
    proposed length after a rejection of the last step, so that it may try the same step again; without it
    the step that was taken is shortened. It has no h_max. To reproduce k-diffusion set norms=batch too.
    """

    order: Literal[2, 3] = 3
    without_noise: ClassVar[dict[str, Any]] = AdaptiveSolver.without_noise | {"eta": 0.0}
    rtol: RelativeTolerance = 0.05
    atol: PositiveShare = 0.0078
    h_init: PositiveShare = 0.05
    h_max: Annotated[float, Range(0, 10, open_low=True)] = 2.0
    pcoeff: Gain = 0.0
    icoeff: Gain = 1.0
    dcoeff: Gain = 0.0
    accept_safety: Annotated[float, Range(0.25, 2)] = 0.81
    eta: Share = 0.0
    s_noise: NoiseFactor = 1.0
    compat: Literal["paper", "k_diffusion"] = "paper"

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def shortens_proposal(self) -> bool:
        return self.compat == "k_diffusion"

    def nfe(self, n_steps: int) -> int:
        return self.order * n_steps

    def clock(self, process: Process, t: Tensor) -> Tensor:
        return -process.schedule.sigma(t).log()

    def begin(self, process: Process, x: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Memory]:
        sigma, floor, none = each(torch.exp, -start), each(torch.exp, -end), torch.zeros_like(start)
        unscaled = x / expand(each(process.schedule.scale_at, sigma), x)
        memory = {"low": unscaled, "eps": torch.zeros_like(x), "known": none.bool(), "floor": floor}
        memory |= {"h": none, "last": none.clone(), "second": none.clone()}
        return torch.full_like(start, min(self.h_init, self.h_max)), memory

    def trial(self, process: Process, x: Tensor, leg: Leg, memory: Memory) -> Trial:
        schedule, predict = process.schedule, partial(process.predict, rows=leg.rows)
        sigma, arrival = each(torch.exp, -leg.now), each(torch.exp, -leg.then)
        target, added = self._split(sigma, arrival, memory["floor"])
        x = x / expand(each(schedule.scale_at, sigma), x)
        eps, new = memory["eps"].clone(), ~memory["known"]
        if bool(new.any()):  # a rejected trial has evaluated it for the others
            predict_new = partial(process.predict, rows=leg.rows[new])
            eps[new] = noise_estimate(predict_new, x[new], sigma[new])
        if self.order == 2:
            high, (eps, _) = dpm2(predict, x, sigma, target, eps=eps)
            low = end1(x, sigma, target, eps)
        else:
            high, (eps, inner, _) = dpm3(predict, x, sigma, target, eps=eps)
            low = end2(x, sigma, target, eps, inner, 1 / 3)
        tolerance = (self.rtol * low.abs().maximum(memory["low"].abs())).clamp(min=self.atol)
        error = self.mean_square_root((low - high) / tolerance)
        if leg.z is not None:
            high = high + expand(added * self.s_noise, x) * leg.z
        inverse, known = 1 / (error + LEAST_ERROR), torch.ones_like(memory["known"])
        first = memory["last"] == 0  # the controller starts as if the errors before were the same
        last = torch.where(first, inverse, memory["last"])
        taken = (leg.then - leg.now).abs()
        past = {"h": taken, "last": last, "second": torch.where(first, inverse, memory["second"])}
        accepted = {"low": low, "eps": eps, "known": ~known, "h": taken, "last": inverse, "second": last}
        rejected = {"eps": eps, "known": known, **past}
        return Trial(high * expand(each(schedule.scale_at, arrival), x), error, accepted, rejected)

    def _split(self, sigma: Tensor, arrival: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
        """The level to step down to and the std of the noise that leads back up to `arrival`."""
        up = (self.eta * arrival * (sigma**2 - arrival**2).sqrt() / sigma).minimum(arrival)
        # Never below the last level of the run, as in k-diffusion: the last step then adds no noise.
        down = (arrival**2 - up**2).clamp(min=0).sqrt().maximum(floor.minimum(arrival))
        return down, (arrival**2 - down**2).clamp(min=0).sqrt()

    def control(self, trial: Trial, memory: Memory) -> tuple[Tensor, Tensor]:
        order = 1.5 if self.eta else self.order
        exponents = (self.pcoeff + self.icoeff + self.dcoeff, -self.pcoeff - 2 * self.dcoeff, self.dcoeff)
        past = (1 / (trial.error + LEAST_ERROR), trial.rejected["last"], trial.rejected["second"])
        factor = torch.ones_like(trial.error)
        for inverse, exponent in zip(past, exponents, strict=True):
            factor = factor * each(lambda value, power=exponent / order: value**power, inverse)
        factor = 1 + each(torch.atan, factor - 1)
        accept = factor >= self.accept_safety
        longest = math.inf if self.compat == "k_diffusion" else self.h_max
        return accept, factor.minimum(longest / trial.rejected["h"])
