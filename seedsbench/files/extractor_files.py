"""Which files a metrics group asks for: the extractor's weights, and what samples are compared with.

They lie where other programs keep theirs, in torch's hub folder. Imports no torch (see `model_files`).
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedsbench.files.download import RemoteFile
from seedsbench.files.model_files import Wanted, absolute

_HUB = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"
_PUBLISHED = {
    "inception": RemoteFile(
        f"{_HUB}/weights-inception-2015-12-05-6726825d.pth",
        "weights-inception-2015-12-05-6726825d.pth",
        about_mb=96,
        licence="Apache-2.0 (torch-fidelity)",
        sha256_starts="6726825d",  # the name says so, as those of torch's hub do
    ),
    "dinov2": RemoteFile(  # to be had by hand
        None,
        "dinov2_vitl14_pretrain.pth",
        page="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        about_mb=1218,
        licence="Apache-2.0 (DINOv2)",
    ),
}


def extractor_weights(extractor: str) -> RemoteFile:
    """The published weights of "inception" or "dinov2", where torch's hub would have them."""
    return replace(_PUBLISHED[extractor], folder=hub_folder())


def hub_folder() -> Path:
    """`checkpoints` in torch's hub folder, as torch.hub.get_dir() has it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser().absolute() / "hub" / "checkpoints"


def extractor_files(metrics: Mapping[str, Any]) -> list[Wanted]:
    """The files a metrics group asks for: weights first; empty for one that brings no extractor."""
    extractor, weights, wanted = metrics.get("extractor"), metrics.get("weights"), []
    if extractor in _PUBLISHED and weights is None:
        wanted.append(Wanted(f"{extractor} weights", extractor_weights(extractor)))
    elif extractor in _PUBLISHED:
        wanted.append(Wanted(f"{extractor} weights", path=absolute(weights), key="metrics.weights"))
    elif extractor != "values":
        return []
    given = {metrics.get(name): f"metrics.{name}" for name in ("real", "reference")}
    given.pop(None, None)
    return wanted + [Wanted("reference", path=absolute(path), key=key) for path, key in given.items()]


def compared(metrics: Mapping[str, Any], model: list[Wanted]) -> list[Wanted]:
    """A model's files less statistics that the metrics group would not look at."""
    if metrics.get("extractor") is None:
        return model
    own = metrics["extractor"] == "inception" and metrics.get("reference") is None
    return [wanted for wanted in model if own or wanted.role != "reference"]
