"""What can be trained or made: a denoiser for each regime, the feature network, reference statistics."""

import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scripts.training.loop import TrainingOptions, train
from scripts.training.losses import denoising_loss, feature_loss
from scripts.training.pools import SOURCES
from seedsbench.checks import nearest
from seedsbench.data.glyphs import FEATURE_TRAIN, REFERENCE, TRAIN
from seedsbench.denoisers.embedded import load_network, metadata_of, preconditioned
from seedsbench.denoisers.networks.glyph_unet import EMBEDDED_UNETS, GlyphUNet
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, EDMPreconditioner, Preconditioner
from seedsbench.files.atomic import replacing
from seedsbench.metrics.glyph_features import GlyphFeatures, load_glyph_features
from seedsbench.metrics.inception_score import inception_score

_Network = TypeVar("_Network", bound=nn.Module)

log = logging.getLogger(__name__)
SELECTION = "EMA weights at the last iteration, fixed beforehand"
REFERENCE_SIZE = 50_000
REFERENCE_BATCH = 1000

WEIGHTINGS: dict[str, Callable[[Preconditioner], Preconditioner]] = {
    "unit": lambda _: EDMPreconditioner(),
    "regime": lambda own: own,
}
"""Whose lambda(sigma) weighs the loss. unit: that of Table 1's EDM column, every level counts the same.

1/sigma^2, the weight of the noise-predicting regimes, leaves the levels at which an image takes shape (sigma
of 0.3 to 3, on these pictures) with a few per cent of the loss.
"""


def run(options: TrainingOptions) -> Path:
    """Make the target and return the file written."""
    if options.data not in SOURCES:
        raise ValueError(nearest(options.data, SOURCES, what="data"))
    networks = EMBEDDED_UNETS[options.data]
    if options.target == "reference":
        return make_reference(options)
    if options.target == "features":
        return train_features(options)
    if options.target in networks:
        return train_denoiser(options)
    known = ", ".join([*networks, "features", "reference"])
    raise ValueError(f"unknown target {options.target!r} of {options.data}: use one of {known}")


def train_denoiser(options: TrainingOptions) -> Path:
    """Train the network of one regime; writes <out>/<regime>.safetensors (float16, with provenance).

    A training but 0 is <out>/<regime>-<training>.safetensors.
    """
    device, config = torch.device(options.device), EMBEDDED_UNETS[options.data][options.target]
    network = _initialised(lambda: GlyphUNet(config), options.seed)
    if options.initial:
        network.load_state_dict(load_network(Path(options.initial)).state_dict())
    network = network.to(device)
    if device.type == "cpu":
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # 20 % faster
    pool = SOURCES[options.data].pool(options.pool, seed=options.seed, stream=TRAIN, device=device)
    outer = PRECONDITIONERS[config.regime]
    if isinstance(outer, EDMPreconditioner):
        outer = replace(outer, P_mean=options.P_mean, P_std=options.P_std)

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        return denoising_loss(
            preconditioned(network, config, outer),
            pool,
            generator,
            batch=options.batch // options.shards,
            label_dropout=options.label_dropout,
            weighting=WEIGHTINGS[options.weighting](outer),
        )

    seconds = train(network, loss, options)
    return _save_weights(network, options, seconds, {"network": json.dumps(asdict(config))})


def train_features(options: TrainingOptions) -> Path:
    """Train the feature network and standardise it on the reference pictures; writes features.safetensors."""
    device, source = torch.device(options.device), SOURCES[options.data]
    network = _initialised(lambda: GlyphFeatures(source.data), options.seed).to(device)
    pool = source.pool(options.pool, seed=options.seed, stream=FEATURE_TRAIN, device=device)

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        assert isinstance(network, GlyphFeatures)
        return feature_loss(network, pool, generator, batch=options.batch // options.shards)

    seconds = train(network, loss, options)
    # Round to the stored precision first, so that the standardisation belongs to the weights shipped.
    network.half().float()
    real = source.pool(REFERENCE_SIZE, seed=options.seed, stream=REFERENCE, device=device)
    with torch.inference_mode():
        raw = torch.cat([network.raw(images) for images in real.images.split(REFERENCE_BATCH)]).double()
    network.standardise(raw)
    right = _extract(network, real.images)[1].argmax(dim=1) == real.labels.cpu()
    log.info("class accuracy on %d reference pictures: %.5f", len(right), float(right.double().mean()))
    return _save_weights(network, options, seconds, {})


def make_reference(options: TrainingOptions) -> Path:
    """Feature statistics of 50,000 glyphs of the stream REFERENCE, or of all digits.

    Writes <data>_reference.npz.
    """
    device, source = torch.device(options.device), SOURCES[options.data]
    network = load_glyph_features(options.device, options.out / source.data.features.name, source.data)
    pool = source.pool(REFERENCE_SIZE, seed=options.seed, stream=REFERENCE, device=device)
    features, logits = _extract(network, pool.images)
    is_mean, is_std = inception_score(logits)
    statistics = {
        "mu": features.mean(dim=0).numpy(),
        "sigma": torch.cov(features.T).numpy(),
        "n": np.int64(len(features)),
        "is_mean": np.float64(is_mean),
        "is_std": np.float64(is_std),
    }
    path = options.out / source.data.reference.name
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **statistics)
    log.info("wrote %s: Inception score %.4f +- %.4f", path, is_mean, is_std)
    return path


def _extract(network: GlyphFeatures, images: Tensor) -> tuple[Tensor, Tensor]:
    """float64 features (n, 64) and float32 logits (n, 10) on the CPU."""
    with torch.inference_mode():
        parts = [network(part) for part in images.split(REFERENCE_BATCH)]
    features = torch.cat([f for f, _ in parts]).cpu().double()
    return features, torch.cat([logits for _, logits in parts]).cpu()


def _initialised(build: Callable[[], _Network], seed: int) -> _Network:
    """Build a network with weights that depend on the seed only, leaving torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def provenance(path: Path) -> dict[str, object]:
    """How a weights file came about (regime, iterations, seed, device, ...), from its metadata."""
    return json.loads(metadata_of(path)["provenance"])


def _provenance(options: TrainingOptions, seconds: float) -> str:
    on_gpu = options.device.startswith("cuda")
    choices = {key: value for key, value in vars(options).items() if key not in ("out", "device")}
    record = {
        **choices,
        "initial": provenance(Path(options.initial)) if options.initial else None,
        "optimizer": "Adam, betas 0.9 0.99",
        "selection": SELECTION,
        "seconds": round(seconds, 1),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "commit": _commit(),
    }
    return json.dumps(record)


def _commit() -> str:
    """The git commit trained from, or "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _save_weights(
    network: nn.Module, options: TrainingOptions, seconds: float, metadata: dict[str, str]
) -> Path:
    buffers = {name for name, _ in network.named_buffers()}
    tensors = {
        name: (value if name in buffers else value.half()).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    path = options.out / f"{options.stem}.safetensors"
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={**metadata, "provenance": _provenance(options, seconds)})
    log.info("wrote %s (%d bytes)", path, path.stat().st_size)
    options.checkpoint.unlink(missing_ok=True)
    return path
