"""DPM-Solver++(2S) on the reverse SDE (k-diffusion's DPM++ SDE; Lu et al. 2022b, section 5).

Each stage is an ancestral step from the start of the step (solvers/ancestral.py): to the node r in
log sigma, and with the data prediction through both estimates to the end. eta = 0 is
DPM-Solver++(2S). Order 2, two evaluations and two normals a step.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Node
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.ancestral import AncestralOptions, split
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.dpm_solver import decay, node
from seedsbench.solvers.parts.stage_noise import brownian_path


@dataclass(frozen=True)
class DPMppSDE(AncestralOptions):
    """r: where the second estimate is taken, in (0, 1]. noise_law: how the two noises of a step are related.

    path: both are read off one Brownian path, in the clock of the reverse SDE of strength eta; weak
    order 2. independent: two normals, k-diffusion's sampler with a plain source of normals; weak order 1.
    tree: one path in the clock sigma, k-diffusion's default source; weak order 2, though the correlation
    of the two is right in the limit of small steps only.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    r: Node = 0.5
    noise_law: Literal["path", "independent", "tree"] = "path"

    @property
    def weak_order(self) -> int | None:
        exact = super().weak_order
        return 1 if exact and self.noise_law == "independent" else exact

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        levels = node(sigma, sigma_next, self.r), sigma_next
        normals = self._normals(sigma, levels, noise)
        first = process.predict(x, sigma)
        inner = process.predict(self._to(x, sigma, levels[0], first, normals[:1]), levels[0])
        mean = first + (inner - first) / (2 * self.r)
        return StepResult(self._to(x, sigma, levels[1], mean, normals[1:]))

    def _to(
        self, x: Tensor, sigma: Tensor, sigma_next: Tensor, denoised: Tensor, normal: list[Tensor]
    ) -> Tensor:
        """The ancestral step to sigma_next with a given data prediction; no normal, no noise."""
        down, up = split(sigma, sigma_next, self.eta)
        x = decay(x, sigma, down, denoised)
        return x + expand(up * self.s_noise, x) * normal[0] if normal else x

    def _normals(self, sigma: Tensor, levels: tuple[Tensor, Tensor], noise: Noise) -> list[Tensor]:
        """A standard normal for the node and one for the end; none for the ODE."""
        if not self.stochastic:
            return []
        if self.noise_law == "independent":
            return [noise.normal() for _ in levels]
        clocks = [self._clock(level) for level in (sigma, *levels)]
        path = brownian_path(clocks, noise)
        return [w / (q - clocks[0]).sqrt() for w, q in zip(path[1:], clocks[1:], strict=True)]

    def _clock(self, sigma: Tensor) -> Tensor:
        if self.noise_law == "tree":
            return -sigma
        return sigma ** (-2 * max(self.eta**2, 1e-3))  # the floor keeps it moving for tiny eta
