"""Correlations between the bridges of different steps, which give a multistep scheme weak order 3.

A multistep scheme evaluates each step at a point z_k inside it, at the share `node` of the step, with the
noise of a Brownian path there: the share of the end's and an independent bridge of variance s h, with
s = node (1 - node). Its sums over steps stand for integrals, and all are right to order 3 but that of
E[N(z_k) N(z_l)]: the covariance of the path at two times has a kink where they are equal, which costs
h^2/12 a unit of time. Bridges m = 1 and 2 steps apart with correlations r_m take it away if

    s (r_1 + r_2) = -1/24,      w_1 r_1 + w_2 r_2 = 0,

w_m the weight of N(z_(k-m)) in z_k: the second leaves the sum of E[N''(z_k) N(z_l)] as it was. (Derived in
docs/weak-order-3.md.)
"""

import math

import numpy as np
import torch

from seedsbench.solvers.parts.exponential_adams import adams_weights, phi_table


def adams(nodes: list[float], end: float) -> np.ndarray:
    """Weights of the values at `nodes` in the integral of their polynomial from 0 to end: no exponential."""
    (phis,) = phi_table(torch.zeros(1, dtype=torch.float64))
    places = (torch.tensor(nodes, dtype=torch.float64) / end).unbind()
    return end * torch.stack(adams_weights(phis, places, "exact")).numpy()


def bridge_conditions(node: float) -> tuple[np.ndarray, np.ndarray]:
    """(2, 2) and (2,): the conditions on (r_1, r_2), for short equal steps and parabolas."""
    inside = adams([node - 1, node - 2, node - 3], node)
    whole = adams([node, node - 1, node - 2], 1.0)
    spread = node * (1 - node)
    weights = [whole[0] + inside[0], whole[0] + whole[1] + inside[1]]
    return np.array([[spread, spread], weights]), np.array([-1 / 24, 0.0])


def moving_average(first: float, second: float) -> tuple[float, float, float]:
    """Weights of three independent normals, newest first, whose moving average has these correlations.

    Its variance is 1; `first` is the correlation at lag 1, `second` at lag 2, 0 beyond.
    """
    # (a + c)^2 + b^2 = 1 + 2 a c,  b (a + c) = first,  a c = second
    whole = 1 + 2 * second
    ends = math.sqrt((whole + math.sqrt(whole**2 - 4 * first**2)) / 2)
    gap = math.sqrt(ends**2 - 4 * second)
    return (ends + gap) / 2, first / ends, (ends - gap) / 2
