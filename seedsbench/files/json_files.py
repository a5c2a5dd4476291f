"""JSON files that anyone may have written: read with bounds, or refused in one line."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from seedsbench.files.regular import read_ordinary

MOST_BYTES = 2**20
MOST_DIGITS = 40
MOST_LEVELS = 50


def read_json(path: Path, *, max_bytes: int = MOST_BYTES, infinite: bool = False) -> Any:
    """What an ordinary file holds: at most max_bytes of UTF-8 JSON, finite numbers, at most 50 levels deep.

    infinite: -Infinity may stand there too, which diffusers writes for a bound that is off. Never waits: a
    pipe or a device is refused. Raises FileNotFoundError where there is none, and ValueError, in one line
    that does not name the file, for everything else.
    """
    return parse_json(read_ordinary(path, max_bytes=max_bytes), infinite=infinite)


def parse_json(data: bytes | str, *, infinite: bool = False) -> Any:
    """What a JSON text holds, within the same bounds; ValueError, in one line, for any other text."""
    constant = _infinite if infinite else _refused
    try:
        found = json.loads(data, parse_int=_whole, parse_float=_finite, parse_constant=constant)
    except RecursionError as error:
        raise ValueError(f"nested more than {MOST_LEVELS} deep") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from error
    if _depth(found) > MOST_LEVELS:
        raise ValueError(f"nested more than {MOST_LEVELS} deep")
    return found


def _whole(digits: str) -> int:
    if (count := len(digits.lstrip("-"))) > MOST_DIGITS:
        raise ValueError(f"a number of {count} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refused(digits)


def _infinite(name: str) -> float:
    return -math.inf if name == "-Infinity" else _refused(name)


def _refused(digits: str) -> NoReturn:
    raise ValueError(f"the number {digits:.20}: only finite ones are JSON")


def _depth(value: Any) -> int:
    """Levels of lists and objects."""
    levels, layer = 0, [value]
    while layer:
        held = [item for item in layer if isinstance(item, dict | list)]
        layer = [part for item in held for part in (item.values() if isinstance(item, dict) else item)]
        levels += bool(held)
    return levels
