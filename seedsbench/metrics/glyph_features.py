"""Feature network of the embedded data set: what Inception-v3 is to FID, for 16x16 glyphs.

A 0.12M-parameter convolutional network trained on three jobs at once: the class, the generating factors, and
*how much an image was damaged* (noise, blur). The last one makes the 64 features sensitive to what a sampler
does wrong, which a classifier learns to ignore. Its Frechet distances are comparable among themselves only
and are named "glyphs", never "FID".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seedsbench.data.glyphs import ASSETS, CLASSES, FACTORS
from seedsbench.metrics.moments import Moments

FEATURES = 64
_FACTOR_TARGETS = len(FACTORS) + 1  # the hue lives on a circle: it is regressed as a cosine and a sine
CORRUPTIONS = ("noise", "blur")


class GlyphHeads(NamedTuple):
    """What training looks at: class logits (n, 10), factors (n, 7), amounts of damage (n, 2)."""

    logits: Tensor
    factors: Tensor
    corruption: Tensor


class GlyphFeatures(nn.Module):
    """uint8 images (n, 3, 16, 16) -> features (n, 64) and class logits (n, 10), both float32.

    Buffers `mean` (64,) and `scale` () make the features of real data mean 0 and variance 1 on average.
    One scale for all: features that hardly vary on real data, those that see damage, must not be blown
    up to the same weight as shape, place and colour.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(3, 24, stride=1),
            *_convolution(24, 48, stride=2),
            *_convolution(48, 48, stride=1),
            *_convolution(48, 64, stride=2),
            nn.Flatten(),
            nn.Linear(64 * 16, FEATURES),
            nn.SiLU(),
        )
        self.to_class = nn.Linear(FEATURES, len(CLASSES))
        self.to_factors = nn.Linear(FEATURES, _FACTOR_TARGETS)
        self.to_corruption = nn.Linear(FEATURES, len(CORRUPTIONS))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dtype != torch.uint8 or images.shape[1:] != (3, 16, 16):
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images are {found}; glyph features need uint8 (n, 3, 16, 16)")
        raw = self.raw(images)
        return (raw - self.mean) / self.scale, self.to_class(raw)

    def raw(self, images: Tensor) -> Tensor:
        """Features before standardisation, (n, 64): what the class is read off, as in Inception-v3's pool.

        images: (n, 3, 16, 16), values in [0, 255], any dtype.
        """
        return self.body(images.float() / 127.5 - 1)

    def heads(self, images: Tensor) -> GlyphHeads:
        """All training outputs for images (n, 3, 16, 16) with values in [0, 255]."""
        h = self.raw(images)
        return GlyphHeads(self.to_class(h), self.to_factors(h), self.to_corruption(h))

    def standardise(self, real: Tensor) -> None:
        """Set the buffers from `raw` on real data, (n, 64)."""
        self.mean.copy_(real.mean(dim=0))
        self.scale.copy_(real.var(dim=0).mean().sqrt())


def _convolution(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU()]


def load_glyph_features(
    device: torch.device | str = "cpu", path: Path = ASSETS / "features.safetensors"
) -> GlyphFeatures:
    """The shipped feature network, or that of another weights file, float32, in evaluation mode."""
    if not path.is_file():
        command = "python scripts/train_embedded.py target=features"
        raise FileNotFoundError(f"{path} is missing: run `{command}` to make it")
    network = GlyphFeatures()
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return network.to(device).eval().requires_grad_(False)


def load_glyph_reference() -> Moments:
    """The shipped feature statistics of 50,000 real images."""
    with np.load(ASSETS / "glyphs_reference.npz") as stored:
        return Moments(int(stored["n"]), stored["mu"], stored["sigma"])
