"""The names that EDM's pickles may hold, and what stands for each: inert records, and our own makers of them.

ALLOWED is what files written by that code hold, in old and new spellings; it grows only by names whose effect
is known and reproduced here, on checked arguments. Tensors stay bytes of the file until `tensor_of`.
"""

import io
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.files.numpy_pickles import MAX_DIMENSIONS, NUMBERS, Dictionary, is_count
from seedsbench.files.pickles import Inert, described, loaded

MAX_STORAGE_OPCODES = 1_000
MAX_EMPTY = 1 << 31


class Record(Inert):
    """An object of a file: the name of its class and, inert, what was in it."""

    kind = "module"
    state: dict[str, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if self.state is not None or type(state) is not dict:
            super().__setstate__(state)
        self.state = state


# --- tensors --------------------------------------------------------------------------------------

# A pickled storage is a call of `torch.storage._load_from_bytes` on bytes in torch's legacy format: pickles
# (magic number, format version, system, the storage as a persistent id, a list with its key), then its length
# (int64) and its raw numbers. torch itself would read those bytes with an unrestricted load, or with a
# restricted one take the memory that they declare before it looks for the numbers.
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
_DTYPES = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
_DTYPES |= {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8}
_DTYPES |= {"Byte": torch.uint8, "Bool": torch.bool}
STORAGES = {f"torch.{name}Storage": name for name in _DTYPES}


@dataclass(eq=False)
class Storage(Inert):
    """Numbers as they are in the file: raw, little-endian."""

    kind = "storage"
    dtype: torch.dtype
    data: memoryview


@dataclass(eq=False)
class TensorRecord(Inert):
    """A view of the numbers of a storage from its first to its last one; size and stride count elements."""

    kind = "tensor"
    dtype: torch.dtype
    data: memoryview
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _storage(blob: Any) -> Storage:
    if type(blob) is not bytes or not blob.startswith(LEGACY):
        raise ValueError("not bytes in torch's legacy save format")
    stream = io.BytesIO(blob)
    stream.seek(len(LEGACY))
    values = [loaded(stream, STORAGES, most=MAX_STORAGE_OPCODES, more=["BINPERSID"]) for _ in range(3)]
    match values:
        case [{"little_endian": True}, ("storage", str(kind), str(key), str(), int(numel), None), [only]] if (
            kind in _DTYPES and only == key
        ):
            dtype = _DTYPES[kind]
        case _:
            raise ValueError(f"{', '.join(map(described, values))} are not one storage of plain numbers")
    (counted,) = struct.unpack("<q", stream.read(8))
    data = memoryview(blob)[stream.tell() :]
    if counted != numel or numel * dtype.itemsize != len(data):
        raise ValueError(f"it declares {numel} and {counted} elements of {dtype}, for {len(data)} bytes")
    return Storage(dtype, data)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
) -> TensorRecord:
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple or metadata:
        raise ValueError("a tensor is made of a storage, and sizes")
    there, numbers = len(storage.data) // storage.dtype.itemsize, (offset, *size, *stride)
    if len(size) == len(stride) <= MAX_DIMENSIONS and all(map(is_count, numbers)):
        span = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
        # Elements may not be repeated: a stride of 0 makes any size out of one number. An empty tensor has
        # no elements, but torch multiplies its other sizes.
        most = there if span else MAX_EMPTY
        if (not span or offset + span <= there) and math.prod(n for n in size if n) <= most:
            data = storage.data[offset * storage.dtype.itemsize :][: span * storage.dtype.itemsize]
            return TensorRecord(storage.dtype, data, size, stride)
    listed = [number if isinstance(number, int) else type(number).__name__ for number in numbers[:20]]
    raise ValueError(f"a tensor of (offset, *size, *stride) {listed} in a storage of {there} elements")


def tensor_of(record: TensorRecord) -> Tensor:
    """The tensor of a record: contiguous, in memory of its own, on the CPU."""
    # Copied as bytes: what lies in the file need not be aligned.
    flat = torch.empty(len(record.data), dtype=torch.uint8)
    flat.numpy()[:] = np.asarray(record.data)
    # A bool is a byte of 0 or 1; a damaged file may hold others.
    numbers = flat != 0 if record.dtype is torch.bool else flat.view(record.dtype)
    return numbers.as_strided(record.size, record.stride).contiguous()


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> TensorRecord:
    if not isinstance(data, TensorRecord) or hooks:
        raise ValueError("a parameter is made of a tensor")
    return data


# --- the other names ------------------------------------------------------------------------------


def _persistent_object(meta: Any) -> Record:
    """The record of an object that brings its source along; the source is dropped unread."""
    match meta:
        case {"type": "class", "class_name": str(name), "state": dict(state)}:
            record = Record()
            record.kind, record.state = name, state
            return record
    raise ValueError("that describes no object")


def _set(items: Any) -> set[str]:
    """How protocols 2 and 3 spell sets."""
    if type(items) is not list or not all(type(item) is str for item in items):
        raise ValueError("only a list of texts will do")
    return set(items)


ALLOWED: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    **{f"torch.nn.modules.container.{name}": Record for name in ("ModuleDict", "ModuleList", "Sequential")},
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": Dictionary,
    **NUMBERS,
    **dict.fromkeys(("builtins.set", "__builtin__.set"), _set),
    **dict.fromkeys(("builtins.bytes", "__builtin__.bytes"), lambda: b""),
}
"""All names a file may hold, and what stands for each: a class of ours where objects are made by NEWOBJ."""
