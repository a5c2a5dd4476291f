"""What the embedded data sets are as problems: a network a regime, and features of their own."""

from collections.abc import Callable

import torch
from torch import Tensor

from seedsbench.bench.problems.base import Problem
from seedsbench.data.embedded_set import EmbeddedSet
from seedsbench.denoisers.embedded import as_denoiser, load_network, model_id, weights_path
from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import Extractor, full_precision
from seedsbench.metrics.glyph_features import FEATURES, load_glyph_features, load_glyph_reference

Real = Callable[[Tensor, Tensor | None, int], Tensor]


def embedded_problem(
    data: EmbeddedSet,
    regime: str,
    training: int,
    real: Real,
    device: str,
    shares: tuple[float, ...] | None = None,
) -> Problem:
    """An embedded set with one of its networks. real: of `Problem`. shares: of each class in the data."""
    network, path = load_glyph_features(device, data=data), weights_path(data, regime, training)

    def extract(images: Tensor) -> tuple[Tensor, Tensor | None]:
        images = images.to(device)
        with torch.inference_mode(), full_precision(device):
            return network(images)

    return Problem(
        name=data.name,
        denoiser=as_denoiser(load_network(path), device, shares),
        features=Extractor(
            f"{data.name}-{FEATURES}d",
            digest(data.features.read_bytes()),
            FEATURES,
            len(data.classes),
            bound=128.0,
            quantised=True,
            extract=extract,
            device=device,
        ),
        reference=load_glyph_reference(data),
        model_id=model_id(path),
        reference_id=digest(data.reference.read_bytes()),
        real=real,
    )
