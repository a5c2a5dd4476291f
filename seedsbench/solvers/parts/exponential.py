"""One engine for exponential Runge-Kutta solvers of the reverse SDE and of its ODE.

A step from sigma_s to sigma_t in a splitting (A, y, q, N) with z = log(y_t / y_s):

    x_i = (A_i/A_s) x_s + A_i y_i z sum_j a_ij(-z) N_j + A_i (W(q_i) - W(q_s))

at nodes y_i = y_s exp(c_i z), and the same with b_j at the end. The noises of stages and end are drawn from
a law beside the tableau (stage_noise.py), by default one Brownian path W: their correlations are then exact
for any nodes, and no weight of a noise is ever typed.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.parts.split_sde import SplitSDE
from seedsbench.solvers.parts.splitting import Splitting
from seedsbench.solvers.parts.stage_noise import PATH, StageNoise
from seedsbench.solvers.parts.tableau import ExponentialTableau, Phis, Weight, evaluate
from seedsbench.solvers.parts.weak_conditions import check_law, weak_order


@dataclass(frozen=True)
class ExponentialRungeKutta(SplitSDE):
    """len(coefficients.b) evaluations a step; normals as stage_noise says, or none. Options: of SplitSDE."""

    coefficients: ClassVar[ExponentialTableau]
    stage_noise: ClassVar[StageNoise] = PATH

    def __post_init__(self) -> None:
        super().__post_init__()
        check_law(self.coefficients, self.stage_noise)  # building the tableau checks nodes and weights

    @property
    def order(self) -> int:
        return self.coefficients.order

    @property
    def weak_order(self) -> int | None:
        return weak_order(self.coefficients, self.stage_noise) if self.stochastic else None

    def nfe(self, n_steps: int) -> int:
        return len(self.coefficients.b) * n_steps

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        splitting, tableau = self.splitting, self.coefficients
        first = splitting.clock(sigma)
        z = (splitting.clock(sigma_next) / first).log()
        sigmas = [sigma, *(splitting.sigma(first * (c * z).exp()) for c in tableau.c[1:]), sigma_next]
        path = self._path(process, splitting, sigmas, noise) if self.stochastic else []
        amplitude = [splitting.amplitude(sigma) for sigma in sigmas]
        n: list[Tensor] = []
        known: Phis = {}
        value = x
        for i, weights in enumerate((*tableau.a, tableau.b)):
            if i > 0:
                value = expand(amplitude[i] / amplitude[0], x) * x
                gain = amplitude[i] * splitting.clock(sigmas[i]) * z
                row = [gain * weight for weight in self._weights(i, weights, -z, known)]
                if path:
                    row.append(amplitude[i])
                value = add_weighted(value, row, [*n, *path[i : i + 1]], owned=True)
            if i < len(tableau.b):
                n.append(splitting.nonlinear(value, process.predict(value, sigmas[i]), sigmas[i]))
        return StepResult(value)

    def _weights(self, i: int, weights: tuple[Weight, ...], z: Tensor, known: Phis) -> list[Tensor]:
        """Values of row i of the tableau (the last row is b) at z; `known` are the step's phi functions."""
        return [evaluate(weight, z, known) for weight in weights]

    def _path(
        self, process: Process, splitting: Splitting, sigmas: list[Tensor], noise: Noise
    ) -> list[Tensor]:
        """The noise in x at each of `sigmas` divided by the amplitude there, 0 at the first."""
        nodes, ratio = (*self.coefficients.c, 1.0), sigmas[-1] / sigmas[0]
        return self.stage_noise.draw(nodes, [splitting.noise_clock(sigma) for sigma in sigmas], ratio, noise)
