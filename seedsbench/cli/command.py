"""What the words of a command say: overrides parsed, their values listed, names of choices checked."""

from collections import Counter
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException

from seedsbench import registry
from seedsbench.checks import nearest

GROUPS = ("model", "regime", "schedule", "grid", "solver", "metrics", "tracker", "experiment")


def parsed(texts: list[str], *, multirun: bool) -> list[Override]:
    """The overrides of a command; ValueError in one line for one that cannot be meant."""
    overrides = [_parsed_override(text) for text in texts]
    for override in overrides:
        key, line = override.key_or_group, override.input_line
        if override.is_sweep_override() and not multirun:
            raise ValueError(f"{line} names several values: add -m before the overrides to run them all")
        if not key:
            raise ValueError(f"cannot read {line!r}: write key=value")
        if key in GROUPS and not override.is_delete() and not _is_glob(override):
            values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
            for value in values:
                _known_choice(key, value)
    for key, times in Counter(override.get_key_element() for override in overrides).items():
        if times > 1:
            raise ValueError(f"{key} is given {times} times: for several values write -m {key}=a,b")
    return overrides


def _parsed_override(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(
            f"cannot read {text!r}: write key=value, or 'key=\"value\"' to quote a value"
        ) from error


def _is_glob(override: Override) -> bool:
    return isinstance(override.value(), Glob)


def _known_choice(group: str, value: Any) -> None:
    known = registry.names(group)
    if str(value) not in known and not (value is None and group == "experiment"):
        raise ValueError(nearest(str(value), known or ["(there is none)"], what=group))


def choices_of(override: Override) -> list[str]:
    """The single-valued overrides a (sweep) override stands for."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if _is_glob(override):
        glob: Any = override.value()
        values = glob.filter(registry.names(override.key_or_group))
    elif override.is_interval_sweep():
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        values = [interval.start, interval.end]
    else:
        values = list(override.sweep_string_iterator())
    if not values:
        raise ValueError(f"{override.input_line} matches nothing: write {key}=a,b")
    return [f"{key}={value}" for value in values]


def variants(choices: list[list[str]]) -> list[list[str]]:
    """The first combination, then each other value beside the first of the others."""
    first = [values[0] for values in choices]
    found = [first]
    for i, values in enumerate(choices):
        found += [[*first[:i], value, *first[i + 1 :]] for value in values[1:]]
    return found
