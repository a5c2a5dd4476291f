"""Kernel Inception distance: unbiased squared MMD with a cubic kernel (Binkowski et al. 2018, sec. 3).

k(x, y) = (x.y / D + 1)^3, averaged over random subsets of both sets of features.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from seedsbench.exact.blocks import one_thread
from seedsbench.exact.philox import philox_uniform
from seedsbench.metrics.base import as_matrix

_STREAM = 0x4B4944  # of Philox, away from the small numbers that samplers use: "KID" in ASCII


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / D + 1)^3, (m, n): KID's own."""
    return (x @ y.T / x.shape[1] + 1).pow(3)


def kernel_distance(
    f1: ArrayLike | Tensor,
    f2: ArrayLike | Tensor,
    subsets: int = 100,
    subset_size: int = 1000,
    *,
    seed: int = 0,
    indices: tuple[ArrayLike, ArrayLike] | None = None,
    kernel: Callable[[Tensor, Tensor], Tensor] = cubic_kernel,
) -> tuple[float, float]:
    """Mean and population standard deviation of the unbiased squared MMD over subsets.

    f1: (n1, D), f2: (n2, D). Each subset takes subset_size rows of each, without replacement, chosen
    by `random_subset`. indices: rows to take instead, a pair of (subsets, subset_size) integer arrays;
    subsets, subset_size and seed are then not used. kernel: of float64 rows (m, D), (n, D), to (m, n).
    The mean may be slightly negative.
    """
    x, y = as_matrix(f1, "first features"), as_matrix(f2, "second features")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features have {x.shape[1]} and {y.shape[1]} columns; they must have equally many")
    if indices is None:
        most = min(len(x), len(y))
        if subsets < 1 or not 2 <= subset_size <= most:
            advice = f"use at least 1 subset of 2 to {most}"
            raise ValueError(
                f"{subsets} subsets of {subset_size} cannot be drawn from {most} samples: {advice}"
            )
        pairs = [
            (random_subset(len(x), subset_size, seed, i, 0), random_subset(len(y), subset_size, seed, i, 1))
            for i in range(subsets)
        ]
    else:
        rows_x, rows_y = (torch.as_tensor(np.asarray(rows)).long() for rows in indices)
        pairs = list(zip(rows_x, rows_y, strict=True))
    with one_thread():
        distances = np.array([_mmd2(x[i], y[j], kernel) for i, j in pairs])
    return float(distances.mean()), float(distances.std())


def _mmd2(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Unbiased squared MMD of x (m, D) and y (n, D) (Gretton et al. 2012, eq. 3)."""
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = [(square.sum() - square.trace()) / (len(square) * (len(square) - 1)) for square in (xx, yy)]
    return float(within[0] + within[1] - 2 * xy.mean())


def random_subset(n: int, size: int, seed: int, subset: int, side: int) -> Tensor:
    """`size` of the numbers 0 .. n - 1, (size,), a function of the other three: side 0 is of x, 1 of y."""
    uniform = philox_uniform(torch.tensor([subset]), n, seed=seed, stream=_STREAM, draw=side)
    return uniform[0].argsort(stable=True)[:size]
