"""The second embedded data set: 1,797 handwritten digits of 8x8 pixels and 17 levels of grey.

The test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI Machine Learning
Repository, doi:10.24432/C50P49, CC BY 4.0): see assets/digits/LICENSE.md. There are no more: networks,
features and reference statistics have seen the same pictures.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from seedsbench.data.embedded_set import EmbeddedSet

_LEVELS = 16
DIGITS = EmbeddedSet("digits", shape=(1, 8, 8), classes=tuple("0123456789"), targets=6)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """All of them: pictures (1797, 1, 8, 8) float32 in [-1, 1], ink is 1; labels (1797,) int64 in [0, 10)."""
    with np.load(DIGITS.assets / "digits.npz") as stored:
        images, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])
    return images[:, None].float() / (_LEVELS / 2) - 1, labels.long()


def moments_of_ink(images: Tensor) -> Tensor:
    """What a picture's ink is and where: (n, 6) float64, for pictures (n, 1, 8, 8) in [-1, 1] with some ink.

    Its mean, its centre (x, y) and its second central moments (xx, yy, xy), in pixels.
    """
    ink = (images[:, 0].double() + 1) / 2
    total = ink.sum(dim=(1, 2))
    place = torch.arange(ink.shape[-1], dtype=torch.float64)

    def mean(values: Tensor) -> Tensor:
        return (ink * values).sum(dim=(1, 2)) / total

    x, y = mean(place[None, None, :]), mean(place[None, :, None])
    dx, dy = place[None, None, :] - x[:, None, None], place[None, :, None] - y[:, None, None]
    return torch.stack([ink.mean(dim=(1, 2)), x, y, mean(dx * dx), mean(dy * dy), mean(dx * dy)], dim=1)
