"""Linear multistep solvers of dx/dsigma = eps, x unscaled: iPNDM, iPNDM-v, DEIS, and k-diffusion's LMS.

The noise estimate eps = (x - D)/sigma is extrapolated from up to four levels and integrated to the next:
x_next = x + sum_j w_j eps_(i-j), one evaluation a step. The solvers differ in the weights alone. The first
steps have less history and lower order: Euler, then two levels, and so on. Their error is O(h^2) but small,
being made at high noise where eps hardly changes: it shows beyond some hundred steps.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.checks import Range
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.diffusion.schedule import VP, Schedule
from seedsbench.solvers.base import OneStage, StepResult
from seedsbench.solvers.parts.quadrature import lagrange, step_nodes

# Weights of the steps to come, and the noise estimates so far, newest first.
_State = tuple[list[Tensor], tuple[Tensor, ...]]
GAUSS = torch.tensor([0.5 - 3**-0.5 / 2, 0.5 + 3**-0.5 / 2], dtype=torch.float64)  # exact to degree 3


def adams_bashforth(k: int, h: Tensor) -> Tensor:
    """(k,) weights of the slopes of the last k <= 4 equal steps, newest first, for a step of h."""
    row = ([1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])[k - 1]
    return h * torch.tensor(row, dtype=h.dtype)


@dataclass(frozen=True)
class LinearMultistep(OneStage):
    """max_order: most levels used. lower_order_final: no more than steps left, which is steadier in few."""

    family: ClassVar[str] = "multistep"
    max_order: Literal[1, 2, 3, 4] = 4
    lower_order_final: bool = False

    @property
    def order(self) -> int:
        return self.max_order  # that of the formula; for very many steps 2, that of the first ones

    @abstractmethod
    def weights(self, schedule: Schedule, levels: Tensor, sigma_next: Tensor) -> Tensor:
        """(k,) weights of the noise estimates at k >= 1 levels, newest first, for the step to sigma_next."""

    def init(self, process: Process, x: Tensor, times: Tensor) -> _State:
        sigmas = process.schedule.sigma(times)
        steps = len(sigmas) - 1
        rows = []
        for i in range(steps):
            k = min(i + 1, self.max_order, steps - i if self.lower_order_final else steps)
            rows.append(self.weights(process.schedule, sigmas[i + 1 - k : i + 1].flip(0), sigmas[i + 1]))
        return rows, ()

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: _State, noise: Noise
    ) -> StepResult:
        (row, *later), past = state
        eps = ((x - denoised) / expand(sigma, x), *past)[: self.max_order]
        x = add_weighted(x, row, eps[: len(row)])  # the row may be shorter than the history
        return StepResult(x, (later, eps))


@dataclass(frozen=True)
class IPNDM(LinearMultistep):
    """iPNDM (Zhang and Chen 2023, section 3.3; Liu et al. 2022 for the multistep part).

    Adams-Bashforth weights of equal steps, whatever the grid: order 2 at most where steps are unequal in
    sigma.
    """

    @property
    def order(self) -> int:
        return min(self.max_order, 2)

    def weights(self, schedule: Schedule, levels: Tensor, sigma_next: Tensor) -> Tensor:
        return adams_bashforth(len(levels), sigma_next - levels[0])


@dataclass(frozen=True)
class IPNDMv(LinearMultistep):
    """iPNDM with the Adams-Bashforth weights of the grid's own steps.

    compat: diff_sampler has that toolbox's weights, which are wrong for three levels where steps are
    unequal and for four everywhere (see _released_weights).
    """

    compat: Literal["none", "diff_sampler"] = "none"

    @property
    def order(self) -> int:
        # Where steps shrink smoothly the slip in the second difference is of third order.
        return 2 if self.compat == "diff_sampler" and self.max_order == 4 else self.max_order

    def weights(self, schedule: Schedule, levels: Tensor, sigma_next: Tensor) -> Tensor:
        points, measure = step_nodes(levels[0], sigma_next)
        exact = lagrange(levels, points) @ measure
        return exact if self.compat == "none" else _released_weights(exact, levels, sigma_next)


def _released_weights(exact: Tensor, levels: Tensor, sigma_next: Tensor) -> Tensor:
    """What three slips of diff-sampler make of the weights, in Newton's form with step h and steps g before.

    In the weight (1 - a) r / 2 of the second difference the bracket stands as (1 - a r) / 2, with
    r = h (h + g1) / (g1 (g1 + g2)); in that of the third a plus stands for a minus, and in its part for
    the oldest level g1 / g2 stands for g2 / g3.
    """
    h, back = sigma_next - levels[0], levels[0] - levels  # back: 0, g1, g1 + g2, ...
    wrong = exact.clone()
    if len(levels) > 2:
        r = h * (h + back[1]) / (back[1] * back[2])
        wrong[:3] += h * (1 - r) / 2 * _difference(levels[:3])
    if len(levels) > 3:
        slip = h**2 * (h + 2 * back[1]) / (6 * back[1] * back[2] * back[3])
        wrong += h * slip * _difference(levels)
        g = back.diff()
        wrong[3] *= g[0] * g[2] / g[1] ** 2
    return wrong


def _difference(levels: Tensor) -> Tensor:
    """Weights of the divided difference over `levels`, scaled to 1 at the first."""
    gaps = levels[:, None] - levels + torch.eye(len(levels), dtype=levels.dtype)
    row = 1 / gaps.prod(1)
    return row / row[0]


@dataclass(frozen=True)
class DEIS(LinearMultistep):
    """DEIS (Zhang and Chen 2023, eq. 14 and 15): eps as a polynomial in a clock, integrated exactly.

    mode: the clock. tab: the schedule's time; rhoab: sigma, which makes it iPNDM-v; logrho: log sigma
    (diffusers). The same on schedule=linear for tab and rhoab.
    compat: diff_sampler takes for tab the time of the VP process through sigma 0.002 and 80 whatever the
    schedule and the grid, and a sum over 10000 points instead of the integral, as that toolbox does.
    """

    mode: Literal["tab", "rhoab", "logrho"] = "tab"
    compat: Literal["none", "diff_sampler"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat != "none" and self.mode != "tab":
            raise ValueError(
                f"DEIS: compat={self.compat} has no meaning for mode={self.mode}: use mode=tab or compat=none"
            )

    def weights(self, schedule: Schedule, levels: Tensor, sigma_next: Tensor) -> Tensor:
        if self.compat == "diff_sampler":
            return _summed_weights(levels, sigma_next)
        points, measure = step_nodes(levels[0], sigma_next)
        clock = {"tab": schedule.sigma_inv, "rhoab": torch.clone, "logrho": torch.log}[self.mode]
        return lagrange(clock(levels), clock(points)) @ measure


def _summed_weights(levels: Tensor, sigma_next: Tensor) -> Tensor:
    """tAB weights as diff-sampler computes them."""
    points = 10000
    if len(levels) == 1:
        return (sigma_next - levels[0])[None]
    vp = VP().through(0.002, 80.0)
    t, t_next = vp.sigma_inv(levels), vp.sigma_inv(sigma_next)
    # Both ends are among the points, so the sum is over one interval too many; so it is there.
    between = torch.linspace(float(t[0]), float(t_next), points, dtype=t.dtype)
    return lagrange(t, between) @ vp.dsigma(between) * ((t_next - t[0]) / points)


def lms_weights(nodes: list[Tensor], end: Tensor) -> Tensor:
    """Integrals from nodes[0] to `end` of the Lagrange polynomials of at most four nodes."""
    v = (torch.stack(nodes) - nodes[0]) / (end - nodes[0])
    total = []
    for j in range(len(v)):
        others = torch.cat([v[:j], v[j + 1 :]])
        total.append(((GAUSS[:, None] - others) / (v[j] - others)).prod(1).mean())
    return (end - nodes[0]) * torch.stack(total)


@dataclass(frozen=True)
class LMS(OneStage):
    """k-diffusion's LMS: Adams-Bashforth weights of the grid's own steps, like iPNDM-v to rounding.

    order: 1 to 4, the number of slopes. (Hairer, Norsett and Wanner 1993, section III.5.) k-diffusion goes on
    with the same rule from the last level to 0; here that way is the loop's `final`.
    """

    family: ClassVar[str] = "multistep"
    order: Annotated[int, Range(1, 4)] = 4

    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        slope = (x - denoised) / expand(sigma, x)
        history = ((sigma, slope), *(state or ()))[: self.order]  # newest first
        levels, slopes = zip(*history, strict=True)
        return StepResult(add_weighted(x, lms_weights(list(levels), sigma_next), slopes), history)
