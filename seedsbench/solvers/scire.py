"""SciRE-Solver-2 (Li et al. 2023, single step): `scire_v1` in noise and `scire_v2` in data prediction.

Both ODEs are integrals in a clock q, dy/dq = N: y = x, q = sigma, N = (x - D)/sigma for v1; y = x/sigma,
q = 1/sigma, N = D for v2 (x unscaled). With h the step in q and a second estimate N_1 at q + r1 h,

    y_t = y + h N + h/(2 r1 phi_1(m)) (N_1 - N),     phi_1(m) = sum_(k=1..m) (-1)^(k+1)/k!

phi_1 is the paper's recursive difference: 1 for m = 1, 2/3 for m = 3 (its best on EDM's networks), 1 - 1/e
for m without end. With phi_1 = 1 this is the two-stage Runge-Kutta method of order 2. With any other the
slope is multiplied by 1/phi_1, and the order is 1. Two evaluations a step.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Node, Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import StepResult, Unscaled
from seedsbench.solvers.parts.splitting import SPLITTINGS


@dataclass(frozen=True)
class SciRE2(Unscaled):
    """prediction: noise is v1, data v2. r1: the second estimate's place in the clock.

    phi_1: the recursive difference's coefficient, 2/3 and 1 - 1/e in the paper; 1 is the plain difference.
    """

    family: ClassVar[str] = "dpm_solver"
    evaluations: ClassVar[int] = 2
    prediction: Literal["noise", "data"] = "noise"
    r1: Node = 0.5
    phi_1: Annotated[float, Range(0.5, 1)] = 2 / 3

    @property
    def order(self) -> int:
        return 2 if self.phi_1 == 1 else 1

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        splitting = SPLITTINGS[self.prediction](0.0)  # y = x / amplitude
        q = splitting.clock(sigma)
        h = splitting.clock(sigma_next) - q
        middle = splitting.sigma(q + self.r1 * h)
        y = x / expand(splitting.amplitude(sigma), x)
        first = splitting.nonlinear(x, process.predict(x, sigma), sigma)
        inner = (y + expand(self.r1 * h, x) * first) * expand(splitting.amplitude(middle), x)
        second = splitting.nonlinear(inner, process.predict(inner, middle), middle)
        y = y + expand(h, x) * (first + (second - first) / (2 * self.r1 * self.phi_1))
        return StepResult(y * expand(splitting.amplitude(sigma_next), x))
