"""Samples as their own features: the Frechet distance between the values of the pixels, without any network.

It says whether means, contrasts and correlations are right, nothing of what the images show: for small images
and data in few dimensions.
"""

import math

import torch
from torch import Tensor

from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import Extractor

_MAX_VALUES = 4096  # of a sample; their covariance has the square of that


def values_extractor(shape: tuple[int, int, int], *, block: int = 128, bound: float = 64.0) -> Extractor:
    """Of samples (C, H, W) as they are, neither clipped nor rounded, and of reference images in [-1, 1].

    Grey references may come as RGB with equal channels. ValueError for samples of too many values.
    """
    dim = math.prod(shape)
    if dim > _MAX_VALUES:
        most = f"at most {_MAX_VALUES}"
        raise ValueError(f"metrics=values: {shape} are {dim} values, {most}: use metrics=inception")

    def extract(images: Tensor) -> tuple[Tensor, None]:
        if shape[0] == 1 and images.shape[1] == 3 and bool((images == images[:, :1]).all()):
            images = images[:, :1]
        if images.shape[1:] != shape:
            found = tuple(images.shape[1:])
            raise ValueError(f"reference images are {found}, samples {shape}: use the same size")
        if images.dtype == torch.uint8:
            images = images.double() / 127.5 - 1
        return images.double().flatten(1).cpu(), None

    identity = digest({"values": list(shape)})
    return Extractor("values", identity, dim, 0, bound, quantised=False, extract=extract, block=block)
