"""Training pictures, rendered once and kept as uint8 on the training device."""

from typing import NamedTuple

import torch
from torch import Tensor

from seedsbench.data.glyphs import CLASSES, factors, render
from seedsbench.data.images import quantise


class Pool(NamedTuple):
    """images (n, 3, 16, 16) uint8; labels (n,) int64, class i mod 10; factors (n, 6) float32 in [-1, 1]."""

    images: Tensor
    labels: Tensor
    factors: Tensor

    def to(self, device: torch.device) -> "Pool":
        return Pool(*(value.to(device) for value in self))


def make_pool(n: int, *, seed: int, stream: int) -> Pool:
    """Pictures 0 to n-1 of a stream, classes balanced, on the CPU."""
    indices = torch.arange(n)
    labels = indices % len(CLASSES)
    drawn = factors(indices, seed=seed, stream=stream)
    return Pool(quantise(render(labels, drawn)), labels, drawn.float())


def generator_of(seed: int, iteration: int, device: torch.device) -> torch.Generator:
    """The random source of one training iteration.

    A generator made anew for each iteration is a pure function of (seed, iteration), so a resumed run
    sees what the uninterrupted one would have seen. Philox of `seedsbench.diffusion` would do the same,
    but costs a hundred small kernels a draw; sampling uses that one, this is for training only.
    """
    return torch.Generator(device).manual_seed((seed << 32) + iteration)
