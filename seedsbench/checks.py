"""Checks shared by everything a user can configure: types and ranges of options, nearest names."""

import dataclasses
import difflib
import inspect
import math
import numbers
import sys
import sysconfig
import traceback
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_INSTALLED = [
    Path(__file__).parent,
    *map(Path, {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}),
]
NO_NETWORK = "has no network to run another way: use precision=fp32 and compile=false"
"""What is said of a model that is a formula, after its name."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers an option may be, as data beside its type: `Annotated[float, Range(0, 1, open_low=True)]`.

    low, high: the ends, which belong to it unless open. infinite: whether infinity does; else all is finite.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    infinite: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (self.infinite or abs(value) <= sys.float_info.max)

    def __str__(self) -> str:
        start = "(" if self.open_low or (self.low == -math.inf and not self.infinite) else "["
        end = ")" if self.open_high or (self.high == math.inf and not self.infinite) else "]"
        return f"{start}{self.low:g}, {self.high:g}{end}"


Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, open_low=True)]
Node = Annotated[float, Range(1e-3, 1)]
"""A place in a step, which differences are divided by: nearer to 0 those of float32 networks are noise."""
Level = Annotated[float, Range(0, 1e8, open_low=True)]
"""A noise level: far above, the data are lost in the rounding of the state."""
Count = Annotated[int, Range(1, 10**6)]
Pixels = Literal["signed", "unit"]
"""How images are held: in [-1, 1] or in [0, 1]."""


def source_file(obj: Any) -> str | None:
    """The file that defines the class of an object, or a class or function; None inside this package."""
    defined = obj if inspect.isclass(obj) or inspect.isroutine(obj) else type(obj)
    if (defined.__module__ or "").split(".")[0] == "seedsbench":
        return None
    try:
        return inspect.getsourcefile(defined)
    except TypeError:  # built in
        return None


def named(obj: Any) -> str:
    """The class of an object for an error, and the file of one from outside: "Mine (mine.py)"."""
    file = source_file(obj)
    return type(obj).__name__ + (f" ({Path(file).name})" if file else "")


def place_in(error: BaseException) -> str | None:
    """`file.py:line` of the last call of an error that lies in neither this package nor an installed one."""
    found = None
    for frame in traceback.extract_tb(error.__traceback__):
        file = Path(frame.filename)
        if file.is_file() and not any(file.is_relative_to(folder) for folder in _INSTALLED):
            found = f"{file.name}:{frame.lineno}"
    return found


def in_one_line(error: BaseException) -> str:
    """What an error says; with its type unless it is one that we raise to be read; with `place_in`."""
    message, place = " ".join(str(error).split())[:2000], place_in(error)
    expected = isinstance(error, ValueError | ArithmeticError)
    said = message if expected and message else f"{type(error).__name__}: {message}".removesuffix(": ")
    return f"{said} ({place})" if place and place not in said else said


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """One line that says `name` is unknown and what comes nearest."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else f"Known: {', '.join(options)}"
    return f"unknown {what} {name!r}. {hint}"


def check_fields(obj: Any) -> None:
    """Raise ValueError if a field of the dataclass `obj` is not what its annotation says (`check_options`).

    Meant for `__post_init__`, so that a wrong value in a YAML is named at once.
    """
    values = {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj) if field.init}
    check_options(type(obj).__name__, get_type_hints(type(obj), include_extras=True), values)


def check_options(owner: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise ValueError, naming owner, option and value, where a value is not what its annotation says.

    Knows float (any finite real), int (no bool), bool, str, None, Literal (of the same type: true is not 1),
    unions, lists and tuples, mappings, and a Range beside any of these for the numbers in it; all else is
    left to the owner.
    """
    for name, value in values.items():
        if name in hints and (fault := _fault(name, value, hints[name])):
            raise ValueError(f"{owner}: {fault}")


_KINDS = {
    float: (numbers.Real, "a number"),
    int: (numbers.Integral, "an integer"),
    bool: (bool, "true or false"),
    str: (str, "a string"),
    Mapping: (Mapping, "a mapping"),
    dict: (Mapping, "a mapping"),
    types.NoneType: (types.NoneType, "null"),
}


def _fault(name: str, value: Any, hint: Any, limits: Range | None = None) -> str | None:
    """What is wrong with the value of this name, None if nothing is. limits: of the numbers in it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = [extra for extra in hint.__metadata__ if isinstance(extra, Range)]
        return _fault(name, value, inner[0], found[-1] if found else limits)
    if origin in (Union, types.UnionType):
        faults = [_fault(name, value, option, limits) for option in inner]
        return None if None in faults else f"{faults[0]}{' or null' if types.NoneType in inner else ''}"
    if origin in (list, tuple):
        return _fault_in_list(name, value, hint, limits)
    if origin is dict and inner and isinstance(value, Mapping):
        faults = (_fault(f"{name}.{key}", item, inner[1], limits) for key, item in value.items())
        return next((fault for fault in faults if fault), None)
    if origin is Literal:
        fits = any(type(value) is type(option) and value == option for option in inner)
        wanted = f"one of {', '.join(map(str, inner))}"
    else:
        kind, wanted = _KINDS.get(origin or hint, (object, ""))
        fits = isinstance(value, kind) and (kind in (bool, object) or not isinstance(value, bool))
    if not fits or (hint is float and value != value):
        return f"{name}={value!r} must be {wanted}"
    if hint in (float, int) and value not in (limits or Range()):
        return f"{name}={value} must lie in {limits or Range()}"
    return None


def _fault_in_list(name: str, value: Any, hint: Any, limits: Range | None) -> str | None:
    """What is wrong with a list or tuple, or with the first of its items with which something is."""
    inner = get_args(hint)
    fixed = get_origin(hint) is tuple and inner[-1] is not ...
    if not isinstance(value, list | tuple) or (fixed and len(value) != len(inner)):
        return f"{name}={value!r} must be a list{f' of {len(inner)}' if fixed else ''}"
    kinds = inner if fixed else (inner[0],) * len(value)
    faults = (_fault(f"{name}[{i}]", item, kinds[i], limits) for i, item in enumerate(value))
    return next((fault for fault in faults if fault), None)


def check_call(name: str, called: Any, wanted: str, *arguments: Any) -> None:
    """Raise ValueError unless `called` takes so many arguments. wanted: how it is called, for the error."""
    if not callable(called):
        raise ValueError(f"{name} is no function {wanted} but {type(called).__name__}")
    try:
        signature = inspect.signature(called)
    except ValueError:  # written in C
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{name} must be callable as {wanted}: {error}") from None


def filled(obj: Any, defaults: Mapping[str, Any]) -> bool:
    """Put defaults where fields of the frozen dataclass `obj` are None; whether any was given."""
    left = [name for name in defaults if getattr(obj, name) is None]
    for name in left:
        object.__setattr__(obj, name, defaults[name])
    return len(left) < len(defaults)


def allowed_values(hint: Any, limits: Range | None = None) -> str:
    """The values that an annotation allows, in words for people: "data | noise | edm", "a number in [0, 1]".

    What `check_options` accepts; "" for what it leaves to the owner. limits: of the numbers in it.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = [extra for extra in hint.__metadata__ if isinstance(extra, Range)]
        return allowed_values(inner[0], found[-1] if found else limits)
    if origin in (Union, types.UnionType):
        return " | ".join(filter(None, (allowed_values(option, limits) for option in inner)))
    if origin is Literal:
        return " | ".join(map(as_written, inner))
    if origin is tuple and inner[-1] is not ...:
        return f"a list of {len(inner)}: {', '.join(allowed_values(item, limits) for item in inner)}"
    if origin in (list, tuple):
        each = allowed_values(inner[0], limits)
        return f"a list, each {each}" if each else "a list"
    if hint is bool:
        return "true | false"
    _, wanted = _KINDS.get(origin or hint, (object, ""))
    return f"{wanted} in {limits}" if hint in (float, int) and limits is not None else wanted


def as_written(value: Any) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
