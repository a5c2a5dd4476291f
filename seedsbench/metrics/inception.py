"""Inception-v3 as FID has it: torch-fidelity's port of the TensorFlow graph of 2015-12-05, from a file.

Features are the 2048 of the last pooling; logits are the 1008 class scores without the bias, which is how
the Inception score is commonly computed. Images are resized to 299 x 299 inside, as TensorFlow 1 did.
Weights are read as tensors alone: no code in a weights file runs.
"""

import importlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench.files.digests import digest, file_sha256
from seedsbench.metrics.extraction import Extractor, full_precision

FEATURES, CLASSES = 2048, 1008
BOUND = 64.0
"""No pooled feature of an image is nearly as large; a bound four times as large costs two bits."""
BLOCK = 16
"""Images at a time: a larger block costs memory (20 MB an image and thread) and gains nothing on a CPU."""
NAME = "inception-v3"
WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""The name under which torch-fidelity publishes the weights (release v0.2.0 on its GitHub page)."""


def inception_extractor(
    weights: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    block: int = BLOCK,
    bound: float = BOUND,
) -> Extractor:
    """The extractor that "FID" and "Inception score" mean in papers. weights: see `find_weights`."""
    network = InceptionFeatures(find_weights(weights), device)
    identity = digest({"extractor": NAME, "weights": network.weights_id})
    made_of = (NAME, identity, FEATURES, CLASSES, bound, True, network, network.weights_id)
    return Extractor(*made_of, block, str(device))


class InceptionFeatures:
    """uint8 images (n, 3, H, W) -> features (n, 2048) and unbiased logits (n, 1008), float32.

    weights: a state dict saved by torch.save. device: where it runs. weights_id: 16 hex digits of the
    file's sha256. Raises FileNotFoundError, and ValueError for a file that is not these weights.
    """

    def __init__(self, weights: str | Path, device: torch.device | str = "cpu") -> None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: {where_to_get_it()}")
        self.weights_id = file_sha256(path)[:16]
        self.device = torch.device(device)
        self._network = _network(_state(path), path).to(self.device)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images are {images.dtype} {tuple(images.shape)}; Inception needs uint8 (n, 3 or 1, H, W)"
            )
        colour = images.expand(-1, 3, -1, -1).to(self.device)
        with torch.inference_mode(), full_precision(self.device):
            features, logits = self._network(colour)
        return features, logits


def find_weights(path: str | Path | None) -> Path:
    """The weights file: `path`, else where torch-fidelity itself would have left it. Downloads nothing.

    Raises FileNotFoundError that says which file to get and where to put it.
    """
    found = Path(path).expanduser() if path is not None else default_weights()
    if not found.is_file():
        raise FileNotFoundError(f"Inception weights: {found} is not there: {where_to_get_it()}")
    return found


def default_weights() -> Path:
    """Where torch-fidelity keeps its download: `checkpoints` in torch's hub folder (TORCH_HOME moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE


def where_to_get_it() -> str:
    """What to do when the weights are missing, in a line."""
    return (
        f"seedsbench-fetch metrics=inception brings {WEIGHTS_FILE}; or download it "
        f"from release v0.2.0 of github.com/toshas/torch-fidelity, "
        f"put it at {default_weights()} or give its place as metrics.weights=..."
    )


def _state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} cannot be read as plain weights ({reason[0] if reason else type(error).__name__}): "
            f"{where_to_get_it()}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of tensors: {where_to_get_it()}")
    return state


def _network(state: dict[str, Tensor], path: Path) -> Any:
    network = empty_network()
    try:
        nn.Module.load_state_dict(network, state, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not hold torch-fidelity's Inception-v3: {' '.join(str(error).split())[:200]}"
        ) from error
    return network.eval().requires_grad_(False)


def empty_network() -> nn.Module:
    """torch-fidelity's network, its weights not loaded: images to the features and the logits."""
    extractor = _torch_fidelity_class()

    class Bare(extractor):  # type: ignore[misc, valid-type]
        """Built without its own loader, which unpickles anything."""

        def load_state_dict(self, *_: Any) -> None:
            return None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    layers = ["2048", "logits_unbiased"]
    return Bare("inception-v3-compat", layers, feature_extractor_weights_path=nothing)


def _torch_fidelity_class() -> Any:
    """torch-fidelity's class, imported only now, and torchvision with it."""
    try:
        return importlib.import_module(
            "torch_fidelity.feature_extractor_inceptionv3"
        ).FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(
            f"metrics=inception needs torch-fidelity and torchvision ({error}): pip install torch-fidelity"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"metrics=inception needs a torchvision made for this torch ({torch.__version__}): {error}; "
            "install both from one index, as pip install torch torchvision"
        ) from error
