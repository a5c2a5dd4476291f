"""Tensors inside a pickle, read without torch.load: inert records first, memory only for what is kept.

A pickled storage is a call of `torch.storage._load_from_bytes` on bytes in torch's legacy save format:
four pickles (magic number, format version, system, and the storage, which is a persistent id), the list
of storage keys, then for each key its length (int64) and its raw little-endian numbers. torch itself
would read those bytes with an unrestricted load.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.denoisers.checkpoints.pickle_machine import run
from seedsbench.denoisers.checkpoints.pickle_policy import (
    Budget,
    Damaged,
    Global,
    Policy,
    Refused,
    described,
    shown,
)

MAGIC = 0x1950A86A20F9469CFC6C
FORMAT = 1001
MAX_DIMENSIONS = 8
MAX_EMPTY = 1 << 31
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Storage:
    """Numbers still in the file: `data` holds them raw, little-endian."""

    kind = "storage"
    dtype: torch.dtype
    data: memoryview

    @property
    def numel(self) -> int:
        return len(self.data) // self.dtype.itemsize


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage, checked to lie inside it; offset, size and stride count elements."""

    kind = "tensor"
    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize


@dataclass(frozen=True)
class _Declared:
    """What a storage's persistent id says of it."""

    key: str
    dtype: torch.dtype
    numel: int


class _StorageOnly(Policy):
    """The pickles of one storage: they may name a storage type and refer to the storage; no more."""

    def find(self, name: Global) -> Any:
        if name.module == "torch" and name.name in DTYPES:
            return DTYPES[name.name]
        raise Refused(f"a storage inside it names the global {name}, which is no plain storage type")

    def persistent(self, reference: Any) -> Any:
        match reference:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(numel), None) if numel >= 0:
                return _Declared(key, dtype, numel)
        raise Refused(f"a storage inside it refers to {described(reference)} instead of plain numbers")


def read_storage(blob: memoryview, budget: Budget) -> Storage:
    """The storage in the legacy save format; its numbers stay in `blob`. Raises Refused."""
    values, at = [], 0
    policy = _StorageOnly()
    for _ in range(5):
        value, at = run(blob, policy, budget, at)
        values.append(value)
    magic, version, system, declared, keys = values
    if magic != MAGIC or version != FORMAT:
        raise Refused("a storage inside it is not in torch's legacy save format")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("a storage inside it was not written by a little-endian machine")
    if not isinstance(declared, _Declared) or keys != [declared.key]:
        raise Refused(f"a storage inside it holds {described(declared)} instead of one storage")
    if len(blob) - at < 8:
        raise Damaged("a storage inside it is truncated")
    (numel,) = struct.unpack("<q", blob[at : at + 8])
    there = len(blob) - at - 8
    if numel != declared.numel or numel * declared.dtype.itemsize != there:
        raise Damaged(
            f"a storage inside it declares {declared.numel} and {numel} elements of {declared.dtype} "
            f"and holds {there} bytes"
        )
    return Storage(declared.dtype, blob[at + 8 :])


def tensor_record(args: tuple[Any, ...]) -> TensorRecord:
    """The view that `torch._utils._rebuild_tensor_v2(*args)` would make. Raises Refused."""
    match args:
        case (Storage() as storage, int(offset), tuple(size), tuple(stride), bool(), dict(), *rest):
            pass
        case _:
            kinds = ", ".join(described(arg) for arg in args[:6])
            raise Refused(f"it rebuilds a tensor (torch._utils._rebuild_tensor_v2) from {shown(kinds, 200)}")
    if len(rest) > 1 or any(rest):
        raise Refused("it rebuilds a tensor (torch._utils._rebuild_tensor_v2) with metadata")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS or not all(map(_is_count, numbers)):
        raise Refused(f"it holds a tensor of size {_listed(size)}, stride {_listed(stride)}, offset {offset}")
    numel = math.prod(size)
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    # Elements may not be repeated: a stride of 0 makes any size out of one number. An empty tensor has
    # no elements, but torch multiplies its other sizes.
    bounded = math.prod(n for n in size if n) <= (storage.numel if numel else MAX_EMPTY)
    if not bounded or (numel and end > storage.numel):
        raise Refused(
            f"it holds a tensor of size {_listed(size)}, stride {_listed(stride)}, offset {offset} "
            f"in a storage of {storage.numel} elements"
        )
    return TensorRecord(storage, offset, size, stride)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _listed(values: tuple[Any, ...]) -> str:
    return shown([v if isinstance(v, int) else type(v).__name__ for v in values[: MAX_DIMENSIONS + 1]])


def materialise(record: TensorRecord) -> Tensor:
    """The tensor of a record: contiguous, in memory of its own, on the CPU."""
    dtype, itemsize = record.storage.dtype, record.storage.dtype.itemsize
    if record.nbytes == 0:
        return torch.empty(record.size, dtype=dtype)
    span = 1 + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True))
    raw = record.storage.data[record.offset * itemsize : (record.offset + span) * itemsize]
    # Copied as bytes: what lies in the file need not be aligned.
    flat = torch.empty(len(raw), dtype=torch.uint8)
    flat.numpy()[:] = np.frombuffer(raw, np.uint8)
    # A bool is a byte of 0 or 1; a damaged file may hold others.
    numbers = flat != 0 if dtype is torch.bool else flat.view(dtype)
    return numbers.as_strided(record.size, record.stride).contiguous()
