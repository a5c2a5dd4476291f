"""What can be trained or made: a denoiser for each regime, the feature network, reference statistics."""

import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from seedsbench.data.glyphs import FEATURE_TRAIN, REFERENCE, TRAIN
from seedsbench.denoisers.embedded import load_network, provenance
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS, GlyphUNet
from seedsbench.denoisers.preconditioning.denoiser import Preconditioned
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, EDMPreconditioner
from seedsbench.files.atomic import replacing
from seedsbench.metrics.glyph_features import GlyphFeatures, load_glyph_features
from seedsbench.metrics.inception_score import inception_score
from seedsbench.training.loop import checkpoint_path, train
from seedsbench.training.losses import denoising_loss, feature_loss
from seedsbench.training.options import TrainingOptions
from seedsbench.training.pool import Pool, generator_of, make_pool

Network = TypeVar("Network", bound=nn.Module)

log = logging.getLogger(__name__)
SELECTION = "EMA weights at the last iteration, fixed beforehand"
REFERENCE_SIZE = 50_000
REFERENCE_BATCH = 1000


def run(options: TrainingOptions) -> Path:
    """Make the target and return the file written."""
    if options.target == "reference":
        return make_reference(options)
    if options.target == "features":
        return train_features(options)
    if options.target in GLYPH_UNETS:
        return train_denoiser(options)
    known = ", ".join([*GLYPH_UNETS, "features", "reference"])
    raise ValueError(f"unknown target {options.target!r}: use one of {known}")


def train_denoiser(options: TrainingOptions) -> Path:
    """Train the network of one regime; writes <out>/<regime>.safetensors (float16, with provenance)."""
    device, config = torch.device(options.device), GLYPH_UNETS[options.target]
    network = _initialised(lambda: GlyphUNet(config), options.seed)
    if options.initial:
        network.load_state_dict(load_network(Path(options.initial)).state_dict())
    network = network.to(device)
    if device.type == "cpu":
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # 20 % faster
    pool = make_pool(options.pool, seed=options.seed, stream=TRAIN).to(device)
    each = options.batch // options.shards
    outer = PRECONDITIONERS[config.regime]
    if isinstance(outer, EDMPreconditioner):
        outer = replace(outer, P_mean=options.P_mean, P_std=options.P_std)

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        denoiser = Preconditioned(
            network,
            outer,
            img_channels=config.img_channels,
            img_resolution=config.img_resolution,
            label_dim=config.label_dim,
        )
        return denoising_loss(
            denoiser,
            pool,
            generator,
            batch=each,
            label_dropout=options.label_dropout,
            weighting=options.weighting,
        )

    ema, seconds = train(network, loss, options, partial(_generator, options, device))
    ema.copy_to(network)
    metadata = {"network": json.dumps(asdict(config)), "provenance": _provenance(options, seconds)}
    return _save_weights(network, options, metadata)


def train_features(options: TrainingOptions) -> Path:
    """Train the feature network and standardise it on the reference pictures; writes features.safetensors."""
    device = torch.device(options.device)
    network = _initialised(GlyphFeatures, options.seed).to(device)
    pool = make_pool(options.pool, seed=options.seed, stream=FEATURE_TRAIN).to(device)
    each = options.batch // options.shards

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        assert isinstance(network, GlyphFeatures)
        return feature_loss(network, pool, generator, batch=each)

    ema, seconds = train(network, loss, options, partial(_generator, options, device))
    ema.copy_to(network)
    # Round to the stored precision first, so that the standardisation belongs to the weights shipped.
    network.half().float()
    real = make_pool(REFERENCE_SIZE, seed=options.seed, stream=REFERENCE).to(device)
    with torch.inference_mode():
        raw = torch.cat([network.raw(images) for images in real.images.split(REFERENCE_BATCH)]).double()
    network.standardise(raw)
    log.info("class accuracy on %d held-out pictures: %.5f", REFERENCE_SIZE, _accuracy(network, real))
    return _save_weights(network, options, {"provenance": _provenance(options, seconds)})


def make_reference(options: TrainingOptions) -> Path:
    """Feature statistics of 50,000 pictures of the stream REFERENCE; writes glyphs_reference.npz."""
    network = load_glyph_features(options.device, options.out / "features.safetensors")
    pool = make_pool(REFERENCE_SIZE, seed=options.seed, stream=REFERENCE).to(torch.device(options.device))
    features, logits = _extract(network, pool.images)
    is_mean, is_std = inception_score(logits)
    statistics = {
        "mu": features.mean(dim=0).numpy(),
        "sigma": torch.cov(features.T).numpy(),
        "n": np.int64(len(features)),
        "is_mean": np.float64(is_mean),
        "is_std": np.float64(is_std),
    }
    log.info("reference: Inception score %.4f +- %.4f", is_mean, is_std)
    return _save(options.out / "glyphs_reference.npz", partial(_write_npz, statistics))


def _extract(network: GlyphFeatures, images: Tensor) -> tuple[Tensor, Tensor]:
    """float64 features (n, 64) and float32 logits (n, 10) on the CPU."""
    with torch.inference_mode():
        parts = [network(part) for part in images.split(REFERENCE_BATCH)]
    features = torch.cat([f for f, _ in parts]).cpu().double()
    return features, torch.cat([logits for _, logits in parts]).cpu()


def _accuracy(network: GlyphFeatures, pool: Pool) -> float:
    _, logits = _extract(network, pool.images)
    return float((logits.argmax(dim=1) == pool.labels.cpu()).double().mean())


def _initialised(build: Callable[[], Network], seed: int) -> Network:
    """Build a network with weights that depend on the seed only, leaving torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _generator(options: TrainingOptions, device: torch.device, iteration: int, shard: int) -> torch.Generator:
    # Iterations stay below 2^28, so that no two shards share a generator.
    return generator_of(options.seed, iteration + (shard << 28), device)


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


def _save_weights(network: nn.Module, options: TrainingOptions, metadata: dict[str, str]) -> Path:
    buffers = {name for name, _ in network.named_buffers()}
    tensors = {
        name: value.cpu().contiguous() if name in buffers else value.half().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    path = options.out / f"{options.target}.safetensors"
    _save(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    checkpoint_path(options).unlink(missing_ok=True)
    return path


def _write_npz(arrays: dict, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _save(path: Path, save: Callable[[Path], object]) -> Path:
    with replacing(path) as temporary:
        save(temporary)
    log.info("wrote %s (%d bytes)", path, path.stat().st_size)
    return path
