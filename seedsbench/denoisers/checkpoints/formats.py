"""Which reader a checkpoint is for: by its name, by what is in it, or as `format` says."""

import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from seedsbench.checks import check_options, nearest
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.checkpoints.ddim import load_ddim
from seedsbench.denoisers.checkpoints.diffusers_folder import load_diffusers
from seedsbench.denoisers.checkpoints.dit import load_dit
from seedsbench.denoisers.checkpoints.edm.denoiser import denoiser_of
from seedsbench.denoisers.checkpoints.edm.read import INSTEAD, read_edm
from seedsbench.denoisers.checkpoints.guided import load_guided
from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.score_sde.load import load_score_sde
from seedsbench.denoisers.checkpoints.score_sde.modules import PREFIX
from seedsbench.denoisers.checkpoints.states import DATA_PARALLEL, is_state, without_prefix
from seedsbench.denoisers.checkpoints.torchcfm import STATES, load_torchcfm
from seedsbench.denoisers.checkpoints.weights import ENTRY, read_converted
from seedsbench.denoisers.embedded import as_denoiser, load_network, metadata_of
from seedsbench.files.archives import shown


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
    "torchcfm": Format(load_torchcfm, "torchcfm .pt"),
    "dit": Format(load_dit, "DiT or SiT .pt"),
}
_ALL_KINDS = ", ".join(one.what for one in FORMATS.values())
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
_BY_SUFFIX = {".safetensors": "seedsbench", ".pkl": "edm"}
_FAMILIES = {"temb.dense.0.weight": "ddim", "time_embed.0.weight": "guided"}
_FAMILIES |= {"y_embedder.embedding_table.weight": "dit"}
"""A key that every network of a family has. Those of score SDE have a prefix of their own."""
WITHOUT_CONFIGURATION = {
    "time_embedding.linear_1.weight": "weights of a diffusers model without its configuration: give the "
    "folder that save_pretrained of the model writes, with that of its scheduler as scheduler/ in it",
    "model.map_layer0.weight": f"weights of an EDM network without its arguments: {INSTEAD}",
}
"""A key of networks that cannot be built from their weights alone, and what to do instead."""


def load_any(path: str | Path, hints: Mapping[str, Any]) -> Denoiser:
    """The denoiser in a checkpoint, on the CPU. hints: `format`, and what that format's reader takes.

    Raises FileNotFoundError, CheckpointError for a file that is damaged or known to no reader, and ValueError
    for hints that are unknown, missing or do not fit.
    """
    path, hints = Path(path).expanduser(), dict(hints)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give a checkpoint, one of {_ALL_KINDS}")
    name = str(hints.pop("format", None) or format_of(path))
    if name not in FORMATS:
        raise ValueError(nearest(name, FORMATS, what="format"))
    return FORMATS[name].load(path, **_checked(name, hints, path))


def _checked(format_name: str, hints: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The hints, each as its parameter's annotation wants it; raises ValueError where one cannot be."""
    reader = FORMATS[format_name]
    parameters = list(inspect.signature(reader.load).parameters.values())[1:]
    kinds = {parameter.name: parameter.annotation for parameter in parameters}
    for hint in hints:
        if hint not in kinds:
            raise ValueError(f"format {format_name}: {nearest(hint, kinds or ['(none)'], what='hint')}")
    values = {hint: _plain(value, kinds[hint]) for hint, value in hints.items()}
    check_options(f"format {format_name}", kinds, values)
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in hints]
    if missing:
        options, entries = (", ".join(f"{one}{dots}" for one in missing) for dots in ("=...", ": ..."))
        raise ValueError(
            f"{path} is a {reader.what}, which does not say {', '.join(missing)}: give {options} "
            f"(on the command line '+model.hints={{{entries}}}')"
        )
    return values


def _plain(value: Any, kind: Any) -> Any:
    """A hint for a parameter so annotated: where one value is wanted, [32, 32] is 32 and 32.0 is 32."""
    kinds = {kind, *get_args(kind)}
    if str in kinds:  # numbers in any form, which the reader sorts out
        return value
    if isinstance(value, list | tuple) and value and all(one == value[0] for one in value):
        value = value[0]
    return int(value) if int in kinds and isinstance(value, float) and value.is_integer() else value


def format_of(path: Path) -> str:
    """The name in FORMATS of what is at `path`; CheckpointError where it cannot be told."""
    if path.is_dir():
        return "diffusers"
    suffix = path.suffix.lower()
    if suffix in TORCH_SUFFIXES:
        return _sniffed(path)
    if suffix not in _BY_SUFFIX:
        raise CheckpointError(
            f"{path} is none of {_ALL_KINDS}: name its kind with format={'|'.join(FORMATS)}"
        )
    return _BY_SUFFIX[suffix]


def _sniffed(path: Path) -> str:
    """The family of a torch file, by the keys of its network's weights; CheckpointError if none is known."""
    content = read_torch(path)
    network: Any = content[0] if isinstance(content, list | tuple) and content else content
    if (family := _family(network)) is not None:
        return family
    parts: Mapping[Any, Any] = content if isinstance(content, Mapping) else {}
    families = {str(name): family for name, part in parts.items() if (family := _family(part))}
    if families.get("model") == "score_sde":
        return "score_sde"
    if families.get(STATES["ema"]) == "guided":
        return "torchcfm"
    if families:
        names = shown(" or ".join(families))
        kinds = " or ".join(dict.fromkeys(FORMATS[one].what for one in families.values()))
        raise CheckpointError(
            f"{path} holds {_keys(parts)}, with the weights of a {kinds} under {names}: "
            f"torch.save those of {names} alone"
        )
    states: list[Any] = [part for part in (network, *parts.values()) if is_state(part)]
    for state in states:
        for key, advice in WITHOUT_CONFIGURATION.items():
            if key in without_prefix(state):
                raise CheckpointError(f"{path} holds {advice}")
    inside = "; its weights begin with " + _keys(states[0]) if states and states[0] is not network else ""
    what = _keys(network) if isinstance(network, Mapping) else type(network).__name__
    raise CheckpointError(f"{path} is none of {_ALL_KINDS}: it holds {what}{inside}")


def _family(part: Any) -> str | None:
    """The family that a state dict belongs to by its keys."""
    names = [key for key in part if isinstance(key, str)] if isinstance(part, Mapping) else []
    keys = {name.removeprefix(DATA_PARALLEL) for name in names}
    if any(key.startswith(PREFIX) for key in keys):
        return "score_sde"
    return next((family for key, family in _FAMILIES.items() if key in keys), None)


def _keys(part: Mapping[Any, Any]) -> str:
    """The first keys as text; of one that is a container only its type, as its text may have no end."""
    keys = [key if isinstance(key, str | int) else type(key).__name__ for key in itertools.islice(part, 5)]
    return shown(", ".join(map(str, keys)) or "nothing", 120)
