"""Numbered noise for those who have torch generators: an image's is the same in a batch of any size."""

from typing import Any

import torch
from torch import Tensor

from seedsbench.diffusion.noise import EachItsOwn, Noise, Philox


def noise_of(generator: Any, seed: int, sample: Tensor) -> Noise:
    """The noise of a run, float64, on the device of `sample` (B, C, H, W): nothing is drawn from a generator.

    generator: a torch generator, whose seed and the image's place in the batch number the noise; a list of
    one an image, each with place 0; or None, for the given seed and the place.
    """
    if isinstance(generator, (list, tuple)) and len(generator) == 1:
        generator = generator[0]  # as diffusers takes it for latents

    def source(number: int, images: int) -> Noise:
        place = torch.arange(images)
        return Philox(place, sample.shape[1:], seed=number % 2**64, device=sample.device)

    if not isinstance(generator, (list, tuple)):
        return source(seed if generator is None else generator.initial_seed(), len(sample))
    if len(generator) != len(sample):
        found = f"{len(generator)} generators for a batch of {len(sample)}"
        raise ValueError(f"{found}: give one an image, or one")
    return EachItsOwn([source(each.initial_seed(), 1) for each in generator])
