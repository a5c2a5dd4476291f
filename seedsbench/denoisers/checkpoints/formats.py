"""Which reader a checkpoint is for: by its name, by what is in it, or as `format` says."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedsbench.checks import nearest
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.checkpoints.ddim import load_ddim
from seedsbench.denoisers.checkpoints.diffusers_folder import load_diffusers
from seedsbench.denoisers.checkpoints.edm import denoiser_of
from seedsbench.denoisers.checkpoints.edm_pickle import read_edm
from seedsbench.denoisers.checkpoints.guided import load_guided
from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.score_sde import load_score_sde
from seedsbench.denoisers.checkpoints.weights import ENTRY, read_converted
from seedsbench.denoisers.embedded import as_denoiser, load_network, metadata_of


def load_edm(path: str | Path, *, key: str = "ema") -> Denoiser:
    """The network under `key` of an EDM .pkl, which is read and not run; float32, on the CPU."""
    return denoiser_of(read_edm(path, key=key))


def load_own(path: str | Path) -> Denoiser:
    """A .safetensors file of seedsbench: an embedded network, or what seedsbench-convert made."""
    path = Path(path).expanduser()
    if ENTRY in metadata_of(path):
        return denoiser_of(read_converted(path))
    return as_denoiser(load_network(path))


@dataclass(frozen=True)
class Format:
    """A reader, and what its files are, in words."""

    load: Callable[..., Denoiser]
    what: str


FORMATS = {
    "seedsbench": Format(load_own, "seedsbench .safetensors"),
    "edm": Format(load_edm, "EDM .pkl"),
    "diffusers": Format(load_diffusers, "diffusers folder"),
    "score_sde": Format(load_score_sde, "score_sde checkpoint_N.pth"),
    "ddim": Format(load_ddim, "DDIM authors' .ckpt or .pth"),
    "guided": Format(load_guided, "guided-diffusion or improved-diffusion .pt"),
}
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")


def load_any(path: str | Path, hints: Mapping[str, Any]) -> Denoiser:
    """The denoiser in a checkpoint, on the CPU. hints: `format`, and what that format's reader takes.

    Raises FileNotFoundError, and CheckpointError for a file no reader knows, a damaged one, and hints that
    are unknown, missing or do not fit.
    """
    path, hints = Path(path).expanduser(), dict(hints)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give a checkpoint, one of {_known()}")
    name = str(hints.pop("format", None) or format_of(path))
    if name not in FORMATS:
        raise CheckpointError(nearest(name, FORMATS, what="format"))
    reader = FORMATS[name].load
    parameters = list(inspect.signature(reader).parameters.values())[1:]
    for hint in hints:
        if hint not in (names := [parameter.name for parameter in parameters]):
            raise CheckpointError(f"format {name}: {nearest(hint, names or ['(none)'], what='hint')}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in hints]
    if missing:
        raise CheckpointError(
            f"{path} is a {FORMATS[name].what}, which does not say {', '.join(missing)}: give "
            + ", ".join(f"{one}=..." for one in missing)
            + " (on the command line '+model.hints={"
            + ", ".join(f"{one}: ..." for one in missing)
            + "}')"
        )
    return reader(path, **hints)


def format_of(path: Path) -> str:
    """The name in FORMATS of what is at `path`; CheckpointError where it cannot be told."""
    if path.is_dir():
        return "diffusers"
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return "seedsbench"
    if suffix == ".pkl":
        return "edm"
    found = _sniffed(path) if suffix in TORCH_SUFFIXES else None
    if found is None:
        raise CheckpointError(f"{path} is none of {_known()}: name its kind with format={'|'.join(FORMATS)}")
    return found


def _sniffed(path: Path) -> str | None:
    """The family a torch file belongs to, by its outer structure and its keys."""
    content = read_torch(path)
    if isinstance(content, list | tuple):
        return "ddim"
    if not isinstance(content, Mapping):
        return None
    keys = {key.removeprefix("module.") for key in content if isinstance(key, str)}
    if "time_embed.0.weight" in keys:
        return "guided"
    if "temb.dense.0.weight" in keys:
        return "ddim"
    return "score_sde" if {"model", "ema"} <= keys else None


def _known() -> str:
    return ", ".join(one.what for one in FORMATS.values())
