"""Our own file of weights: safetensors, with the configuration as JSON in the metadata.

The one metadata entry, `seedsbench`, is a JSON object: `format` ("weights"), `version` (1) and `config`.
(One, as safetensors writes several in an order that changes; so the same weights make the same file.)
Such a file holds numbers and text only: reading it needs no unpickler, and its tensors are mapped, not
read.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedsbench.denoisers.checkpoints.edm.denoiser import denoiser_of
from seedsbench.denoisers.checkpoints.edm.read import EDMRecord, read_edm
from seedsbench.denoisers.checkpoints.reading import CheckpointError, checked_safetensors
from seedsbench.denoisers.preconditioning.karras import Preconditioned
from seedsbench.diffusion.noise import latents
from seedsbench.files.archives import one_line, shown
from seedsbench.files.atomic import replacing
from seedsbench.files.model_files import Latents

ENTRY = "seedsbench"
EDM_KEYS = {"class_name", "init_args", "init_kwargs"}


def save_weights(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    config: dict[str, Any],
    *,
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write a state dict and its configuration to `path`: whole or not at all.

    state_dict: name -> tensor, any dtype that safetensors has; tensors that share memory are written
    apart. config: what JSON has (infinities and NaN as Python writes them); tuples become lists, keys text.
    check: is given the file before it takes its place; where it raises, the file is not left.

    Raises CheckpointError for a configuration or tensors that do not fit this, or an unwritable path.
    """
    path = Path(path).expanduser()
    metadata = {ENTRY: _json(config)}
    tensors = {name: _dense(name, value) for name, value in state_dict.items()}
    if not tensors:
        raise CheckpointError("state_dict is empty: there are no weights to write")
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
            check(temporary)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be written: {one_line(error)}") from error


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, state dict) of a file that `save_weights` wrote; tensors on the CPU, in the file's dtype.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged or of another format.
    """
    path = checked_safetensors(path)
    try:
        with safe_open(path, framework="pt") as stored:
            text = (stored.metadata() or {}).get(ENTRY)
        if text is None:
            raise CheckpointError(
                f"{path} is not in our format of weights: its metadata has no `{ENTRY}` entry"
            )
        match json.loads(text):
            case {"format": "weights", "version": 1, "config": dict(config)}:
                return config, load_file(path)
            case {"format": "weights", "version": 1}:
                raise CheckpointError(f"{path} has a config that is no JSON object: {shown(text)}")
        raise CheckpointError(f"{path} is in another format of weights than weights 1: {shown(text)}")
    except CheckpointError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {one_line(error)}") from error


def convert_edm(source: str | Path, target: str | Path, *, key: str = "ema") -> None:
    """Write the network under `key` of an EDM pickle as a file of our own, which `read_converted` reads.

    Raises as `read_edm`, `denoiser_of` and `save_weights`, and CheckpointError for a target not ending in
    .safetensors and for a file that denoises another way than its source; there is then no new file.
    """
    if Path(target).suffix != ".safetensors":
        raise CheckpointError(f"{target} must end in .safetensors, which is what will be written")
    record = read_edm(source, key=key)
    wanted = _denoised(denoiser_of(record))

    def check(written: Path) -> None:
        if not torch.equal(_denoised(denoiser_of(read_converted(written))), wanted):
            raise CheckpointError(f"{target} is not written: it would denoise another way than {source}")

    config: dict[str, Any] = {name: getattr(record, name) for name in sorted(EDM_KEYS)}
    if record.latents is not None:
        config["latents"] = asdict(record.latents)
    save_weights(target, record.state_dict, config, check=check)


def _denoised(denoiser: Preconditioned) -> Tensor:
    """What a network makes of two noisy images, of the first and last class where it has any."""
    sigma = denoiser.round_sigma(torch.tensor(1.0, dtype=torch.float64))
    labels = torch.eye(denoiser.label_dim)[[0, -1]] if denoiser.label_dim else None
    return denoiser(latents(torch.arange(2), denoiser.image_shape, seed=0), sigma, labels)


def read_converted(path: str | Path) -> EDMRecord:
    """The network in a file of `convert_edm`, as `read_edm` gave it (tuples in arguments are lists now)."""
    config, state_dict = read_weights(path)
    match config:
        case {"class_name": str(name), "init_args": list(args), "init_kwargs": dict(kwargs), **rest} if (
            rest.keys() <= {"latents"}
        ):
            try:
                latents = Latents.of(rest["latents"]) if rest else None
            except (ValueError, TypeError) as error:
                raise CheckpointError(
                    f"{path} has other latents than a network's: {one_line(error)}"
                ) from error
            return EDMRecord(name, tuple(args), kwargs, state_dict, latents)
    there, wanted = ", ".join(sorted(config)) or "nothing", ", ".join(sorted(EDM_KEYS))
    raise CheckpointError(f"{path} describes no EDM network: it has {shown(there)}, not {wanted}")


def _json(config: Any) -> str:
    """The metadata entry."""
    if not isinstance(config, dict):
        raise CheckpointError(f"config is a {type(config).__name__}: give a dict")
    try:
        return json.dumps({"format": "weights", "version": 1, "config": config}, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"config cannot be written as JSON: {one_line(error)}") from error


def _dense(name: Any, value: Any) -> Tensor:
    """The tensor in memory of its own, as safetensors wants it; CheckpointError for what is none."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise CheckpointError(f"state_dict[{name!r}] is a {type(value).__name__}: give tensors by name")
    if value.layout is not torch.strided or value.is_meta:
        raise CheckpointError(f"state_dict[{name!r}] is {value.layout} on {value.device}: give it dense")
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
