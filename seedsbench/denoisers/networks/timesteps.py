"""Sinusoidal features of a timestep (Ho et al. 2020), in the two layouts of published networks."""

import math

import torch
from torch import Tensor, nn


class TimestepFeatures(nn.Module):
    """cos and sin of t / 10000^(i / n), i = 0 .. width/2 - 1, as (1 or B, width).

    endpoint: n = width/2 - 1, so that the slowest frequency is exactly 1/10000 (DDPM, DDIM, score SDE);
    otherwise n = width/2 (OpenAI's networks). cosine_first: order of the two halves.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, endpoint: bool, cosine_first: bool) -> None:
        super().__init__()
        self.cosine_first = cosine_first
        half = width // 2
        # float32, multiplied in this order: at t = 999 the last bit of a frequency shows in the output.
        index = torch.arange(half, dtype=torch.float32)
        if endpoint:
            frequencies = torch.exp(index * -(math.log(10000) / (half - 1)))
        else:
            frequencies = torch.exp(-math.log(10000) * index / half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """t: () or (B,); one row if it is the same for all samples."""
        angle = t.reshape(-1, 1).to(self.frequencies.dtype) * self.frequencies
        halves = (angle.cos(), angle.sin()) if self.cosine_first else (angle.sin(), angle.cos())
        return torch.cat(halves, dim=1)
