"""Dormand-Prince 5(4) on the probability-flow ODE, in the schedule's time, with adaptive steps.

Dormand and Prince 1980, Table 2; step control and first step as in Hairer, Norsett and Wanner 1993,
II.4, with the constants of scipy.integrate.RK45: on one sample the accepted steps are scipy's. It is the
probability-flow sampler of Song et al. 2021, appendix D.4 (there rtol = atol = 1e-5). Order 5. A trial
costs 6 evaluations (the last slope is the first of the next step), the start 2.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from seedsbench.checks import PositiveShare, Range
from seedsbench.diffusion.process import Process, add_weighted, each, expand
from seedsbench.solvers.parts.adaptive import AdaptiveSolver, Leg, Memory, RelativeTolerance, Trial
from seedsbench.solvers.parts.tableau import ButcherTableau

FIFTH = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
DORMAND_PRINCE = ButcherTableau(
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        FIFTH,
    ),
    b=(*FIFTH, 0.0),
)
ERROR = tuple(high - low for high, low in zip(DORMAND_PRINCE.b, FOURTH, strict=True))
SAFETY, SMALLEST_FACTOR, LARGEST_FACTOR = 0.9, 0.2, 10.0


@dataclass(frozen=True)
class RK45(AdaptiveSolver):
    """Order 5, at most 6 evaluations a trial and 2 at the start; deterministic.

    first_step: length of the first trial in the schedule's time; 0 chooses it, for the second evaluation.
    """

    order: ClassVar[int] = 5
    rtol: RelativeTolerance = 1e-5
    atol: PositiveShare = 1e-5
    first_step: Annotated[float, Range(0, 1e8)] = 0.0

    def nfe(self, n_steps: int) -> int:
        return 6 * n_steps + (1 if self.first_step else 2)

    def begin(self, process: Process, x: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Memory]:
        rows = torch.arange(len(x), device=x.device)
        slope = process.drift(x, start, rows)
        length = torch.full_like(start, self.first_step)
        if not self.first_step:
            length = self._first_length(process, x, slope, start, end, rows)
        return length, {"slope": slope, "rejected": torch.zeros_like(rows, dtype=torch.bool)}

    def _first_length(
        self, process: Process, x: Tensor, slope: Tensor, start: Tensor, end: Tensor, rows: Tensor
    ) -> Tensor:
        """The first step of Hairer, Norsett and Wanner: its Euler error is about a hundredth of tolerable."""
        gap, scale = (end - start).abs(), self.atol + x.abs() * self.rtol
        size, speed = self.mean_square_root(x / scale), self.mean_square_root(slope / scale)
        known = (size >= 1e-5) & (speed >= 1e-5)
        probe = torch.where(known, 0.01 * size / speed, 1e-6).minimum(gap)
        then = start + (end - start).sign() * probe
        bent = process.drift(x + expand(then - start, x) * slope, then, rows)
        curvature = self.mean_square_root((bent - slope) / scale) / probe
        steepest = speed.maximum(curvature)
        fitting = each(_shrink, steepest / 0.01)
        fitting = torch.where(steepest > 1e-15, fitting, (probe * 1e-3).clamp(min=1e-6))
        return (100 * probe).minimum(fitting).minimum(gap)

    def trial(self, process: Process, x: Tensor, leg: Leg, memory: Memory) -> Trial:
        h = leg.then - leg.now
        slopes, value = [memory["slope"]], x
        for node, weights in list(zip(DORMAND_PRINCE.c, DORMAND_PRINCE.a, strict=True))[1:]:
            value = x + expand(h, x) * _combine(weights, slopes)
            t = leg.then if node == 1 else leg.now + node * h
            slopes.append(process.drift(value, t, leg.rows))
        scale = self.atol + x.abs().maximum(value.abs()) * self.rtol
        error = self.mean_square_root(_combine(ERROR, slopes) * expand(h, x) / scale)
        never, always = torch.zeros_like(memory["rejected"]), torch.ones_like(memory["rejected"])
        return Trial(value, error, {"slope": slopes[-1], "rejected": never}, {"rejected": always})

    def control(self, trial: Trial, memory: Memory) -> tuple[Tensor, Tensor]:
        accept = trial.error < 1
        factor = (SAFETY * each(_shrink, trial.error)).clamp(SMALLEST_FACTOR, LARGEST_FACTOR)
        # After a rejection a step may not grow; one that is accepted may still shrink, as in scipy.
        return accept, torch.where(accept & memory["rejected"], factor.clamp(max=1), factor)


def _shrink(error: Tensor) -> Tensor:
    """What a step whose error is of order h^5 is to be multiplied by, for an error of 1."""
    return error ** (-1 / 5)


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return add_weighted(torch.zeros_like(slopes[0]), torch.tensor(weights, dtype=torch.float64), slopes)
