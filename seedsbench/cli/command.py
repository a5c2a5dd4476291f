"""The words of a command: its flags, its overrides, and the values that each override runs through.

Overrides are read with Hydra's own parser; nothing is composed here.
"""

import argparse
import itertools
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException

from seedsbench import registry
from seedsbench.checks import nearest

HOME = re.compile(r"^([\w.]+=)(~[^'\",]*)$")
"""A path from a home, which Hydra reads only in quotes, and a shell takes off the quotes it was given in."""
MAX_CELLS = 10**4
"""Cells that one command may name; each may be repeated."""
GROUPS = ("model", "regime", "schedule", "grid", "solver", "guidance", "metrics", "tracker", "experiment")


class Usage(Exception):
    """A command that cannot run; the message is one line that says what would work."""


@dataclass(frozen=True)
class Command:
    """overrides: as written, "key=value". informational: --cfg and the like, which Hydra answers."""

    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()
    multirun: bool = False
    version: bool = False
    help: bool = False
    informational: bool = False

    @property
    def choices(self) -> list[list[str]]:
        """For each override the single-valued ones that it stands for: a sweep is their product.

        Raises ValueError in one line for an override that cannot be meant.
        """
        overrides = [read(text) for text in self.overrides]
        for override in overrides:
            _check(override, self.multirun)
        for key, times in Counter(override.get_key_element() for override in overrides).items():
            if times > 1:
                raise ValueError(f"{key} is given {times} times: for several values write -m {key}=a,b")
        return [_values(override) for override in overrides]

    @property
    def swept(self) -> frozenset[str]:
        """The keys that have several values, so that cells differ in them. Raises as `choices`."""
        several = [values for values in self.choices if len(values) > 1]
        return frozenset(key_of(values[0]) for values in several)


_FLAGS: dict[str, dict[str, Any]] = {
    "--multirun -m": {"action": "store_true"},
    "--config-dir -cd": {"action": "append", "default": []},
    "--version": {"action": "store_true"},
    "--help -h": {"action": "store_true"},
    "--hydra-help": {"action": "store_true"},
    "--cfg -c": {"choices": ["job", "hydra", "all"]},
    "--info -i": {"nargs": "?", "const": "all"},
    "--package -p": {},
    "--resolve": {"action": "store_true"},
    "--shell-completion -sc": {"action": "store_true"},
}
"""Ours and those of Hydra's that make sense here, and how argparse reads each."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message} (seedsbench --help lists what there is)")


def parse(arguments: list[str]) -> Command:
    """Take the arguments apart; flags may stand anywhere. Raises Usage for an unknown flag."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names, how in _FLAGS.items():
        parser.add_argument(*names.split(), **how)
    known, rest = parser.parse_known_args(arguments)
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown:
        raise Usage(nearest(unknown[0], " ".join(_FLAGS).split(), what="flag"))
    return Command(
        overrides=tuple(HOME.sub(r"\1'\2'", word) for word in (*known.overrides, *rest)),
        config_dirs=tuple(known.config_dir),
        multirun=known.multirun,
        version=known.version,
        help=known.help,
        informational=any((known.hydra_help, known.cfg, known.info, known.shell_completion)),
    )


def use_config_dirs(command: Command) -> None:
    """Let YAMLs of --config-dir be chosen, and name modules beside them; Usage for one that is not there."""
    for folder in command.config_dirs:
        if not Path(folder).is_dir():
            raise Usage(f"--config-dir {folder}: no such folder; give one that holds solver/<name>.yaml")
    known = os.environ.get("SEEDSBENCH_CONF", "").split(os.pathsep)
    folders = [*(str(Path(folder).resolve()) for folder in command.config_dirs), *filter(None, known)]
    registry.use_folders(os.pathsep.join(dict.fromkeys(folders)))


def with_experiment(command: Command) -> Command:
    """Spell the sweep of `experiment=<name>` out as overrides, less the keys that the command itself gives.

    So it is checked and planned like any other. Raises Usage where the sweep needs -m and has none.
    """
    given = dict(text.split("=", 1) for text in command.overrides if "=" in text)
    experiment = given.get("experiment", "")
    if "," in experiment:
        raise Usage(f"experiment={experiment} names several experiments: run one at a time")
    swept = registry.sweep_of(experiment)
    missing = {key: values for key, values in swept.items() if key not in given}
    if missing and not command.multirun:
        raise Usage(f"experiment={experiment} sweeps over {', '.join(missing)}: add -m to run it")
    if not swept:
        return command
    spelt = [f"{key}={values}" for key, values in missing.items()]
    return replace(command, overrides=(*command.overrides, *spelt, "hydra.sweeper.params=null"))


def key_of(word: str) -> str:
    """The key of an override."""
    return word.split("=", 1)[0]


@lru_cache(maxsize=4096)
def read(text: str) -> Override:
    """One override as Hydra reads it; ValueError in one line for what it cannot."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(
            f"cannot read {text!r}: write key=value, or 'key=\"value\"' to quote a value"
        ) from error
    if not override.key_or_group:
        raise ValueError(f"cannot read {text!r}: write key=value")
    return override


def _check(override: Override, multirun: bool) -> None:
    """Raise ValueError for several values without -m, and for a choice that does not exist."""
    group = override.key_or_group
    if override.is_sweep_override() and not multirun:
        raise ValueError(
            f"{override.input_line} names several values: add -m before the overrides to run them all"
        )
    if group not in GROUPS or override.is_delete() or isinstance(override.value(), Glob):
        return
    for value in override.sweep_iterator() if override.is_sweep_override() else [override.value()]:
        known = registry.names(group)
        if str(value) not in known and not (value is None and group == "experiment"):
            raise ValueError(nearest(str(value), known or ["(there is none)"], what=group))


def _values(override: Override) -> list[str]:
    """The single-valued overrides that one stands for; of an interval, its ends."""
    key, value = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if isinstance(value, Glob):
        values = value.filter(registry.names(override.key_or_group))
    elif isinstance(value, IntervalSweep):
        values = [value.start, value.end]
    else:
        values = list(itertools.islice(override.sweep_string_iterator(), MAX_CELLS + 1))
    if not values:
        raise ValueError(f"{override.input_line} matches nothing: write {key}=a,b")
    return [f"{key}={value}" for value in values]


def interval_in(command: Command) -> str | None:
    """An override that names an interval, which only a searching sweeper can use; None if there is none."""
    return next((text for text in command.overrides if read(text).is_interval_sweep()), None)
