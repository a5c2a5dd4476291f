"""Feature network of the embedded data set: what Inception-v3 is to FID, for 16x16 glyphs.

A 0.12M-parameter convolutional network trained on three jobs at once: the class, the generating
factors, and *how much an image was damaged* (noise, blur, contrast, ghost of another image). The last
one makes the 64 features sensitive to what a sampler does wrong, which a classifier learns to ignore.
Its Frechet distances are comparable among themselves only and are named "glyphs", never "FID".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf
from safetensors.torch import load_file
from torch import Tensor, nn

from seedsbench.data.glyphs import ASSETS, CLASSES, FACTORS

FEATURES = 64
# The hue lives on a circle: it is regressed as a cosine and a sine.
FACTOR_TARGETS = len(FACTORS) + 1
CORRUPTIONS = ("noise", "blur", "contrast", "ghost")


class GlyphHeads(NamedTuple):
    """What training looks at: class logits (n, 10), factors (n, 7), amounts of damage (n, 4)."""

    logits: Tensor
    factors: Tensor
    corruption: Tensor


class GlyphFeatures(nn.Module):
    """uint8 images (n, 3, 16, 16) -> features (n, 64) and class logits (n, 10), both float32.

    Buffers `mean` and `std` (64,) standardise each feature to mean 0 and standard deviation 1 on real data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(3, 24, stride=1),
            *_convolution(24, 48, stride=2),
            *_convolution(48, 48, stride=1),
            *_convolution(48, 64, stride=2),
            nn.Flatten(),
            nn.Linear(64 * 16, FEATURES),
        )
        self.to_class = nn.Linear(FEATURES, len(CLASSES))
        self.to_factors = nn.Linear(FEATURES, FACTOR_TARGETS)
        self.to_corruption = nn.Linear(FEATURES, len(CORRUPTIONS))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dtype != torch.uint8 or images.shape[1:] != (3, 16, 16):
            raise ValueError(
                f"images are {images.dtype} {tuple(images.shape)}; glyph features need uint8 (n, 3, 16, 16)"
            )
        raw = self.raw(images)
        return (raw - self.mean) / self.std, self.to_class(nnf.silu(raw))

    def raw(self, images: Tensor) -> Tensor:
        """Features before standardisation, (n, 64). images: (n, 3, 16, 16), values in [0, 255], any dtype."""
        return self.body(images.float() / 127.5 - 1)

    def heads(self, images: Tensor) -> GlyphHeads:
        """All training outputs for images (n, 3, 16, 16) with values in [0, 255]."""
        h = nnf.silu(self.raw(images))
        return GlyphHeads(self.to_class(h), self.to_factors(h), self.to_corruption(h))

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set the buffers from the statistics (64,) of `raw` on real data."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=1e-6))


def _convolution(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU()]


def load_glyph_features(device: torch.device | str = "cpu", path: Path | None = None) -> GlyphFeatures:
    """The shipped feature network, float32, in evaluation mode. path: another weights file."""
    path = ASSETS / "features.safetensors" if path is None else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: run `python scripts/train_embedded.py target=features` to make it"
        )
    network = GlyphFeatures()
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return network.to(device).eval().requires_grad_(False)


class GlyphReference(NamedTuple):
    """Statistics of 50,000 real images: mu (64,), sigma (64, 64), n, and their Inception score."""

    mu: np.ndarray
    sigma: np.ndarray
    n: int
    is_mean: float
    is_std: float


def load_glyph_reference(path: Path | None = None) -> GlyphReference:
    """The shipped reference statistics. path: another file of the same format."""
    path = ASSETS / "glyphs_reference.npz" if path is None else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: run `python scripts/train_embedded.py target=reference` to make it"
        )
    with np.load(path) as stored:
        return GlyphReference(
            stored["mu"], stored["sigma"], int(stored["n"]), float(stored["is_mean"]), float(stored["is_std"])
        )
