"""Feature networks of the embedded data sets: what Inception-v3 is to FID, for 16x16 glyphs and 8x8 digits.

A 0.12M-parameter convolutional network (0.07M for digits) trained on three jobs at once: the class, numbers
that say what this picture of the class is like, and *how much an image was damaged* (noise, blur). The last
one makes the 64 features sensitive to what a sampler does wrong, which a classifier learns to ignore. The
numbers are a glyph's generating factors; a digit has none, so they are mean, centre and second moments of its
ink. Frechet distances are comparable within one such network only: they are named "glyphs" or "digits", never
"FID".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seedsbench.data.embedded_set import EmbeddedSet
from seedsbench.data.glyphs import GLYPHS
from seedsbench.metrics.moments import Moments

FEATURES = 64
CORRUPTIONS = ("noise", "blur")


class GlyphHeads(NamedTuple):
    """What training looks at: class logits (n, K), numbers (n, targets), amounts of damage (n, 2)."""

    logits: Tensor
    factors: Tensor
    corruption: Tensor


class GlyphFeatures(nn.Module):
    """uint8 images (n, C, H, W) of a data set -> features (n, 64) and class logits (n, K), both float32.

    Buffers `mean` (64,) and `scale` () make the features of real data mean 0 and variance 1 on average.
    One scale for all: features that hardly vary on real data, those that see damage, must not be blown
    up to the same weight as shape, place and colour.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, data: EmbeddedSet = GLYPHS) -> None:
        super().__init__()
        self.shape = data.shape
        channels, height, width = data.shape
        self.body = nn.Sequential(
            *_convolution(channels, 24, stride=1),
            *_convolution(24, 48, stride=2),
            *_convolution(48, 48, stride=1),
            *_convolution(48, 64, stride=2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), FEATURES),
            nn.SiLU(),
        )
        self.to_class = nn.Linear(FEATURES, len(data.classes))
        self.to_factors = nn.Linear(FEATURES, data.targets)
        self.to_corruption = nn.Linear(FEATURES, len(CORRUPTIONS))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dtype != torch.uint8 or images.shape[1:] != self.shape:
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images are {found}; these features need uint8 (n, {str(self.shape)[1:]}")
        raw = self.raw(images)
        return (raw - self.mean) / self.scale, self.to_class(raw)

    def raw(self, images: Tensor) -> Tensor:
        """Features before standardisation, (n, 64): what the class is read off, as in Inception-v3's pool.

        images: (n, C, H, W), values in [0, 255], any dtype.
        """
        return self.body(images.float() / 127.5 - 1)

    def heads(self, images: Tensor) -> GlyphHeads:
        """All training outputs for images (n, C, H, W) with values in [0, 255]."""
        h = self.raw(images)
        return GlyphHeads(self.to_class(h), self.to_factors(h), self.to_corruption(h))

    def standardise(self, real: Tensor) -> None:
        """Set the buffers from `raw` on real data, (n, 64)."""
        self.mean.copy_(real.mean(dim=0))
        self.scale.copy_(real.var(dim=0).mean().sqrt())


def _convolution(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU()]


def load_glyph_features(
    device: torch.device | str = "cpu", path: Path | None = None, data: EmbeddedSet = GLYPHS
) -> GlyphFeatures:
    """The shipped feature network of a data set, or that of another weights file, float32, for evaluation."""
    path = path or data.features
    if not path.is_file():
        command = f"python scripts/train_embedded.py data={data.name} target=features"
        raise FileNotFoundError(f"{path} is missing: run `{command}` to make it")
    network = GlyphFeatures(data)
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return network.to(device).eval().requires_grad_(False)


def load_glyph_reference(data: EmbeddedSet = GLYPHS) -> Moments:
    """The shipped feature statistics of real images: 50,000 glyphs, or all digits."""
    with np.load(data.reference) as stored:
        return Moments(int(stored["n"]), stored["mu"], stored["sigma"])
