"""SEEDS of weak order 3: exponential SDE solvers whose stage noises are not all read off the path.

No number of stages on the path has weak order 3 (solvers/seeds.py says why), and three explicit stages have
it with no Gaussian noise at all if the drift is any: `Seeds4` and `Seeds3Twice` take four. The drift of a
reverse SDE has a symmetric Jacobian, since a score is a gradient; two of the conditions then merge, and three
stages are enough: `Seeds3Tilted`. Derivation, conditions and measurements are in docs/weak-order-3.md; the
conditions are checked in parts/weak_conditions.py, from which `weak_order` follows.

No exponential SDE solver of weak order 3 for diffusion models is known to us. Related: Debrabant 2010 (BIT
50:541), four-stage methods of weak order 3 for additive noise, without exponential part.
"""

from dataclasses import dataclass
from typing import ClassVar

from seedsbench.solvers.parts.exponential import ExponentialRungeKutta
from seedsbench.solvers.parts.stage_noise import Redrawn, StageNoise, Tilted
from seedsbench.solvers.parts.tableau import ExponentialTableau, Weight, row
from seedsbench.solvers.seeds import three_stage


def _kutta() -> ExponentialTableau:
    """ETD3RK (Cox and Matthews 2002, eq. 23 to 25), its middle stage evaluated twice by the same row."""
    whole: Weight = ((1.0, 1, 1.0),)
    middle: Weight = ((2.0, 2, 1.0), (-4.0, 3, 1.0))
    last: Weight = ((-1.0, 2, 1.0), (4.0, 3, 1.0))
    rows = ((), row(0.5), row(0.5, ()), row(1.0, whole, whole))
    return ExponentialTableau(c=(0.0, 0.5, 0.5, 1.0), a=rows, b=row(1.0, middle, middle, last), order=3)


def last_stage_twice(once: ExponentialTableau) -> ExponentialTableau:
    """The scheme with its last stage evaluated twice, each with half its weight."""
    half: Weight = tuple((coef / 2, k, node) for coef, k, node in once.b[-1])
    rows = (*once.a, (*once.a[-1], ()))
    return ExponentialTableau(c=(*once.c, once.c[-1]), a=rows, b=(*once.b[:-1], half, half), order=once.order)


@dataclass(frozen=True)
class Seeds4(ExponentialRungeKutta):
    """Four evaluations and three normals a step; drift and weak order 3, for any drift.

    The two middle stages share half the end's noise, and the rest of theirs is correlated by 1/2.
    """

    coefficients: ClassVar[ExponentialTableau] = _kutta()
    stage_noise: ClassVar[StageNoise] = Redrawn(correlation=1 / 2)


@dataclass(frozen=True)
class Seeds3Twice(ExponentialRungeKutta):
    """Four evaluations and four normals a step; drift and weak order 3, for any drift.

    SEEDS-3 at c2 = 2/5, where the third stage's two noises are independent given the second's and the end's.
    """

    coefficients: ClassVar[ExponentialTableau] = last_stage_twice(three_stage(2 / 5, 2 / 3, "a"))
    stage_noise: ClassVar[StageNoise] = Redrawn(correlation=0.0)


@dataclass(frozen=True)
class Seeds3Tilted(ExponentialRungeKutta):
    """Three evaluations and three normals a step, SEEDS-3's own; drift order 3, weak order 3 for a score.

    It meets the conditions for a drift with a symmetric Jacobian, which an exact denoiser has, and a network
    nearly. For a general drift its weak order is 2. Its second stage's noise has 7/8 of the path's covariance
    with the end.
    """

    coefficients: ClassVar[ExponentialTableau] = three_stage(1 / 3, 2 / 3, "a")
    stage_noise: ClassVar[StageNoise] = Tilted(1 / 8)
