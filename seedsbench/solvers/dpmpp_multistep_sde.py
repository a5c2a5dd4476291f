"""DPM-Solver++ multistep on the reverse SDE: 2M SDE (Lu et al. 2022b, section 5) and 3M SDE (k-diffusion).

With lambda = -log sigma, h a step in it and z = (1 + eta) h, the SDE of rate eta, dx = (1 + eta)(D - x)
dlambda + sqrt(2 eta) sigma dW, is solved exactly but for D: a polynomial in lambda through the last two or
three estimates. With d1 its slope and d2 half its second derivative at the start, in units of h:

    x_next = exp(-z) x + (1 - exp(-z)) D + z phi_2(-z) d1 + 2 z phi_3(-z) d2 + noise

eta is k-diffusion's: a rate. The SEEDS solvers' eta is its square root; they agree at 0 and 1. One
evaluation and one normal a step; the first steps use the history there is.
"""

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import add_weighted, expand
from seedsbench.solvers.ancestral import AddedNoise
from seedsbench.solvers.base import OneStage, StepResult
from seedsbench.solvers.parts.quadrature import newton
from seedsbench.solvers.parts.tableau import phi


@dataclass(frozen=True)
class MultistepSDE(AddedNoise, OneStage):
    """A subclass writes `moments` and says how many `values` of D it interpolates."""

    family: ClassVar[str] = "k_diffusion"
    values: ClassVar[int]

    @property
    def weak_order(self) -> int | None:
        # 2 as measured, not 1. D is a martingale of the reverse SDE, so extrapolating it errs by O(h^2) in
        # a step; what a single stage leaves out, that D follows the noise within the step, is as large and
        # of the other sign. A third point does not better this.
        return 2 if self.right_law else None

    @abstractmethod
    def moments(self, h: Tensor, z: Tensor, known: int) -> tuple[Tensor, Tensor]:
        """What the step makes of a D that grows as s and as s^2 / 2 in lambda, from `known` >= 2 values."""

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        history = ((denoised, sigma.log()), *(state or ()))[: self.values]  # newest first
        h = (sigma / sigma_next).log()
        z = (1 + self.eta) * h
        values, logs = zip(*history, strict=True)
        row = [-torch.expm1(-z)]
        if len(values) > 1:
            gaps = [earlier - later for later, earlier in itertools.pairwise(logs)]
            change = newton(self.moments(h, z, len(values)), gaps)
            row = [row[0] + change[0], *change[1:]]
        x = add_weighted(expand((-z).exp(), x) * x, row, values, owned=True)
        std = sigma_next * (-torch.expm1(-2 * self.eta * h)).sqrt()
        return StepResult(self.noisy(x, std, sigma, sigma_next, noise), history)


@dataclass(frozen=True)
class DPMpp2MSDE(MultistepSDE):
    """Order 2. solver_type: d1 has its exact weight ("heun") or that of D at the middle ("midpoint")."""

    order: ClassVar[int] = 2
    values: ClassVar[int] = 2
    solver_type: Literal["midpoint", "heun"] = "midpoint"

    def moments(self, h: Tensor, z: Tensor, known: int) -> tuple[Tensor, Tensor]:
        weight = -torch.expm1(-z) / 2 if self.solver_type == "midpoint" else z * phi(2, -z)
        return h * weight, torch.zeros_like(h)


@dataclass(frozen=True)
class DPMpp3MSDE(MultistepSDE):
    """Order 3. compat: "k_diffusion" gives d2 half its weight, z phi_3(-z), as public code does: order 2."""

    values: ClassVar[int] = 3
    compat: Literal["exact", "k_diffusion"] = "exact"

    @property
    def order(self) -> int:
        return 3 if self.compat == "exact" else 2

    def moments(self, h: Tensor, z: Tensor, known: int) -> tuple[Tensor, Tensor]:
        second = h**2 * z * phi(3, -z) if known > 2 else torch.zeros_like(h)
        return h * z * phi(2, -z), second if self.compat == "exact" else second / 2
