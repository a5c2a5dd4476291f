"""The globals of an EDM pickle, and the inert record that each becomes.

The list is what files written by that code hold, in old and new spellings; it grows only by globals
whose effect is known and reproduced here, on checked arguments.
"""

import inspect
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seedsbench.denoisers.checkpoints.pickle_policy import Budget, Global, Policy, Refused, described
from seedsbench.denoisers.checkpoints.torch_blob import TensorRecord, read_storage, tensor_record


@dataclass
class Record:
    """An object of a file: the name of its class and, inert, what was in it."""

    kind: str
    state: dict[str, Any] | None = None


@dataclass
class NumpyType:
    """A numpy dtype: kind and width ("f8"), and the byte order once BUILD has said it."""

    kind = "numpy.dtype"
    code: str
    order: str | None = None


NUMPY_CODES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
NUMPY_CODES |= {"u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
ORDERS = {"<": "<", ">": ">", "|": "<"}
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"


def _persistent_object(meta: Any) -> Record:
    """The record of an object that brings its source along; the source is dropped unread."""
    name = meta.get("class_name") if type(meta) is dict else None
    if not isinstance(name, str) or type(meta.get("state")) is not dict or meta.get("type") != "class":
        raise Refused(f"it calls {PERSISTENT} with {described(meta)} that describes no object")
    return Record(name, meta["state"])


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> TensorRecord:
    if not isinstance(data, TensorRecord) or hooks:
        raise Refused(f"it makes a parameter (torch._utils._rebuild_parameter) of {described(data)}")
    return data


def _numpy_type(code: Any, align: Any = False, copy: Any = True) -> NumpyType:
    if not isinstance(code, str) or code not in NUMPY_CODES:
        raise Refused(f"it names a numpy.dtype by {described(code)}; only plain numbers are read")
    return NumpyType(code)


def _numpy_scalar(dtype: Any, data: Any) -> bool | int | float:
    if not isinstance(dtype, NumpyType) or not isinstance(data, memoryview | bytes):
        raise Refused(f"it makes a numpy scalar of {described(dtype)} and {described(data)}")
    form = struct.Struct((dtype.order or "<") + NUMPY_CODES[dtype.code])
    if len(data) != form.size:
        raise Refused(f"it makes a numpy scalar of type {dtype.code} from {len(data)} bytes")
    return form.unpack(data)[0]


def _encode(text: Any, encoding: Any) -> memoryview:
    """How protocol 2 spells bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"it calls _codecs.encode with {described(text)} and {described(encoding)}")
    try:
        return memoryview(text.encode("latin-1"))
    except UnicodeEncodeError:
        raise Refused("it calls _codecs.encode with text that is not latin-1") from None


def _empty_dict() -> dict[Any, Any]:
    return {}


def _set(items: Any) -> set[Any]:
    """How protocols 2 and 3 spell sets."""
    if type(items) is not list or not all(isinstance(item, str) for item in items):
        raise Refused(f"it makes a set of {described(items)}; only a list of texts will do")
    return set(items)


CONTAINERS = {"torch.nn.modules.container." + name for name in ("ModuleDict", "ModuleList", "Sequential")}
DICTIONARIES = {"collections.OrderedDict", "dnnlib.util.EasyDict"}
CALLS: dict[str, Callable[..., Any]] = {
    PERSISTENT: _persistent_object,
    "torch._utils._rebuild_tensor_v2": lambda *args: tensor_record(args),
    "torch._utils._rebuild_parameter": _parameter,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "collections.OrderedDict": _empty_dict,
    "dnnlib.util.EasyDict": _empty_dict,
    "_codecs.encode": _encode,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "builtins.bytes": lambda: memoryview(b""),
    "__builtin__.bytes": lambda: memoryview(b""),
}
"""The globals that may be called, and what is called instead."""
SIGNATURES = {name: inspect.signature(function) for name, function in CALLS.items()}
LOAD_STORAGE = "torch.storage._load_from_bytes"
NAMES = {*CALLS, *CONTAINERS, *DICTIONARIES, LOAD_STORAGE}
"""All globals a file may name."""


class EDMPolicy(Policy):
    """What an EDM pickle may name and do."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def find(self, name: Global) -> Global:
        # The two parts are looked up as written: "os", "path.join" is no other spelling of anything.
        if "." in name.name or str(name) not in NAMES:
            raise Refused(f"it names the global {name}, which is not on the list of harmless ones")
        return name

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        name = str(function) if isinstance(function, Global) else ""
        if name == LOAD_STORAGE:
            if len(args) != 1 or not isinstance(args[0], memoryview):
                raise Refused(f"it calls {name} with {described(args[0] if args else None)}, not with bytes")
            return read_storage(args[0], self.budget)
        if name not in CALLS:
            raise Refused(f"it calls {described(function)}, which is nothing to be called")
        try:
            SIGNATURES[name].bind(*args)
        except TypeError:
            raise Refused(f"it calls {name} with {len(args)} arguments") from None
        return CALLS[name](*args)

    def create(self, cls: Any, args: tuple[Any, ...]) -> Any:
        name = str(cls) if isinstance(cls, Global) else ""
        if args or name not in CONTAINERS | DICTIONARIES:
            raise Refused(f"it creates an object of {described(cls)} with {len(args)} arguments")
        return {} if name in DICTIONARIES else Record(name)

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, Record) and target.kind in CONTAINERS and target.state is None:
            if type(state) is dict:
                target.state = state
                return
        elif isinstance(target, NumpyType) and target.order is None and type(state) is tuple:
            order = state[1] if len(state) > 1 else None
            if isinstance(order, str) and order in ORDERS:
                target.order = ORDERS[order]
                return
        raise Refused(f"it sets the state (BUILD) of {described(target)} to {described(state)}")
