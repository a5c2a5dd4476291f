"""Quantisation: images as everyone's published numbers have them, uint8, made once from samples."""

import torch
from torch import Tensor

from seedsbench.checks import Pixels

QUANTISERS: dict[Pixels, str] = {
    "signed": "uint8: clip(127.5 x + 128), truncated",
    "unit": "uint8: 255 clip((x + 1) / 2), truncated",
}
"""What `to_uint8` does, for rows; x is in [-1, 1]."""
_OFFSETS: dict[Pixels, float] = {"signed": 128.0, "unit": 127.5}


def to_uint8(images: Tensor, pixels: Pixels = "signed") -> Tensor:
    """Floats in [-1, 1], any shape, quantised as the authors do: see QUANTISERS."""
    return (images * 127.5 + _OFFSETS[pixels]).clip(0, 255).to(torch.uint8)
