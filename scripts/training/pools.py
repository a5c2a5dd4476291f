"""Training pictures of the embedded data sets, with what features are trained to tell of them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from seedsbench.data.digits import DIGITS, digits, moments_of_ink
from seedsbench.data.embedded_set import EmbeddedSet
from seedsbench.data.glyphs import GLYPHS, factors, render
from seedsbench.data.uint8 import to_uint8


class Pool(NamedTuple):
    """images (n, C, H, W) uint8; labels (n,) int64; targets (n, k) float32, of variance 1/3 at most each."""

    images: Tensor
    labels: Tensor
    targets: Tensor

    def drawn(self, generator: torch.Generator, batch: int) -> "Pool":
        """Pictures at random, as floats in [-1, 1]."""
        rows = torch.randint(len(self.images), (batch,), generator=generator, device=self.images.device)
        return Pool(self.images[rows].float() / 127.5 - 1, self.labels[rows], self.targets[rows])


def glyph_pool(n: int, *, seed: int, stream: int, device: torch.device) -> Pool:
    """Pictures 0 to n-1 of a stream, classes balanced, rendered on the CPU and kept on the device.

    Their targets are the generating factors. The hue lives on a circle: it is a cosine and a sine.
    """
    indices = torch.arange(n)
    labels = indices % len(GLYPHS.classes)
    made = factors(indices, seed=seed, stream=stream)
    angle = math.pi * made[:, -1:]
    targets = torch.cat([made[:, :-1], angle.cos(), angle.sin()], dim=1)
    parts = (to_uint8(render(labels, made)), labels, targets.float())
    return Pool(*(part.to(device) for part in parts))


def digit_pool(n: int, *, seed: int, stream: int, device: torch.device) -> Pool:
    """All 1,797 digits, whatever n, seed and stream: there are no more.

    Their targets are the moments of their ink, shifted and scaled to mean 0 and variance 1/3, as of a glyph's
    factors.
    """
    images, labels = digits()
    moments = moments_of_ink(images)
    targets = (moments - moments.mean(dim=0)) / (math.sqrt(3) * moments.std(dim=0))
    return Pool(*(part.to(device) for part in (to_uint8(images), labels, targets.float())))


class Source(NamedTuple):
    """An embedded set, and where its training pictures come from."""

    data: EmbeddedSet
    pool: Callable[..., Pool]


SOURCES = {"glyphs": Source(GLYPHS, glyph_pool), "digits": Source(DIGITS, digit_pool)}
