"""DPM-Solver++ multistep on the reverse SDE: 2M SDE (Lu et al. 2022b, section 5) and 3M SDE (k-diffusion).

With lambda = -log sigma, h a step in it and z = (1 + eta) h, the SDE of rate eta,
dx = (1 + eta)(D - x) dlambda + sqrt(2 eta) sigma dW, is solved exactly but for D, which is a
polynomial in lambda through the last two or three estimates. With d1 and d2 its first derivative and
half its second one at the start of the step, in units of h:

    x_next = exp(-z) x + (1 - exp(-z)) D + z phi_2(-z) d1 + 2 z phi_3(-z) d2 + noise

eta is k-diffusion's: a rate. The SEEDS solvers' eta is its square root; they agree at 0 and 1. One
evaluation and one normal a step; the first steps use the history there is.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import expand
from seedsbench.solvers.added_noise import AddedNoise, unit_increment
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.tableau import phi
from seedsbench.solvers.unscaled import OneStage

History = tuple[tuple[Tensor, Tensor], ...]  # (denoised, log sigma), newest first


@dataclass(frozen=True)
class MultistepSDE(AddedNoise, OneStage):
    """A subclass writes `bend`."""

    family: ClassVar[str] = "k_diffusion"

    @property
    def weak_order(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # 2 as measured, not 1. D is a martingale of the reverse SDE, so extrapolating it errs by O(h^2) in
        # a step; what a single stage leaves out, that D follows the noise within the step, is as large and
        # of the other sign. A third point does not better this.
        return 2 if self.right_law else None

    @abstractmethod
    def bend(self, history: History, h: Tensor, z: Tensor) -> Tensor | None:
        """What is added for the change of D over the step; None without history."""

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        history: History = ((denoised, sigma.log()), *(state or ()))[:3]
        h = (sigma / sigma_next).log()
        z = (1 + self.eta) * h
        bend = self.bend(history, h, z)
        x = expand((-z).exp(), x) * x - expand(torch.expm1(-z), x) * denoised
        if bend is not None:
            x = x + bend
        if self.stochastic:
            std = sigma_next * (-torch.expm1(-2 * self.eta * h)).sqrt() * self.s_noise
            x = x + expand(std, x) * unit_increment(noise, sigma, sigma_next)
        return StepResult(x, history)


def difference(later: tuple[Tensor, Tensor], earlier: tuple[Tensor, Tensor], h: Tensor) -> Tensor:
    """Change of D per step h in lambda between two points of the history."""
    (now, log_now), (past, log_past) = later, earlier
    return expand(h / (log_past - log_now), now) * (now - past)


@dataclass(frozen=True)
class DPMpp2MSDE(MultistepSDE):
    """Order 2. solver_type: d1 has its exact weight ("heun") or that of D at the middle ("midpoint")."""

    order: ClassVar[int] = 2
    solver_type: Literal["midpoint", "heun"] = "midpoint"

    def bend(self, history: History, h: Tensor, z: Tensor) -> Tensor | None:
        if len(history) < 2:
            return None
        weight = -torch.expm1(-z) / 2 if self.solver_type == "midpoint" else z * phi(2, -z)
        d1 = difference(history[0], history[1], h)
        return expand(weight, d1) * d1


@dataclass(frozen=True)
class DPMpp3MSDE(MultistepSDE):
    """Order 3. compat: "k_diffusion" gives d2 half its weight, z phi_3(-z), as public code does: order 2."""

    compat: Literal["exact", "k_diffusion"] = "exact"

    @property
    def order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 3 if self.compat == "exact" else 2

    def bend(self, history: History, h: Tensor, z: Tensor) -> Tensor | None:
        if len(history) < 2:
            return None
        d1 = difference(history[0], history[1], h)
        if len(history) == 2:
            return expand(z * phi(2, -z), d1) * d1
        # Newton's divided differences, in units of h.
        (_, now), (_, past), (_, oldest) = history
        d2 = expand(h / (oldest - now), d1) * (d1 - difference(history[1], history[2], h))
        d1 = d1 + expand((past - now) / h, d1) * d2
        share = 2 if self.compat == "exact" else 1
        return expand(z * phi(2, -z), d1) * d1 + expand(share * z * phi(3, -z), d1) * d2
