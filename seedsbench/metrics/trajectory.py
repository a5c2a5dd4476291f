"""How far samples are from the ends of their own exact paths: no features, no reference.

Each sample is compared with its own, which sees the error of the solver and nothing else; and the two sets
with each other, which forgives samples that came out as one another. Both are in units of the samples.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from seedsbench.exact.philox import philox_normal

TRAJECTORY = ("trajectory_rms", "trajectory_median", "sliced_wasserstein")
_STREAM = 0x5357  # of Philox, away from the small numbers that samplers use: "SW" in ASCII


def pair_features(samples: Tensor, exact: Tensor, directions: int) -> Tensor:
    """(n, 1 + 2 directions) of samples and exact ones, each (n, C, H, W) float64: the root mean square of
    their difference over all values, then projections of either on random unit vectors, ever the same."""
    x, y = samples.flatten(1), exact.flatten(1)
    onto = _unit_vectors(directions, x.shape[1])
    return torch.cat(((x - y).square().mean(1, keepdim=True).sqrt(), x @ onto, y @ onto), 1)


def trajectory_scores(features: Tensor) -> dict[str, float]:
    """Of all samples' pair_features: root mean square and median distance, sliced Wasserstein distance.

    The last is the root mean square over directions of W2 on the line, which matches sorted projections
    (Bonneel et al. 2015, "Sliced and Radon Wasserstein Barycenters of Measures"). Directions are of length 1:
    it is in the units of the first, and larger by the choice of directions alone.
    """
    table = features.double().numpy()
    distances, (x, y) = table[:, 0], (np.sort(half, axis=0) for half in np.hsplit(table[:, 1:], 2))
    found = (
        math.sqrt(np.mean(distances**2)),
        float(np.median(distances)),
        math.sqrt(np.mean((x - y) ** 2)),
    )
    return dict(zip(TRAJECTORY, found, strict=True))


@cache
def _unit_vectors(directions: int, values: int) -> Tensor:
    """(values, directions), each column of length 1."""
    normals = philox_normal(torch.arange(directions), values, seed=0, stream=_STREAM, draw=0)
    return (normals / normals.norm(dim=1, keepdim=True)).T.contiguous()
