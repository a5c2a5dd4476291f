"""The commands that make a study's rows again, as few as possible: those of cells, put together to sweeps."""

import shlex
from collections.abc import Iterable

MOST_COMMANDS = 2000
"""Beyond so many they are not put together: pages say that every cell has its own."""

_Sweep = dict[str, tuple[str, ...]]  # an override's key and the values that it takes


def sweeps(commands: Iterable[str]) -> list[str]:
    """Commands, -m where a value is a list, that together make exactly the cells of these, each once.

    What is no command, or too many, is left out.

    >>> sweeps(f"seedsbench solver={cell}" for cell in ("heun nfe=10", "heun nfe=20", "ddim nfe=20"))
    ['seedsbench solver=ddim nfe=20', 'seedsbench -m solver=heun nfe=10,20']
    """
    cells = dict.fromkeys(commands)
    if len(cells) > MOST_COMMANDS:
        return []
    groups: dict[tuple[tuple[str, ...], frozenset[str]], list[_Sweep]] = {}
    for command in cells:
        if (found := _parsed(command)) is not None:
            words, overrides = found
            groups.setdefault((words, frozenset(overrides)), []).append(overrides)
    made = []
    for (words, _), found in groups.items():
        for key in reversed(list(found[0])):  # the last varies fastest: seeds, then budgets
            found = _merged(found, key)
        made += [_told(words, sweep) for sweep in found]
    return sorted(made, key=lambda command: (len(command), command))


def _parsed(command: str) -> tuple[tuple[str, ...], _Sweep] | None:
    """The words that are no overrides, and the overrides; None for what is no command of one cell."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    options, overrides = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and not key.startswith("-"):
            overrides[key] = (value,)
        else:
            options.append(word)
    return (tuple(options), overrides) if options[:1] == ["seedsbench"] else None


def _merged(found: list[_Sweep], key: str) -> list[_Sweep]:
    """Sweeps that agree in all but one override, as one."""
    alike: dict[frozenset[tuple[str, tuple[str, ...]]], _Sweep] = {}
    for sweep in found:
        rest = frozenset((name, values) for name, values in sweep.items() if name != key)
        first = alike.setdefault(rest, {**sweep, key: ()})
        first[key] = tuple(sorted(dict.fromkeys(first[key] + sweep[key]), key=_in_order))
    return list(alike.values())


def _in_order(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _told(words: tuple[str, ...], sweep: _Sweep) -> str:
    many = ["-m"] if any(len(values) > 1 for values in sweep.values()) else []
    return shlex.join([words[0], *many, *words[1:], *(f"{key}={','.join(v)}" for key, v in sweep.items())])
