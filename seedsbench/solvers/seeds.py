"""SEEDS (Gonzalez et al., NeurIPS 2023), exponential SDE solvers, and ETD-ERK, their deterministic twins.

SEEDS: drift orders (noise off) are 1, 2, 3. Weak orders are 1, 2, 2: with additive noise the third-order
condition Var(sum b_i W(c_i)) = 1/3 meets Cov(sum b_i W(c_i), int W) = 1/3 = Var(int W), so by
Cauchy-Schwarz it would need sum b_i W(c_i) to *be* the integral; no three stage noises sampled from
the path can do that (the paper's nodes give 3/8). Strong order is 1.

Three-stage weights for any c2, c3 are those of Hochbruck and Ostermann (2005, section 5) with gamma
restoring order 3 away from c3 = 2/3, where gamma = 0 and the scheme is the paper's.

ETD-ERK: the same schemes on the probability-flow ODE (DPM-Solver++ for data, DPM-Solver for noise
prediction), of orders 1, 2, 3, 4 with 1, 2, 3, 5 evaluations a step: four stages cannot have stiff order 4
(Hochbruck and Ostermann 2005, section 5.3), so the fourth scheme has five.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from seedsbench.checks import Node, Share
from seedsbench.solvers.parts.exponential import ExponentialRungeKutta
from seedsbench.solvers.parts.tableau import ExponentialTableau, Weight, minus, row

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

    coefficients: ClassVar[ExponentialTableau] = ExponentialTableau(c=(0.0,), a=((),), b=row(1.0), order=1)


@dataclass(frozen=True)
class Seeds2(ExponentialRungeKutta):
    """Two evaluations a step; drift and weak order 2. c2: place of the second stage.

    Its noise is divided by c2: at 20 steps with c2=0.1 a Gaussian's variance is 15% too large (eta=0: right).
    """

    c2: Node = 0.5
    variant: Variant = "a"

    @cached_property
    def coefficients(self) -> ExponentialTableau:
        return two_stage(self.c2, self.variant)


@dataclass(frozen=True)
class Seeds3(ExponentialRungeKutta):
    """Three evaluations a step; drift order 3, weak order 2. c2, c3: places of the stages, in any order."""

    c2: Node = 1 / 3
    c3: Node = 2 / 3
    variant: Variant = "a"

    @cached_property
    def coefficients(self) -> ExponentialTableau:
        return three_stage(self.c2, self.c3, self.variant)


def _five_stage() -> ExponentialTableau:
    """Hochbruck and Ostermann 2005, eq. 5.19: nodes 0, 1/2, 1/2, 1, 1/2 and stiff order 4.

    With psi_k,i = c_i^k phi_k(c_i z) - sum_j a_ij c_j^(k-1) / (k-1)!, the defect of stage i, the
    conditions of their Table 2 are met so: b_2 = b_3 = 0 and exact quadrature of N = 1, l, l^2 by b;
    psi_2,4 = psi_2,5 = 0; a_i2 = a_i3 in rows 4 and 5, which cancels psi_2,2 = -psi_2,3; and
    b_4 psi_3,4 + b_5 psi_3,5 = 0 with the values of b at z = 0, 1/6 and 2/3.
    """
    a32: Weight = ((1.0, 2, 0.5),)
    a42: Weight = ((1.0, 2, 1.0),)
    # psi_3,5 = -psi_3,4 / 4 solved for a_52, with a_52 + a_54 = phi_2(z/2) / 4 from psi_2,5 = 0.
    a52: Weight = ((0.5, 2, 0.5), (-1.0, 3, 1.0), (0.25, 2, 1.0), (-0.5, 3, 0.5))
    a54: Weight = ((0.25, 2, 0.5), *minus((a52,)))
    b4: Weight = ((-1.0, 2, 1.0), (4.0, 3, 1.0))
    b5: Weight = ((4.0, 2, 1.0), (-8.0, 3, 1.0))
    return ExponentialTableau(
        c=(0.0, 0.5, 0.5, 1.0, 0.5),
        a=((), row(0.5), row(0.5, a32), row(1.0, a42, a42), row(0.5, a52, a52, a54)),
        b=row(1.0, (), (), b4, b5),
        order=4,
    )


@dataclass(frozen=True)
class EtdErk1(Seeds1):
    """One evaluation a step, order 1. With data or noise prediction this is DDIM."""

    family: ClassVar[str] = "etd"
    eta: Share = 0.0


@dataclass(frozen=True)
class EtdErk2(Seeds2):
    """Two evaluations a step, order 2."""

    family: ClassVar[str] = "etd"
    eta: Share = 0.0


@dataclass(frozen=True)
class EtdErk3(Seeds3):
    """Three evaluations a step, order 3."""

    family: ClassVar[str] = "etd"
    eta: Share = 0.0


@dataclass(frozen=True)
class EtdErk4(ExponentialRungeKutta):
    """Five evaluations a step, order 4. The nodes are fixed."""

    family: ClassVar[str] = "etd"
    coefficients: ClassVar[ExponentialTableau] = _five_stage()
    eta: Share = 0.0
