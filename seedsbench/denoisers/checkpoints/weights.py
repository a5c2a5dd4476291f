"""Our own file of weights: safetensors, with the configuration as JSON in the metadata.

The one metadata entry, `seedsbench`, is a JSON object: `format` ("weights"), `version` (1) and `config`.
(One, as safetensors writes several in an order that changes; so the same weights make the same file.)
Such a file holds numbers and text only: reading it needs no unpickler, and its tensors are mapped, not
read.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedsbench.denoisers.checkpoints.edm.denoiser import denoiser_of
from seedsbench.denoisers.checkpoints.edm.read import EDMRecord, read_edm
from seedsbench.denoisers.checkpoints.reading import CheckpointError, check_file, shown
from seedsbench.denoisers.preconditioning.denoiser import Preconditioned
from seedsbench.diffusion.noise import latents
from seedsbench.files.atomic import replacing

ENTRY, FORMAT, VERSION = "seedsbench", "weights", 1
EDM_KEYS = {"class_name", "init_args", "init_kwargs"}


def save_weights(path: str | Path, state_dict: Mapping[str, Tensor], config: dict[str, Any]) -> None:
    """Write a state dict and its configuration to `path`: whole or not at all.

    state_dict: name -> tensor, any dtype that safetensors has; tensors that share memory are written
    apart. config: what JSON has (infinities and NaN as Python writes them); tuples become lists.

    Raises CheckpointError for a configuration or tensors that do not fit this, or an unwritable path.
    """
    path = Path(path).expanduser()
    metadata = {ENTRY: _json({"format": FORMAT, "version": VERSION, "config": config})}
    tensors = _separate(state_dict)
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be written: {shown(error, 200)}") from error


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, state dict) of a file that `save_weights` wrote; tensors on the CPU, in the file's dtype.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged or of another format.
    """
    path = Path(path).expanduser()
    check_file(path)
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
        if ENTRY not in metadata:
            raise CheckpointError(
                f"{path} is not in our format of weights: its metadata has no `{ENTRY}` entry"
            )
        header = json.loads(metadata[ENTRY])
        if not isinstance(header, dict) or (header.get("format"), header.get("version")) != (FORMAT, VERSION):
            raise CheckpointError(
                f"{path} is in another format of weights than {FORMAT} {VERSION}: {shown(metadata[ENTRY])}"
            )
        if not isinstance(config := header.get("config"), dict):
            raise CheckpointError(f"{path} has a config that is no JSON object: {shown(metadata[ENTRY])}")
        return config, load_file(path)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {shown(error, 200)}") from error


def convert_edm(source: str | Path, target: str | Path, *, key: str = "ema") -> None:
    """Write the network under `key` of an EDM pickle as a file of our own, which `read_converted` reads.

    Raises as `read_edm`, `denoiser_of` and `save_weights`, and CheckpointError for a target not ending in
    .safetensors and for a file that denoises another way than its source; there is then no new file.
    """
    target = Path(target).expanduser()
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target} must end in .safetensors, which is what will be written")
    record = read_edm(source, key=key)
    wanted = _denoised(denoiser_of(record))
    config = {name: getattr(record, name) for name in sorted(EDM_KEYS)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as folder:
            written = Path(folder) / target.name
            save_weights(written, record.state_dict, config)
            if not torch.equal(_denoised(denoiser_of(read_converted(written))), wanted):
                raise CheckpointError(f"{target} is not written: it would denoise another way than {source}")
            os.replace(written, target)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error


def _denoised(denoiser: Preconditioned) -> Tensor:
    """What a network makes of two noisy images, of the first and last class where it has any."""
    sigma = denoiser.round_sigma(torch.tensor(1.0, dtype=torch.float64))
    labels = torch.eye(denoiser.label_dim)[[0, -1]] if denoiser.label_dim else None
    return denoiser(latents(torch.arange(2), denoiser.image_shape, seed=0), sigma, labels)


def read_converted(path: str | Path) -> EDMRecord:
    """The network in a file of `convert_edm`, as `read_edm` gave it (tuples in arguments are lists now)."""
    config, state_dict = read_weights(path)
    name, args, kwargs = config.get("class_name"), config.get("init_args"), config.get("init_kwargs")
    if config.keys() != EDM_KEYS or not (
        isinstance(name, str) and isinstance(args, list) and isinstance(kwargs, dict)
    ):
        there = ", ".join(sorted(config)) or "nothing"
        raise CheckpointError(
            f"{path} describes no EDM network: it has {shown(there)}, not {', '.join(sorted(EDM_KEYS))}"
        )
    return EDMRecord(name, tuple(args), kwargs, state_dict)


def _json(header: dict[str, Any]) -> str:
    if not isinstance(config := header["config"], dict):
        raise CheckpointError(f"config is a {type(config).__name__}: give a dict")
    try:
        _check_keys(config)
        return json.dumps(header, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"config cannot be written as JSON: {shown(error, 200)}") from error


def _check_keys(value: Any) -> None:
    """TypeError for keys that JSON would silently turn into text."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"the key {name!r} is not text")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)


def _separate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two in one memory; CheckpointError for what are no named tensors."""
    tensors, used = {}, set()
    for name, value in state_dict.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"state_dict[{name!r}] is a {type(value).__name__}: give tensors by name")
        if value.layout is not torch.strided or value.is_meta:
            raise CheckpointError(f"state_dict[{name!r}] is {value.layout} on {value.device}: give it dense")
        tensor = value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in used:
            tensor = tensor.clone()
        used.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    if not tensors:
        raise CheckpointError("state_dict is empty: there are no weights to write")
    return tensors
