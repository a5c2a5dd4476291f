"""Integrals over one step of a solver, by fixed rules, and the polynomials through its history."""

import numpy as np
import torch
from torch import Tensor

# With n nodes the rule is exact to degree 2n - 1. Over a step of width w in log sigma the error for
# sigma^p is below (p w / 2)^64 / 64!, so rounding is all that is left up to a ratio of 4000 a step.
_NODES, _WEIGHTS = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(32))


def noise_levels(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """(32,) levels between two 0-dim ones and weights w with sum w f(level) = int f(s) ds.

    Gauss-Legendre in log sigma: steps span decades, and everything that is integrated is smooth there.
    """
    start, end = sigma.log(), sigma_next.log()
    half = (end - start) / 2
    levels = (start + half * (1 + _NODES)).exp()
    return levels, half * _WEIGHTS * levels


def lagrange(nodes: Tensor, at: Tensor) -> Tensor:
    """(k, n) values at n points of the k polynomials that are 1 at one of the k nodes and 0 at the others."""
    k = len(nodes)
    rows = []
    for j in range(k):
        value = torch.ones_like(at)
        for m in range(k):
            if m != j:
                value = value * (at - nodes[m]) / (nodes[j] - nodes[m])
        rows.append(value)
    return torch.stack(rows)
