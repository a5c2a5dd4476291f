"""Integrals over one step of a solver, by fixed rules, and the polynomials through its history."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# With n nodes the rule is exact to degree 2n - 1. Over a step of width w in log sigma the error for
# sigma^p is below (p w / 2)^64 / 64!, so rounding is all that is left up to a ratio of 4000 a step.
_NODES, _WEIGHTS = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(32))


def step_nodes(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """(32,) levels between two 0-dim ones and weights w with sum w f(level) = int f(s) ds.

    Gauss-Legendre in log sigma: steps span decades, and everything that is integrated is smooth there.
    """
    start, end = sigma.log(), sigma_next.log()
    half = (end - start) / 2
    levels = (start + half * (1 + _NODES)).exp()
    return levels, half * _WEIGHTS * levels


def lagrange(nodes: Tensor, at: Tensor) -> Tensor:
    """(k, n) values at n points of the k polynomials that are 1 at one of the k nodes and 0 at the others."""
    rows = [torch.ones_like(at) for _ in nodes]
    for j, m in itertools.permutations(range(len(nodes)), 2):
        rows[j] = rows[j] * (at - nodes[m]) / (nodes[j] - nodes[m])
    return torch.stack(rows)


def newton(moments: Sequence[Tensor], gaps: Sequence[Tensor], *, corrected: bool = True) -> list[Tensor]:
    """Weights of the newest value and the ones before it in a linear functional of their interpolant.

    moments: what the functional makes of s and, for two gaps, of s^2 / 2, s counted from the newest value; it
    is 0 on constants. gaps: from each value to the one before, at most two; without any the weight is 0.
    corrected: false leaves the first difference as the slope, which the parabola has half a gap before.
    """
    if not gaps:
        return [torch.zeros_like(moments[0])]
    slope = moments[0] / gaps[0]
    if len(gaps) == 1:
        return [slope, -slope]
    bend = (2 * moments[1] + (moments[0] * gaps[0] if corrected else 0)) / (gaps[0] + gaps[1])
    return [slope + bend / gaps[0], -slope - bend / gaps[0] - bend / gaps[1], bend / gaps[1]]
