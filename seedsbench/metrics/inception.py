"""Inception-v3 as FID has it: torch-fidelity's port of the TensorFlow graph of 2015-12-05, from a file.

Features are the 2048 of the last pooling; logits are the 1008 class scores without the bias, which is how
the Inception score is commonly computed. Images are resized to 299 x 299 inside, as TensorFlow 1 did.
"""

import importlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import LARGE_NETWORK_BLOCK, Extractor, load_weights, on_colour

INCEPTION_FEATURES = 2048
INCEPTION_BOUND = 64.0
"""No pooled feature of an image is nearly as large; a bound four times as large costs two bits."""


def inception_extractor(
    weights: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    block: int = LARGE_NETWORK_BLOCK,
    bound: float = INCEPTION_BOUND,
) -> Extractor:
    """The extractor that "FID" and "Inception score" mean in papers. weights: see `load_weights`."""
    network, weights_id = load_weights("inception", weights, _network)
    name, dim, extract = "inception-v3", INCEPTION_FEATURES, on_colour(network.to(device), device)
    identity = digest({"extractor": name, "weights": weights_id})
    return Extractor(name, identity, dim, 1008, bound, True, extract, weights_id, block, str(device), "fid")


def _network(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's network, which unpickles the file that it is given: one of these tensors alone."""
    plain = io.BytesIO()
    torch.save(state, plain)
    plain.seek(0)
    layers = ["2048", "logits_unbiased"]
    return torch_fidelity_class()("inception-v3-compat", layers, feature_extractor_weights_path=plain)


def torch_fidelity_class() -> Any:
    """FeatureExtractorInceptionV3, imported only now, with torchvision; ValueError says what to install."""
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        return module.FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(
            f"metrics=inception needs torch-fidelity and torchvision ({error}): pip install torch-fidelity"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"metrics=inception needs a torchvision made for this torch ({torch.__version__}): {error}; "
            "install both from one index, as pip install torch torchvision"
        ) from error
