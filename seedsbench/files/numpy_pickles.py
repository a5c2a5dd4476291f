"""What stands for numpy's scalars and arrays in pickles: plain numbers, and inert records of arrays.

NUMBERS are the names that NVIDIA's files use for them and for dicts, in old and new spellings. Only numbers
are read, never objects; an array's stay bytes of the file until `array_of`.
"""

import math
import re
from typing import Any

import numpy as np

from seedsbench.files.pickles import Inert

MAX_DIMENSIONS = 8


class Dictionary(Inert):
    """Makes an empty dict, whether called or asked for a new object."""

    def __new__(cls) -> dict[Any, Any]:
        return {}


class NumpyType(Inert):
    """A numpy dtype: kind and width ("f8"), and the byte order once BUILD has said it."""

    kind = "numpy.dtype"

    def __init__(self, code: str) -> None:
        self.code, self.order = code, ""

    def __setstate__(self, state: Any) -> None:
        match state:
            case (_, "<" | ">" | "|" as order, *_) if not self.order:
                self.order = order
            case _:
                super().__setstate__(state)


class ArrayRecord(Inert):
    """An array: its shape, type and numbers once BUILD has brought them; columns first where by_columns."""

    kind = "numpy array"
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    data: bytes = b""
    by_columns: bool = False

    def __setstate__(self, state: Any) -> None:
        match state:
            case (1, tuple(shape), NumpyType() as of, bool(by_columns), bytes(data)) if self.shape is None:
                numbers = len(shape) <= MAX_DIMENSIONS and all(map(is_count, shape)) and math.prod(shape)
                if numbers and numbers * int(of.code[1:]) == len(data):
                    self.shape, self.dtype, self.data = shape, of.order + of.code, data
                    self.by_columns = by_columns
                    return
        super().__setstate__(state)


def array_of(record: ArrayRecord) -> np.ndarray:
    """The array of a record, read-only: a view of the bytes. Raises ValueError for one without numbers."""
    if record.shape is None:
        raise ValueError("a numpy array without numbers")
    flat = np.frombuffer(record.data, record.dtype)
    return flat.reshape(record.shape, order="F" if record.by_columns else "C")


def is_count(value: Any) -> bool:
    """Whether it is a whole number that a size can be."""
    return type(value) is int and 0 <= value < 1 << 63


def _numpy_type(code: Any, align: Any = False, copy: Any = True) -> NumpyType:
    if not re.fullmatch("f[248]|[iu][1248]|b1", code):
        raise ValueError("only plain numbers are read")
    return NumpyType(code)


def _numpy_scalar(dtype: Any, data: Any) -> bool | int | float:
    if not isinstance(dtype, NumpyType) or type(data) is not bytes:
        raise ValueError("a numpy scalar is made of a dtype and bytes")
    return np.frombuffer(data, dtype.order + dtype.code).item()


def _numpy_array(kind: Any, shape: Any, code: Any) -> ArrayRecord:
    """An empty one, as numpy makes it; what is in it follows as its state."""
    if kind is not ArrayRecord or shape != (0,) or code != b"b":
        raise ValueError("an array begins as an empty numpy.ndarray")
    return ArrayRecord()


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 spells bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("only text is encoded, as latin-1")
    return text.encode("latin-1")


_HOMES = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMBERS: dict[str, Any] = {
    "dnnlib.util.EasyDict": Dictionary,
    "numpy.dtype": _numpy_type,
    "numpy.ndarray": ArrayRecord,
    **{f"{home}.scalar": _numpy_scalar for home in _HOMES},
    **{f"{home}._reconstruct": _numpy_array for home in _HOMES},
    "_codecs.encode": _encode,
}
"""Names of a pickle, and what stands for each."""
