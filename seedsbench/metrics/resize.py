"""How images are brought to a feature network's size: by name, as a published score has it.

bicubic: FD-DINOv2's (Stein et al. 2023, dgm-eval): Pillow's antialiased bicubic on uint8, bit for bit on
square images. EDM2 (Karras et al. 2024) takes torch's antialiased bicubic, which neither rounds nor cuts off,
and calls that almost the same.
tf1: bilinear as TensorFlow 1 had it, which is torch-fidelity's for every network.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Resize = Literal["bicubic", "tf1"]

_BITS = 22
"""Pillow's weights for 8-bit images are multiples of 2**-22, and each pass ends in a rounding to uint8."""


def bicubic(images: Tensor, size: int) -> Tensor:
    """uint8 (n, C, H, W) to (n, C, size, size), float32 whole numbers in [0, 255]: Pillow's BICUBIC.

    Along rows first, then along columns; newer Pillows do a tall image's columns first, a few levels apart.
    The sums are of whole numbers below 2**53, exact in float64: in any order, and on every device.
    """
    x = images.double()
    across, down = (_weights(images.shape[axis], size).to(x.device) for axis in (3, 2))
    return _to_levels(down @ _to_levels(x @ across.T)).float()


def _to_levels(sums: Tensor) -> Tensor:
    """Sums of pixels by weights in units of 2**-22, rounded to whole grey levels, half upwards."""
    return ((sums + 2 ** (_BITS - 1)) / 2**_BITS).floor().clamp(0, 255)


@lru_cache(maxsize=8)
def _weights(length: int, size: int) -> Tensor:
    """(size, length), whole float64 numbers: what each pixel adds to each of the output, times 2**22.

    Keys' cubic with a = -0.5 (1981, equation 15), stretched where the output is smaller.
    """
    scale = length / size
    stretch = max(scale, 1.0)
    weights = np.zeros((size, length))
    for i in range(size):
        centre = (i + 0.5) * scale
        first = max(int(centre - 2 * stretch + 0.5), 0)
        last = min(int(centre + 2 * stretch + 0.5), length)
        part = _cubic((np.arange(first, last) - centre + 0.5) * (1 / stretch))
        weights[i, first:last] = part / sum(part.tolist())  # in order, as Pillow: the last bit may count
    whole = np.trunc(weights * 2**_BITS + np.copysign(0.5, weights))
    return torch.from_numpy(whole)


def _cubic(distance: np.ndarray) -> np.ndarray:
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def tf1(images: Tensor, size: int) -> Tensor:
    """uint8 (n, C, H, W) to float32 (n, C, size, size): pixel i of the output reads position i * H / size."""
    x = images.float()
    for axis in (2, 3):
        length = x.shape[axis]
        place = torch.arange(size, device=x.device, dtype=torch.float32) * (length / size)
        low = place.floor().long()
        high = (low + 1).clamp(max=length - 1)
        part = (place - low).view((-1, 1) if axis == 2 else (1, -1))
        before, after = x.index_select(axis, low), x.index_select(axis, high)
        x = torch.lerp(before, after, part.expand_as(before))
    return x


RESIZES: dict[Resize, Callable[[Tensor, int], Tensor]] = {"bicubic": bicubic, "tf1": tf1}
"""By name; each takes uint8 images and the side to bring them to."""
