"""RES, multistep (Zhang et al. 2023, "refined exponential solver"): `res_2m` and `res_3m`.

With h the step in lambda = -log sigma, z = -h, and earlier data predictions at c_2, c_3 < 0 in units of h,

    x_t = (sigma_t/sigma_s) x_s + h (b_1 D_s + b_2 D_2 + b_3 D_3),     b_1 = phi_1(z) - b_2 - b_3.

2M: b_2 = phi_2(z) / c_2, a line through two predictions, exactly integrated. 3M takes the weights of the
three-stage single step (Hochbruck and Ostermann 2005, eq. 5.8) at these nodes, as RES4LYF has it:
b_3 = phi_2 / (gamma c_2 + c_3), b_2 = gamma b_3, gamma = (3 c_3^2 - 2 c_3) / (2 c_2 - 3 c_2^2), so that the
line is exact and the parabola right at z = 0, which is enough for order 3. One evaluation a step. The first
steps use the history there is, as ComfyUI's `res_multistep`; RES4LYF begins with single steps.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.solvers.base import OneStage, StepResult
from seedsbench.solvers.parts.exponential_adams import History, adams_weights, phi_table


@dataclass(frozen=True)
class Res2M(OneStage):
    """Deterministic, order 2: DPM-Solver++(2M) with the slope's weight integrated exactly."""

    family: ClassVar[str] = "dpm_solver"
    order: ClassVar[int] = 2
    values: ClassVar[int] = 2  # predictions that a step uses

    def init(self, process: Process, x: Tensor, times: Tensor) -> History:
        sigmas = process.schedule.sigma(times)
        return History(phi_table((sigmas[1:] / sigmas[:-1]).log()))

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: History, noise: Noise
    ) -> StepResult:
        h = (sigma / sigma_next).log()
        state = state.seen(denoised, h, self.values)
        weights = self.weights(state.phis[state.taken], state.nodes())
        x = expand(sigma_next / sigma, x) * x
        x = add_weighted(x, [h * weight for weight in weights], state.outputs, owned=True)
        return StepResult(x, replace(state, taken=state.taken + 1))

    def weights(self, phis: Tensor, nodes: list[Tensor]) -> list[Tensor]:
        """b_j of the predictions at `nodes`, newest first. phis: (4,) phi_1 to phi_4 at z."""
        return adams_weights(phis, nodes, "exact")


@dataclass(frozen=True)
class Res3M(Res2M):
    """Deterministic, order 3. Its second step is 2M."""

    order: ClassVar[int] = 3
    values: ClassVar[int] = 3

    def weights(self, phis: Tensor, nodes: list[Tensor]) -> list[Tensor]:
        if len(nodes) < 3:
            return super().weights(phis, nodes)
        _, c2, c3 = nodes
        gamma = (3 * c3**2 - 2 * c3) / (2 * c2 - 3 * c2**2)
        b3 = phis[1] / (gamma * c2 + c3)
        b2 = gamma * b3
        return [phis[0] - b2 - b3, b2, b3]
