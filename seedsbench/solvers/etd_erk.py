"""ETD-ERK: exponential Runge-Kutta on the probability-flow ODE, the deterministic twins of SEEDS.

The schemes are those of Hochbruck and Ostermann (2005, section 5) in the splittings of
solvers/parts/splitting.py; one to three stages are SEEDS at eta = 0 (DPM-Solver++ for data, DPM-Solver for
noise prediction). Orders 1, 2, 3, 4 with 1, 2, 3, 5 evaluations a step: four stages cannot have
stiff order 4 (section 5.3), so the fourth scheme has five.
"""

from dataclasses import dataclass
from typing import ClassVar

from seedsbench.checks import Share
from seedsbench.solvers.parts.exponential import ExponentialRungeKutta
from seedsbench.solvers.parts.tableau import ExponentialTableau, Weight, minus, row
from seedsbench.solvers.seeds import Seeds1, Seeds2, Seeds3


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
    tableau: ClassVar[ExponentialTableau] = _five_stage()
    eta: Share = 0.0
