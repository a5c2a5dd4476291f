"""Coefficients as data: Butcher tableaus and exponential tableaus that check themselves.

An exponential Runge-Kutta method for v' = -v + N(l) in a logarithmic clock l has weights that are
sums of phi functions of the step z (Hochbruck and Ostermann 2005, section 2):

    v_i = exp(-c_i z) v_0 + z sum_j a_ij N_j,     a_ij = sum of coef * phi_k(-node z)

so a weight is stored as (coef, k, node) terms and evaluated by one routine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Term = tuple[float, int, float]  # coef * phi_k(node * z)
Weight = tuple[Term, ...]
Phis = dict[tuple[int, float], Tensor]  # phi_k(node z) by (k, node)
SERIES_TERMS = 22
Number = TypeVar("Number", float, Tensor)


def phi(k: int, z: Tensor) -> Tensor:
    """phi_0 = exp, phi_(k+1)(z) = (phi_k(z) - 1/k!)/z; float64, any shape, accurate near 0.

    For |z| < 1 the series sum z^n / (n+k)! is used (the recursion cancels there).
    """
    if z.ndim == 0:  # one step's number: only the branch it is in, the series without torch's overhead
        small = abs(float(z)) < 1
        return torch.as_tensor(_series(k, float(z)), dtype=z.dtype) if small else _recursion(k, z)
    small = z.abs() < 1
    return torch.where(small, _series(k, z), _recursion(k, torch.where(small, torch.ones_like(z), z)))


def _series(k: int, z: Number) -> Number:
    """Horner's rule; the same bits for a float and for a float64 tensor."""
    last, *terms = _series_terms(k)
    value = z * 0 + last
    for term in terms:
        value = value * z + term
    return value


@cache
def _series_terms(k: int) -> tuple[float, ...]:
    """1 / (n + k)!, the highest n first."""
    return tuple(1 / math.factorial(n + k) for n in reversed(range(SERIES_TERMS + 1)))


def _recursion(k: int, z: Tensor) -> Tensor:
    value = z.exp() if k == 0 else torch.expm1(z) / z
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def evaluate(weight: Weight, z: Tensor, known: Phis | None = None) -> Tensor:
    """Value of one weight at z (a 0-dim or (B,) float64 tensor).

    known: values at this z by (k, node), read and added to: the weights of a tableau share theirs.
    """
    known = {} if known is None else known
    total = torch.zeros_like(z)
    for coef, k, node in weight:
        if (k, node) not in known:
            known[k, node] = phi(k, node * z)
        total = total + coef * known[k, node]
    return total


@dataclass(frozen=True)
class ButcherTableau:
    """Explicit Runge-Kutta: nodes c (first 0), rows a (row i has i entries), weights b."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_shapes(self.c, self.a, self.b)
        for i, row in enumerate(self.a):
            _close(sum(row), self.c[i], f"row {i} of a must sum to c[{i}]")
        _close(sum(self.b), 1.0, "b must sum to 1")


@dataclass(frozen=True)
class ExponentialTableau:
    """Nodes c (first 0), rows a and weights b of phi-function terms, and the order they claim.

    On construction: sum_j a_ij(z) = c_i phi_1(c_i z) and sum_j b_j(z) = phi_1(z) at several z (a
    constant N is integrated exactly), and the classical conditions at z = 0 up to `order`.
    exact_for_constants: false for Lawson's methods, which are exact for N = 0 alone: then the sums are
    checked at z = 0 only.
    """

    c: tuple[float, ...]
    a: tuple[tuple[Weight, ...], ...]
    b: tuple[Weight, ...]
    order: int
    exact_for_constants: bool = True

    def __post_init__(self) -> None:
        _check_shapes(self.c, self.a, self.b)
        places = [-3.0, -0.3, 0.0, 0.7] if self.exact_for_constants else [0.0]
        for z in torch.tensor(places, dtype=torch.float64):
            known: Phis = {}
            for node, row in zip((*self.c, 1.0), (*self.a, self.b), strict=True):
                total = sum(float(evaluate(weight, z, known)) for weight in row)
                wanted = float(evaluate(((node, 1, node),), z, known))
                _close(total, wanted, f"weights at node {node} do not sum to c phi_1(c z)")
        for order, name, value, wanted in self.conditions():
            if order <= self.order:
                _close(value, wanted, f"{name} must be {wanted:.6g}")

    def conditions(self) -> list[tuple[int, str, float, float]]:
        """(order it belongs to, name, value, wanted): the classical conditions at z = 0, orders 2 to 4."""
        zero = torch.zeros((), dtype=torch.float64)
        *a, b = [[float(evaluate(weight, zero)) for weight in row] for row in (*self.a, self.b)]
        return _classical_conditions(self.c, a, b)


def _classical_conditions(
    c: Sequence[float], a: list[list[float]], b: list[float]
) -> list[tuple[int, str, float, float]]:
    """(order it belongs to, name, value, wanted) for the trees of order 2 to 4."""

    def through(v: Sequence[float]) -> list[float]:
        return [sum(w * vj for w, vj in zip(row, v, strict=False)) for row in a]

    def end(*factors: Sequence[float]) -> float:
        return sum(math.prod(f) for f in zip(b, *factors, strict=True))

    ac = through(c)
    return [
        (2, "sum b c", end(c), 1 / 2),
        (3, "sum b c^2", end(c, c), 1 / 3),
        (3, "sum b a c", end(ac), 1 / 6),
        (4, "sum b c^3", end(c, c, c), 1 / 4),
        (4, "sum b c a c", end(c, ac), 1 / 8),
        (4, "sum b a c^2", end(through([ci**2 for ci in c])), 1 / 12),
        (4, "sum b a a c", end(through(ac)), 1 / 24),
    ]


def _check_shapes(c: Sequence[float], a: Sequence[Sequence[object]], b: Sequence[object]) -> None:
    rows, stages = [len(row) for row in a], len(b)
    if len(c) != stages or rows != list(range(stages)):
        raise ValueError(f"tableau shapes disagree: c {len(c)}, a {rows}, b {stages}")


def _close(value: float, wanted: float, message: str) -> None:
    if abs(value - wanted) > 1e-10 * max(1.0, abs(wanted)):
        raise ValueError(f"{message}: got {value!r}, wanted {wanted!r}")


def minus(weights: Sequence[Weight]) -> Weight:
    """The negated sum of weights, as one weight."""
    return tuple((-coef, k, node) for weight in weights for coef, k, node in weight)


def row(node: float, *later: Weight) -> tuple[Weight, ...]:
    """A row at `node`: the first weight is what is missing from node * phi_1(node z)."""
    return (((node, 1, node), *minus(later)), *later)
