"""Files of `torch.save`, read as tensors and plain containers: what they declare is judged before and after.

torch's weights-only load runs no code, but it takes the time and memory that a file asks for: millions of
opcodes, tuples nested so deep that hashing them ends the process, members that unpack a thousandfold, and
tensors of any size out of one number by strides of 0. Imports torch, unlike the rest of this part.
"""

import io
import pickletools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedsbench.files.archives import MAX_FREE, MAX_RATIO, open_member, open_zip
from seedsbench.files.regular import MAX_BYTES, check_regular

MAX_PICKLE_BYTES = 8 * 2**20
"""Of the part that says what there is; the numbers are elsewhere. 1000 tensors need a quarter of 1 MB."""
MAX_OPCODES = 2_000_000
MAX_TUPLES = 50_000
"""Four a tensor. Python hashes nested tuples by recursion: 120 000 overflow a stack of 8 MB."""
_LEGACY_PICKLES = 5  # magic number, version, system, content, keys


def load_tensors(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """What `torch.save` wrote, onto the CPU. Raises FileNotFoundError, and anything for a file that is bad.

    The tensors take at most twice what the file holds.
    """
    held = check_torch_file(path, max_bytes=max_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how damaged files are pickled
        # Not mapped: only then does torch compare the size that a storage declares with what the file holds.
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=False)
    _check_sizes(content, max(MAX_FREE, 2 * held))
    return content


def check_torch_file(path: Path, *, max_bytes: int = MAX_BYTES) -> int:
    """The bytes that a file of `torch.save` unpacks to; raises as `load_tensors`. Loads nothing."""
    size = check_regular(path, max_bytes=max_bytes)
    with path.open("rb") as file:
        start = file.read(MAX_PICKLE_BYTES)
    if not start.startswith(b"PK"):
        stream = io.BytesIO(start)
        for _ in range(_LEGACY_PICKLES):
            _scan(stream)
        return size
    with open_zip(path) as archive:
        if (held := sum(info.file_size for info in archive.infolist())) > max(MAX_FREE, MAX_RATIO * size):
            raise ValueError(f"its {size} bytes would unpack to {held}")
        for name in archive.namelist():
            if not name.lower().endswith("data.pkl"):  # torch asks for names in any case
                continue
            with open_member(archive, name) as member:
                pickled = member.read(MAX_PICKLE_BYTES + 1)
            if len(pickled) > MAX_PICKLE_BYTES:
                raise ValueError(f"{name} is longer than {MAX_PICKLE_BYTES} bytes")
            _scan(io.BytesIO(pickled))
    return max(size, held)


def _scan(stream: io.BytesIO) -> None:
    """Count what a pickle does, up to its end, without running it."""
    tuples = 0
    for count, (opcode, value, _) in enumerate(pickletools.genops(stream), start=1):
        tuples += opcode.name.startswith(("TUPLE", "FROZENSET"))
        if count > MAX_OPCODES or tuples > MAX_TUPLES:
            raise ValueError(f"its pickle has over {MAX_OPCODES} opcodes, or {MAX_TUPLES} tuples")
        if isinstance(value, str):
            value.encode()  # no lone surrogates


def _check_sizes(content: Any, most: int) -> None:
    total = 0
    for tensor in _tensors(content):
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
            continue  # no numbers of its own in memory
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            shape = tuple(tensor.shape)
            raise ValueError(
                f"a tensor of shape {shape} repeats numbers: its {size} bytes are not in the file"
            )
        total += size
    if total > most:
        raise ValueError(f"its tensors take {total} bytes, over {most}")


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in containers in containers, once each, also where these hold themselves."""
    seen, left = set(), [content]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list | tuple | set):
            left += value
