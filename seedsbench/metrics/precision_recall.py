"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

A set's manifold is the union of closed balls around its points, each reaching the k-th nearest other
point. Features are rounded to a common grid so fine that no distance comparison of interest notices
(2^-20 of the largest feature for D = 2048), yet coarse enough that squared distances are exact: ties,
which duplicated images do produce, are then decided the same way everywhere.
"""

import math
from collections.abc import Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from seedsbench.metrics.base import as_matrix


def precision_recall(
    real: ArrayLike | Tensor, fake: ArrayLike | Tensor, k: int = 3, *, at_once: int = 2**24
) -> dict[str, float]:
    """precision, recall, density and coverage of fake (m, D) against real (n, D), with n, m > k >= 1.

    precision: share of fakes inside a real ball. recall: share of reals inside a fake ball. density:
    real balls that hold a fake, over k, on average (may exceed 1). coverage: share of real balls that
    hold a fake. ValueError for other sizes and for features that are not finite. at_once: distances in
    memory, 128 MiB by default.
    """
    x, y = as_matrix(real, "real features"), as_matrix(fake, "fake features")
    if x.shape[1] != y.shape[1]:
        dims = f"{x.shape[1]} and {y.shape[1]}"
        raise ValueError(f"real and fake features have {dims} columns; they must have equally many")
    most = min(len(x), len(y)) - 1
    if not 1 <= k <= most:
        among = f"{len(x)} real and {len(y)} fake samples"
        raise ValueError(f"k = {k} neighbours do not exist among {among}: use 1 to {most}")
    x, y = _on_grid(x, y)
    radius_x, radius_y = _radii(x, k, at_once), _radii(y, k, at_once)
    in_real_ball = torch.zeros(len(y), dtype=torch.bool)
    pairs = covered = recalled = 0
    for rows, squared in _squared_distances(x, y, at_once):
        inside = squared <= radius_x[rows, None]
        in_real_ball |= inside.any(0)
        pairs += int(inside.sum())
        covered += int(inside.any(1).sum())
        recalled += int((squared <= radius_y).any(1).sum())
    return {
        "precision": int(in_real_ball.sum()) / len(y),
        "recall": recalled / len(x),
        "density": pairs / (k * len(y)),
        "coverage": covered / len(x),
    }


def _on_grid(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both as integers in float64, so small that |x|^2 + |y|^2 - 2 x.y is exact (below 2^53)."""
    largest = max(float(x.abs().max()), float(y.abs().max()))
    if largest == 0:
        return x, y
    room = math.floor((51 - math.ceil(math.log2(x.shape[1]))) / 2)
    scale = 2.0 ** (room - math.ceil(math.log2(largest)))
    return torch.round(x * scale), torch.round(y * scale)


def _squared_distances(x: Tensor, y: Tensor, at_once: int) -> Iterator[tuple[slice, Tensor]]:
    """Of some rows of x from all of y, (rows, len(y)), until all rows have come."""
    squares = y.square().sum(1)
    rows = max(1, at_once // len(y))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        yield slice(start, start + len(part)), part.square().sum(1)[:, None] + squares - 2 * (part @ y.T)


def _radii(x: Tensor, k: int, at_once: int) -> Tensor:
    """Squared distance of each row's k-th nearest other row, (n,). The nearest of all is the row itself."""
    distances = _squared_distances(x, x, at_once)
    return torch.cat([squared.kthvalue(k + 1, dim=1).values for _, squared in distances])
