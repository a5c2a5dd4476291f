"""Checks shared by everything a user can configure: field types, ranges, nearest names."""

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

NO_NETWORK = "has no network to run another way: use precision=fp32 and compile=false"
"""What is said of a model that is a formula, after its name."""


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """One line that says `name` is unknown and what comes nearest."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else f"Known: {', '.join(options)}"
    return f"unknown {what} {name!r}. {hint}"


def check_types(obj: Any) -> None:
    """Raise ValueError if a field of the frozen dataclass `obj` does not have its annotated type.

    Knows float (any finite or infinite real, not NaN), int, bool, str, Literal; other annotations
    are left to the class. Meant for `__post_init__`, so that a wrong value in a YAML is named at once.
    """
    hints = get_type_hints(type(obj))
    for field in dataclasses.fields(obj):
        value, hint = getattr(obj, field.name), hints[field.name]
        reason = _mismatch(value, hint)
        if reason:
            raise ValueError(f"{type(obj).__name__}: {field.name}={value!r} {reason}")


def _mismatch(value: Any, hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        options = get_args(hint)
        return None if value in options else f"must be one of {', '.join(map(str, options))}"
    if hint is bool:
        return None if isinstance(value, bool) else "must be true or false"
    if hint is int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return None if whole else "must be an integer"
    if hint is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return None if real and not math.isnan(float(value)) else "must be a number"
    if hint is str:
        return None if isinstance(value, str) else "must be a string"
    return None


def filled(obj: Any, defaults: Mapping[str, Any]) -> bool:
    """Put defaults where fields of the frozen dataclass `obj` are None; whether any was given."""
    left = [name for name in defaults if getattr(obj, name) is None]
    for name in left:
        object.__setattr__(obj, name, defaults[name])
    return len(left) < len(defaults)


def check_range(
    obj: Any, name: str, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raise ValueError unless `low <= obj.name <= high` (`low <` with open_low, `< high` with open_high)."""
    value = getattr(obj, name)
    above, below = low < value if open_low else low <= value, value < high if open_high else value <= high
    if not (above and below):
        start, end = "(" if open_low else "[", ")" if open_high else "]"
        raise ValueError(f"{type(obj).__name__}: {name}={value} must lie in {start}{low:g}, {high:g}{end}")
