"""EDM `.pkl` files, read without running what is in them.

Karras et al. 2022 publish networks as pickles of Python objects that carry their own source code:
unpickling runs it. Here `pickles` makes inert records of them, for the names in `allowed`, and refuses
any other by name, wherever it occurs. Only the record of the network asked for is then looked into: its
class name, constructor arguments, and state dict.
"""

import itertools
import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seedsbench.denoisers.checkpoints.edm.allowed import ALLOWED, Record, TensorRecord, tensor_of
from seedsbench.denoisers.checkpoints.reading import CheckpointError, checked_file
from seedsbench.files.archives import one_line, shown
from seedsbench.files.model_files import Latents
from seedsbench.files.numpy_pickles import ArrayRecord, array_of
from seedsbench.files.pickles import Refused, described, unpickled

MAX_DEPTH = 50
"""Modules within modules, and containers within a constructor argument."""
MAX_MODULES = 5_000
MAX_TENSORS = 20_000
MAX_ARGUMENT_VALUES = 10_000
MAX_CHANNELS = 64
VAE = "https://huggingface.co/stabilityai/sd-vae-ft-mse"
"""Where the autoencoder of EDM2's latents is published."""
MEMBER = re.compile(r"[A-Za-z0-9_]{1,100}")

INSTEAD = (
    "pickle {'ema': network} alone, or write it with seedsbench.denoisers.checkpoints.weights: "
    "save_weights('network.safetensors', network.state_dict(), {'class_name': type(network).__name__, "
    "'init_args': network.init_args, 'init_kwargs': network.init_kwargs})"
)
ADVICE = (
    "The file was not run. If it is damaged, copy or download it again; if you trust it, load it with the "
    f"code that wrote it, on a machine that may run that, and {INSTEAD}"
)


@dataclass(frozen=True)
class EDMRecord:
    """A network as its file describes it, in plain data.

    class_name: its class, EDMPrecond for example. init_args, init_kwargs: what its constructor was
    given (None, bool, int, float, str, tuples, lists, dicts of them; numpy scalars become Python's).
    state_dict: name -> tensor, in the file's dtype, on the CPU, each in memory of its own. latents: of a
    network whose samples are latents, how they were made.
    """

    class_name: str
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]
    state_dict: dict[str, Tensor]
    latents: Latents | None = None


def read_edm(path: str | Path, *, key: str = "ema") -> EDMRecord:
    """The network under `key` of an EDM pickle; others in the file are neither kept nor run.

    Raises FileNotFoundError, and CheckpointError for anything else that is not such a file: unknown
    globals (named), damage, sizes that do not fit the file.
    """
    path = checked_file(path)
    try:
        with path.open("rb") as file:  # what is clearly something else need not be read as a whole
            start = file.read(2)
            data = start + (file.read() if start[:1] == pickle.PROTO else b"")
        content = unpickled(data, ALLOWED)
        return network_in(content, key, path.stat().st_size)
    except Refused as error:
        raise CheckpointError(f"{path} is not read: {error}. {ADVICE}") from error
    except (MemoryError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read into memory: {one_line(error)}") from error


def network_in(content: Any, key: str, file_bytes: int) -> EDMRecord:
    """The network under `key`; its tensors take up to that many bytes. Raises Refused, or MemoryError."""
    network = _entry(content, key)
    state = network.state or {}
    args, kwargs = state.get("_init_args"), state.get("_init_kwargs")
    if type(args) is not tuple or type(kwargs) is not dict or not network.kind.isidentifier():
        raise Refused(f"its network, {described(network)}, does not say how it was constructed")
    left = itertools.count(MAX_ARGUMENT_VALUES, -1)
    args, kwargs = _plain(args, "_init_args", left), _plain(kwargs, "_init_kwargs", left)
    records = dict(_tensors(network, "", itertools.count(MAX_MODULES, -1)))
    if len(records) > MAX_TENSORS:
        raise Refused(f"its network has {len(records)} tensors, over {MAX_TENSORS}")
    if (total := sum(math.prod(r.size) * r.dtype.itemsize for r in records.values())) > file_bytes:
        raise Refused(f"its tensors take {total} bytes, more than the file has ({file_bytes})")
    tensors = {name: tensor_of(record) for name, record in records.items()}
    return EDMRecord(network.kind, args, kwargs, tensors, _latents(content.get("encoder")))


def _entry(value: Any, key: str) -> Record:
    if type(value) is not dict:
        raise Refused(f"it holds {described(value)} and no dict with the key {key!r}")
    if key not in value:
        names = [repr(name[:40]) if isinstance(name, str) else described(name) for name in [*value][:10]]
        there = ", ".join(shown(name, 60) for name in names)
        raise Refused(f"it has no key {key!r}; it has {there or 'none'}")
    if not isinstance(value[key], Record):
        raise Refused(f"under {key!r} it holds {described(value[key])} and no network")
    return value[key]


def _latents(encoder: Any) -> Latents | None:
    """The space of a file's samples by its `encoder`, which EDM2's files have; None where they are images."""
    match encoder:
        case None | Record(kind="StandardRGBEncoder"):
            return None
        case Record(
            kind="StabilityVAEEncoder", state={"scale": ArrayRecord() as scale, "bias": ArrayRecord() as bias}
        ):
            return Latents(_channels("scale", scale), _channels("bias", bias), VAE, pixels="unit")
    raise Refused(
        f"its encoder is {described(encoder)}: StandardRGBEncoder, and StabilityVAEEncoder with its scale "
        "and bias, can be read"
    )


def _channels(name: str, record: ArrayRecord) -> list[float]:
    """A number for each channel."""
    if record.shape is None or len(record.shape) != 1 or record.shape[0] > MAX_CHANNELS:
        raise Refused(f"its encoder's {name} has shape {record.shape}: a number for each channel is expected")
    numbers = array_of(record).astype(float)
    if not np.isfinite(numbers).all() or (name == "scale" and not numbers.all()):
        found = shown(numbers.tolist())
        raise Refused(f"its encoder's {name} is {found}: finite numbers are expected, and no scale of 0")
    return numbers.tolist()


def _plain(value: Any, where: str, left: Iterator[int], depth: int = 0) -> Any:
    """A copy of a constructor argument that is plain data through and through, or Refused."""
    if next(left) <= 0 or depth > MAX_DEPTH:
        raise Refused(f"its {where} nest deeper than {MAX_DEPTH} or hold over {MAX_ARGUMENT_VALUES} values")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(item, where, left, depth + 1) for item in value)
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {
            name: _plain(item, f"{where}[{shown(name, 40)!r}]"[:200], left, depth + 1)
            for name, item in value.items()
        }
    raise Refused(f"its {where} holds {described(value)}, which is no plain value")


def _tensors(module: Record, prefix: str, left: Iterator[int]) -> Iterator[tuple[str, TensorRecord]]:
    """Parameters and persistent buffers under a module, named as in a state dict."""
    state = module.state or {}
    where = f"module {shown(prefix.rstrip('.') or module.kind)}"
    if next(left) <= 0 or prefix.count(".") > MAX_DEPTH:
        raise Refused(f"its modules nest deeper than {MAX_DEPTH} or are over {MAX_MODULES}")
    skipped = state.get("_non_persistent_buffers_set") or set()
    if type(skipped) is not set:
        raise Refused(f"{where} has {described(skipped)} for _non_persistent_buffers_set")
    for group in ("_parameters", "_buffers", "_modules"):
        for name, value in _members(state, group, where):
            if value is None or (group == "_buffers" and name in skipped):
                continue
            if group == "_modules" and isinstance(value, Record):
                yield from _tensors(value, f"{prefix}{name}.", left)
            elif group != "_modules" and isinstance(value, TensorRecord):
                yield prefix + name, value
            else:
                raise Refused(f"{where} has {described(value)} among its {group}, as {shown(name)}")


def _members(state: dict[str, Any], group: str, where: str) -> Iterator[tuple[str, Any]]:
    members = state.get(group, {})
    if type(members) is not dict:
        raise Refused(f"{where} has {described(members)} for {group}")
    for name, value in members.items():
        if not isinstance(name, str) or not MEMBER.fullmatch(name):
            raise Refused(f"{where} has a member with the name {described(name)}")
        yield name, value
