"""ER-SDE-Solver (Cui et al. 2023, Algorithms 1 to 3): Taylor expansion of an extended reverse SDE.

A noise scale phi(sigma) chooses one of the reverse SDEs that share the marginals: in unscaled coordinates,
where the paper's VE and VP forms are the same (its Propositions 1 and 2), its exact solution is

    x_t = (phi_t/phi_s) x_s + phi_t int_t^s phi'/phi^2 D dsigma + noise of variance
          sigma_t^2 - sigma_s^2 (phi_t/phi_s)^2,

and D is expanded in sigma about sigma_s, its derivatives taken from the last two or three levels. One
evaluation and one normal a step. phi = sigma is the probability-flow ODE, sigma^2 the reverse SDE.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.solvers.base import OneStage, StepResult
from seedsbench.solvers.parts.quadrature import newton, step_nodes

Past = tuple[tuple[Tensor, Tensor], ...]  # (sigma, D) of the levels before, newest first

NoiseScale = Literal["ode", "sde", "er_sde_1", "er_sde_2", "er_sde_3", "er_sde_4", "er_sde_5"]
# Any phi with phi/sigma growing (Cui et al. 2023, eq. 10 and appendix A.8); er_sde_5 is the authors' choice.
NOISE_SCALES: dict[NoiseScale, Callable[[Tensor], Tensor]] = {
    "ode": lambda s: s,
    "sde": lambda s: s**2,
    "er_sde_1": lambda s: s * ((-1 / s).exp() + 10),
    "er_sde_2": lambda s: s**1.5,
    "er_sde_3": lambda s: s**2.5,
    "er_sde_4": lambda s: s**0.9 * (1 + 100 * s**1.5).log10(),
    "er_sde_5": lambda s: s * ((s**0.3).exp() + 10),
}


@dataclass(frozen=True)
class ERSDE(OneStage):
    """max_order: terms of the expansion. The first steps, which have less history, use fewer.

    compat: paper leaves the backward difference uncorrected as the slope of max_order=3, which makes its
    order 2; by default it is the slope of the parabola through the three levels.
    """

    family: ClassVar[str] = "er_sde"
    max_order: Literal[1, 2, 3] = 3
    noise_scale: NoiseScale = "er_sde_5"
    compat: Literal["none", "paper"] = "none"

    @property
    def order(self) -> int:
        return self.max_order if self.compat == "none" else min(self.max_order, 2)

    @property
    def stochastic(self) -> bool:
        return self.noise_scale != "ode"

    @property
    def weak_order(self) -> int | None:
        # As measured. Every expansion leaves out what D gains from the noise of the step itself; the slope,
        # which has what it gained from that of the step before, makes up for it to second order.
        return min(self.max_order, 2) if self.stochastic else None

    def init(self, process: Process, x: Tensor, times: Tensor) -> Past:
        sigmas = process.schedule.sigma(times)
        share = NOISE_SCALES[self.noise_scale](sigmas) / sigmas
        # To rounding: er_sde_1 is 10 sigma at small sigma.
        if bool((share[1:] > share[:-1] * (1 + 1e-12)).any()):
            raise ValueError(
                f"noise_scale={self.noise_scale}: phi/sigma must fall with sigma and does not below "
                f"sigma={float(sigmas.max()):g}: start lower or use noise_scale=er_sde_5"
            )
        return ()

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Past, noise: Noise
    ) -> StepResult:
        phi = NOISE_SCALES[self.noise_scale]
        start, end = phi(sigma), phi(sigma_next)
        value = expand(end / start, x) * x + expand(1 - end / start, x) * denoised
        # Integrated by parts, so that phi' is not needed; levels run from sigma down to sigma_next.
        levels, measure = step_nodes(sigma, sigma_next)
        h, density = sigma_next - sigma, measure * end / phi(levels)
        moments = h - density.sum(), h**2 / 2 - (density * (levels - sigma)).sum()
        places, values = zip((sigma, denoised), *state, strict=True)
        gaps = [later - earlier for later, earlier in itertools.pairwise(places)]
        row = newton(moments, gaps, corrected=self.compat == "none")
        value = add_weighted(value, row, values, owned=True)
        if self.stochastic:
            value = value + expand(end, x) * noise.increment((sigma / start) ** 2, (sigma_next / end) ** 2)
        return StepResult(value, ((sigma, denoised), *state)[: self.max_order - 1])
