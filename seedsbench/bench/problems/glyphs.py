"""The embedded default: 10 procedural shapes, a network for each regime, and features of their own."""

from typing import Annotated

import torch
from torch import Tensor

from seedsbench.bench.problems.base import Problem
from seedsbench.checks import Range
from seedsbench.data.glyphs import ASSETS, FLOOR, glyphs
from seedsbench.denoisers import embedded
from seedsbench.diffusion.noise import random_classes
from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import Extractor, full_precision
from seedsbench.metrics.glyph_features import load_glyph_features, load_glyph_reference
from seedsbench.metrics.moments import Moments


def glyphs_problem(regime: str, device: str = "cpu", training: Annotated[int, Range(0, 1000)] = 0) -> Problem:
    """The embedded 16x16 set, one network a regime and training, its own 64-d feature network.

    training: 0 is the longest; the others differ from one another in their random numbers alone.
    """
    network = load_glyph_features(device)
    reference = load_glyph_reference()

    def extract(images: Tensor) -> tuple[Tensor, Tensor | None]:
        images = images.to(device)
        with torch.inference_mode(), full_precision(device):
            return network(images)

    return Problem(
        name="glyphs",
        denoiser=embedded.load_glyphs(regime, device, training),
        features=Extractor(
            "glyphs-64d", _digest_of("features.safetensors"), 64, 10, 128.0, True, extract, device=device
        ),
        reference=Moments(n=reference.n, mu=reference.mu, sigma=reference.sigma),
        model_id=embedded.model_id(regime, training),
        training=training,
        reference_id=_digest_of("glyphs_reference.npz"),
        real=_real_glyphs,
    )


def _real_glyphs(indices: Tensor, classes: Tensor | None, seed: int) -> Tensor:
    if classes is None:
        classes = random_classes(indices, 10, seed=seed)
    return glyphs(indices, classes, seed=seed, stream=FLOOR)


def _digest_of(name: str) -> str:
    return digest((ASSETS / name).read_bytes())
