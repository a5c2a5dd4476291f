"""Quantisation: images as everyone's published numbers have them, uint8, made once from samples."""

import torch
from torch import Tensor

QUANTISER = "uint8: clip(127.5 x + 128), truncated"
"""What `to_uint8` does, for rows."""


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1], any shape, quantised: x * 127.5 + 128, clipped to [0, 255], truncated."""
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8)
