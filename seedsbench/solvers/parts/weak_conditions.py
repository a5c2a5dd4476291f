"""Conditions for the weak order of Runge-Kutta methods with additive Gaussian noise, and the order they give.

For dv = N(v) dy + noise over a step h, with stages V_i = v + h sum_j a_ij N(V_j) + sqrt(h) eta_i and the end
v + h sum_i b_i N(V_i) + sqrt(h) xi, Var xi = 1, let V_i = Var eta_i, g_i = Cov(eta_i, xi) and
C_ij = Cov(eta_i, eta_j). Mean and covariance of the step agree with the SDE's up to h^4 for smooth N if the
conditions of drift order 3 hold (tableau.py) and those below: one for each way of pairing the noises of a
forest of at most three evaluations and pairs (docs/weak-order-3.md). They are for short steps, so weights are
taken at z = 0, nodes as times and the law at ratio 1.

If the Jacobian of N is symmetric, as that of an exact denoiser is (it is a covariance over sigma^2: Tweedie),
two terms are one and two conditions merge: `symmetric`. Related: Debrabant 2010 (BIT 50:541), order 3 for
additive noise without exponential part.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from seedsbench.solvers.parts.stage_noise import StageNoise, inside
from seedsbench.solvers.parts.tableau import ExponentialTableau, evaluate

_CLOSE = 1e-10


@dataclass(frozen=True)
class Condition:
    """What a sum over the coefficients must be for the weak order `order`."""

    order: int
    name: str
    value: float
    wanted: float

    @property
    def holds(self) -> bool:
        return abs(self.value - self.wanted) < _CLOSE


def weak_conditions(
    tableau: ExponentialTableau, law: StageNoise, *, symmetric: bool = True
) -> list[Condition]:
    """The conditions on the noise up to order 3. symmetric: those for N with a symmetric Jacobian."""
    a, b = _weights(tableau)
    c, joint = np.array(tableau.c), joint_covariance(tableau, law)
    cov, g = joint[:-1, :-1], joint[:-1, -1]
    v = np.diag(cov)
    crossed, between = float(b @ a @ g), float(b @ cov @ b)
    merged = [Condition(3, "2 sum b a g + sum b b C", 2 * crossed + between, 2 / 3)]
    apart = [Condition(3, "sum b a g", crossed, 1 / 6), Condition(3, "sum b b C", between, 1 / 3)]
    return [
        Condition(2, "sum b V", float(b @ v), 1 / 2),
        Condition(2, "sum b g", float(b @ g), 1 / 2),
        Condition(3, "sum b c V", float(b @ (c * v)), 1 / 3),
        Condition(3, "sum b c g", float(b @ (c * g)), 1 / 3),
        Condition(3, "sum b a V", float(b @ a @ v), 1 / 6),
        Condition(3, "sum b V^2", float(b @ v**2), 1 / 3),
        Condition(3, "sum b V g", float(b @ (v * g)), 1 / 3),
        Condition(3, "sum b g^2", float(b @ g**2), 1 / 3),
        Condition(3, "sum b a C", float(b @ (a * cov).sum(1)), 1 / 6),
        *(merged if symmetric else apart),
    ]


@cache
def weak_order(tableau: ExponentialTableau, law: StageNoise, *, symmetric: bool = True) -> int:
    """The weak order that coefficients and law have, at most 3: that of the drift, or less."""
    broken = [one.order for one in weak_conditions(tableau, law, symmetric=symmetric) if not one.holds]
    return min(tableau.order, 3, *(order - 1 for order in broken))


def joint_covariance(tableau: ExponentialTableau, law: StageNoise) -> np.ndarray:
    """(s + 1, s + 1) of short steps, scaled to length 1: of the stages' noises, and last the end's."""
    nodes = (*tableau.c, 1.0)
    places = inside(nodes)
    times = [torch.tensor(nodes[i], dtype=torch.float64) for i in places]
    found = law.covariance(times, torch.ones((), dtype=torch.float64))
    joint = np.zeros((len(nodes), len(nodes)))
    joint[np.ix_(places, places)] = [[float(value) for value in row] for row in found]
    at_the_end = [i for i, node in enumerate(nodes) if node == 1]
    joint[at_the_end] = joint[-1]
    joint[:, at_the_end] = joint[:, -1:]
    return joint


@cache
def check_law(tableau: ExponentialTableau, law: StageNoise) -> None:
    """Raise ValueError unless the law's covariances are those of some Gaussian noises, on short steps."""
    joint = joint_covariance(tableau, law)
    if not np.allclose(joint, joint.T, atol=_CLOSE):
        raise ValueError(f"{law}: covariances of stages {tableau.c} must be symmetric, got {joint.tolist()}")
    if (lowest := float(np.linalg.eigvalsh(joint)[0])) < -_CLOSE:
        raise ValueError(
            f"{law}: no noises at {tableau.c} have these covariances (an eigenvalue is {lowest:.3g}): "
            "change them less from the path's"
        )


def _weights(tableau: ExponentialTableau) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of short steps, a (s, s) with zeros on and above the diagonal, b (s,)."""
    zero, stages = torch.zeros((), dtype=torch.float64), len(tableau.b)
    rows = [[float(evaluate(weight, zero)) for weight in row] for row in (*tableau.a, tableau.b)]
    filled = np.array([row + [0.0] * (stages - len(row)) for row in rows])
    return filled[:-1], filled[-1]
