"""The embedded models: networks that come with the package, for each data set and regime one or several.

Their files, and those that scripts/train_embedded.py writes, are the seedsbench .safetensors format:
the network's state, with its configuration and provenance as JSON in the metadata.
"""

import json
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from seedsbench.data.embedded_set import EmbeddedSet
from seedsbench.data.glyphs import GLYPHS
from seedsbench.denoisers.base import Denoiser, FixedBatch
from seedsbench.denoisers.checkpoints.reading import checked_safetensors
from seedsbench.denoisers.checkpoints.states import network_of
from seedsbench.denoisers.networks.glyph_unet import EMBEDDED_UNETS, GlyphUNet, GlyphUNetConfig
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, Preconditioned, Preconditioner
from seedsbench.files.digests import file_sha256
from seedsbench.files.model_files import check_regime


def weights_path(data: EmbeddedSet, regime: str, training: int = 0) -> Path:
    """The file of an embedded network; ValueError for an unknown regime, FileNotFoundError for no file."""
    known = EMBEDDED_UNETS[data.name]
    check_regime(data.name, regime, known)
    path = data.weights(regime, training)
    if not path.is_file():
        command = f"python scripts/train_embedded.py data={data.name} target={regime}"
        command += f" training={training} seed={100 + training}" if training else ""
        raise FileNotFoundError(f"{path} is missing: run `{command}` to make it")
    return path


def model_id(path: Path) -> str:
    """First 16 hex digits of the sha256 of a weights file: two models with one id are the same."""
    return file_sha256(path)[:16]


def load_network(path: Path) -> GlyphUNet:
    """Rebuild a network from a weights file and the configuration stored in it; float32, on the CPU.

    Raises FileNotFoundError, and ValueError for a file that is damaged or not one of ours.
    """
    metadata = metadata_of(path)
    if "network" not in metadata:
        raise ValueError(f"{path} is not a seedsbench weights file: its metadata has no `network` entry")
    try:
        stored = json.loads(metadata["network"])
        if stored["regime"] not in PRECONDITIONERS:
            raise ValueError(f"regime {stored['regime']!r} is none of {', '.join(PRECONDITIONERS)}")
        config = GlyphUNetConfig(**{**stored, "channels": tuple(stored["channels"])})
        state = {name: value.float() for name, value in load_file(path).items()}
        network = network_of(partial(GlyphUNet, config), state, path)
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:160]
        raise ValueError(f"{path} holds no network this version can rebuild: {said}") from error
    return network


def as_denoiser(
    network: GlyphUNet, device: torch.device | str = "cpu", shares: tuple[float, ...] | None = None
) -> Denoiser:
    """D(x, sigma, labels) of a network, good for any batch size. shares: `Denoiser.class_weights`.

    On a CPU the result for a sample does not depend in any bit on the batch it is in (FixedBatch).
    """
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    denoiser = preconditioned(network, network.config, PRECONDITIONERS[network.config.regime])
    denoiser.class_weights = shares
    return FixedBatch(denoiser) if torch.device(device).type == "cpu" else denoiser.to(device)


def preconditioned(network: nn.Module, config: GlyphUNetConfig, outer: Preconditioner) -> Preconditioned:
    """A GlyphUNet of this configuration behind a preconditioner."""
    channels, size, classes = config.img_channels, config.img_resolution, config.label_dim
    return Preconditioned(network, outer, img_channels=channels, img_resolution=size, label_dim=classes)


def load_glyphs(regime: str, device: torch.device | str = "cpu") -> Denoiser:
    """The embedded denoiser of a regime (vp, ve, iddpm, edm): images (3, 16, 16), 10 classes.

    A zero label row, or labels None, is the unconditional model.
    """
    return as_denoiser(load_network(weights_path(GLYPHS, regime)), device)


def metadata_of(path: Path) -> dict[str, str]:
    """The text stored beside the weights; ValueError for a file that is no safetensors."""
    checked_safetensors(path)
    try:
        with safe_open(path, framework="pt") as stored:
            return stored.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file: {error}") from error
