"""SEEDS (Gonzalez et al., NeurIPS 2023): exponential SDE solvers of one, two and three stages.

Drift orders (noise off) are 1, 2, 3. Weak orders are 1, 2, 2: with additive noise the third-order
condition Var(sum b_i W(c_i)) = 1/3 meets Cov(sum b_i W(c_i), int W) = 1/3 = Var(int W), so by
Cauchy-Schwarz it would need sum b_i W(c_i) to *be* the integral; no three stage noises sampled from
the path can do that (the paper's nodes give 3/8). Strong order is 1.

Three-stage weights for any c2, c3 are those of Hochbruck and Ostermann (2005, section 5) with gamma
restoring order 3 away from c3 = 2/3, where gamma = 0 and the scheme is the paper's.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from seedsbench.checks import Node
from seedsbench.solvers.parts.exponential import ExponentialRungeKutta
from seedsbench.solvers.parts.tableau import ExponentialTableau, Weight, row

Variant = Literal["a", "b"]


def two_stage(c2: float, variant: Variant) -> ExponentialTableau:
    """Variant a ends with phi_1/(2 c2) on the second stage, b with phi_2/c2; both of order 2."""
    last: Weight = ((0.5 / c2, 1, 1.0),) if variant == "a" else ((1 / c2, 2, 1.0),)
    return ExponentialTableau(c=(0.0, c2), a=((), row(c2)), b=row(1.0, last), order=2)


def three_stage(c2: float, c3: float, variant: Variant) -> ExponentialTableau:
    """Order 3 for any distinct nodes. Variant a ends with one divided difference (phi_2), b with two
    (phi_2 and phi_3, quadratic interpolation of N through the nodes)."""
    near = abs(c3 - 2 / 3) < 1e-9
    if not near and abs(c3 - 2 / 3) > 100 * abs(c2 - 2 / 3):
        raise ValueError(
            f"c2={c2:g} with c3={c3:g}: near c2=2/3 there is no three-stage scheme of order 3: "
            "set c3=2/3 or change c2"
        )
    if abs(c2 - c3) < 1e-3 and not (near and variant == "a"):
        raise ValueError(
            f"c2={c2:g} and c3={c3:g} must be at least 0.001 apart: weights are divided by c3 - c2"
        )
    gamma = 0.0 if near else (3 * c3**2 - 2 * c3) / (2 * c2 - 3 * c2**2)
    a32: Weight = ((c3**2 / c2, 2, c3),) + (((gamma * c2, 2, c2),) if gamma else ())
    if variant == "a":
        q = gamma * c2 + c3
        b2, b3 = ((gamma / q, 2, 1.0),), ((1 / q, 2, 1.0),)
    else:
        d2, d3 = c2 * (c2 - c3), c3 * (c3 - c2)
        b2, b3 = ((-c3 / d2, 2, 1.0), (2 / d2, 3, 1.0)), ((-c2 / d3, 2, 1.0), (2 / d3, 3, 1.0))
    return ExponentialTableau(c=(0.0, c2, c3), a=((), row(c2), row(c3, a32)), b=row(1.0, b2, b3), order=3)


@dataclass(frozen=True)
class Seeds1(ExponentialRungeKutta):
    """One evaluation a step; drift and weak order 1.

    prediction="data" is DDPM's posterior, "noise" is Euler-Maruyama in sigma; eta=0 is DDIM.
    """

    tableau: ClassVar[ExponentialTableau] = ExponentialTableau(c=(0.0,), a=((),), b=row(1.0), order=1)


@dataclass(frozen=True)
class Seeds2(ExponentialRungeKutta):
    """Two evaluations a step; drift and weak order 2. c2: place of the second stage.

    Its noise is divided by c2: at 20 steps with c2=0.1 a Gaussian's variance is 15% too large (eta=0: right).
    """

    c2: Node = 0.5
    variant: Variant = "a"

    @cached_property
    def tableau(self) -> ExponentialTableau:
        return two_stage(self.c2, self.variant)


@dataclass(frozen=True)
class Seeds3(ExponentialRungeKutta):
    """Three evaluations a step; drift order 3, weak order 2. c2, c3: places of the stages, in any order."""

    c2: Node = 1 / 3
    c3: Node = 2 / 3
    variant: Variant = "a"

    @cached_property
    def tableau(self) -> ExponentialTableau:
        return three_stage(self.c2, self.c3, self.variant)
