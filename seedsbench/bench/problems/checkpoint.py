"""Problems of trained networks: weights fetched or given by path, scored as `metrics` says.

`conf/model/<name>.yaml` names `checkpoint_problem`; what it lists is read by `files.model_files`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seedsbench.api import load_denoiser
from seedsbench.bench.problems.base import Model
from seedsbench.denoisers.base import Denoiser, FixedBatch
from seedsbench.files.digests import digest
from seedsbench.files.model_files import Latents, ModelFiles, Wanted, resolve
from seedsbench.integrations.decoder import load_decoder

CPU_BATCH = 8
"""Images a network sees at a time on the CPU: padding the last batch of a few large images is dear."""


@dataclass(frozen=True, eq=False)
class Checkpoint(Model):
    """A network from a file, which brings no features.

    statistics: brings its data set's own (FetchError if it cannot), if there are any. statistics_of: the
    features that they are of.
    """

    statistics: Callable[[], Path] | None = None
    statistics_of: tuple[str, ...] = ("inception",)


def checkpoint_problem(
    regime: str,
    name: str,
    offline: bool = False,
    files: Mapping[str, Any] | None = None,
    path: str | None = None,
    format: str | None = None,
    hints: Mapping[str, Any] | None = None,
    reference: str | Mapping[str, Any] | None = None,
    licence: str | None = None,
    latents: Mapping[str, Any] | None = None,
    vae: str | None = None,
    device: str = "cpu",
) -> Checkpoint:
    """A network from a checkpoint: one of `files` by regime, or the file or folder at `path`.

    format, hints: for `load_denoiser`, what `path` does not say about itself. reference: statistics to
    compare with, a path, an address, or an entry as in `files`. licence: for people. latents, vae: of a
    network of latents, the fields of `Latents` and the folder of the autoencoder that decodes them. Raises
    ValueError (FetchError where a file is missing), saying what to do.
    """
    wanted = ModelFiles(name, files, path, format, hints, reference, licence, latents, vae)
    weights, decoder, statistics = wanted.weights(regime), wanted.decoder(), wanted.statistics()
    # Not fetched, and where it is missing nothing else need be.
    coder = resolve(decoder, offline=offline) if decoder else None
    found = resolve(weights, offline=offline)
    denoiser = load_denoiser(found.path, **weights.hints)
    identity: dict[str, Any] = {"sha256": found.sha256, "hints": weights.hints}
    space, decode = _space(name, latents, denoiser), None
    if space is None and coder is not None:
        raise ValueError(f"model.vae={vae}: the samples of {found.path} are images: leave it out")
    if space is not None:
        if coder is None:
            raise ValueError(
                f"{found.path} makes latents: give model.vae=<folder>, as that of {space.decoder}"
            )
        decode = load_decoder(coder.path, space, denoiser.image_shape).to(device)
        identity |= {"latents": {**dict(space.affine), "pixels": space.pixels}, "decoder": coder.sha256}
    return Checkpoint(
        name=name,
        denoiser=placed(denoiser, device),
        decode=decode,
        model_id=digest(identity),
        statistics=(lambda: resolve(statistics, offline=offline).path) if statistics else None,
        statistics_of=_statistics_of(statistics),
    )


def _space(name: str, said: Mapping[str, Any] | None, denoiser: Any) -> Latents | None:
    """What samples are where they are latents, as configuration or file say; ValueError if they differ."""
    given = None if said is None else Latents.of(said)
    own: Latents | None = getattr(denoiser, "latents", None)
    if given is not None and own is not None and not given.close_to(own):
        raise ValueError(f"model.latents of {name} is {given}, but its file says {own}: leave it out")
    return given or own


def _statistics_of(statistics: Wanted | None) -> tuple[str, ...]:
    """The features that a file of statistics is of: a .pkl holds those of two."""
    name = "" if statistics is None else statistics.remote.name if statistics.remote else str(statistics.path)
    return ("inception", "dinov2") if name.endswith(".pkl") else ("inception",)


def placed(denoiser: Any, device: str) -> Denoiser:
    """The denoiser on a device; on the CPU, where kernels round by batch shape, in batches of one size."""
    if torch.device(device).type == "cpu":
        return denoiser if isinstance(denoiser, FixedBatch) else FixedBatch(denoiser, CPU_BATCH)
    moved: Any = denoiser.denoiser if isinstance(denoiser, FixedBatch) else denoiser
    if not hasattr(moved, "to"):
        raise ValueError(f"{type(moved).__name__} cannot be moved to device={device}: use device=cpu")
    moved.to(device)
    return moved
