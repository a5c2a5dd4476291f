"""Correctors of Song et al. 2021: Langevin steps x + e score + sqrt(2 e) z at one noise level.

Both cost one evaluation a step; alpha is 1 for VE and 1 - beta for VP and sub-VP. They differ in how the
size e is found: from the norms of the score and of z at hand, or from their typical ratio, the noise's std.
In the many dimensions of images that is the same. In few, a size that depends on the state does not keep
the law invariant (on the two-dimensional mixture it doubles the variance), so the second is the default.
"""

from typing import Literal

import torch
from torch import Tensor

from seedsbench.diffusion.process import expand
from seedsbench.exact.ieee import tree_sum

Norms = Literal["per_sample", "batch"]


def langevin_size(score: Tensor, z: Tensor, snr: float, alpha: Tensor, norms: Norms) -> Tensor:
    """e = 2 alpha (snr |z| / |score|)^2 (Algorithms 4 and 5), (B,); 0 where the score vanishes.

    norms: "per_sample" as the paper's algorithms say; "batch" takes the means of both norms over the batch,
    as the public implementations do (a sample then depends on its neighbours).
    """
    sizes = [tree_sum(v.double().flatten(1).square()).sqrt() for v in (z, score)]
    if norms == "batch":
        sizes = [size.mean().expand_as(size) for size in sizes]
    noise, gradient = sizes
    size = 2 * alpha * (snr * noise / gradient) ** 2
    return torch.where(gradient > 0, size, 0.0).to(score.dtype)


def annealed_size(std: Tensor, snr: float, alpha: Tensor) -> Tensor:
    """e = 2 alpha (snr std)^2 (annealed Langevin dynamics, Song and Ermon 2019); std: of the noise in x."""
    return 2 * alpha * (snr * std) ** 2


def langevin_step(x: Tensor, score: Tensor, z: Tensor, size: Tensor) -> Tensor:
    """x + e score + sqrt(2 e) z."""
    return x + expand(size, x) * score + expand((2 * size).sqrt(), x) * z
