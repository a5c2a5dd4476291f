"""Everything that can be wrong with a command is said here, in one line, before anything runs.

Hydra would find most of it too, but only when it reaches the job concerned, in several lines, and
without the nearest names. Each value of a sweep is composed and built once, beside the first values
of the others, so that the cost is the sum of the choices and not their product.
"""

import itertools
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seedsbench import registry
from seedsbench.checks import nearest
from seedsbench.config import check_config

GROUPS = ("model", "regime", "schedule", "grid", "solver", "metrics", "tracker", "experiment")
BUILT = ("solver", "schedule", "grid")


class Usage(Exception):
    """A command that cannot run; the message is one line that says what would work."""


@dataclass(frozen=True)
class Options:
    """What the command line says, as Hydra reads it."""

    overrides: list[str]
    config_dirs: list[str]
    multirun: bool
    informational: bool


@dataclass(frozen=True)
class Checked:
    """A command that can run: its study folder, and the plan as text if only that is wanted."""

    study: Path
    plan: str | None


def parse(arguments: list[str]) -> Options:
    """Split the arguments as Hydra does; --help and the like are Hydra's own business."""
    parser: ArgumentParser = get_args_parser()
    known = parser.parse_args(arguments)
    shown = (known.help, known.hydra_help, known.cfg, known.info, known.shell_completion)
    directory = [known.config_dir] if known.config_dir else []
    return Options(
        known.overrides, directory, known.multirun, any(shown)
    )


def preflight(options: Options) -> Checked:
    """Check every choice of the command; raises Usage. Creates the study folder."""
    try:
        overrides = _parsed(options)
        choices = {o.get_key_element(): _choices(o) for o in overrides}
        first = [(values[0] if values else raw) for (_, values), raw in zip(choices.items(), options.overrides, strict=True)]
        with _composing(options):
            for values in _variants(list(choices.values()), first):
                cfg = _compose(values)
                check_config(cfg)
                for group in BUILT:
                    registry.build(OmegaConf.to_container(cfg[group], resolve=True))  # type: ignore[arg-type]
            cfg = _compose(first)
            _check_device(cfg.device)
            study = Path(cfg.results_dir) / cfg.study
            if cfg.plan:
                return Checked(study, _plan(list(choices.values())))
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        raise Usage(_one_line(error)) from error
    from seedsbench.bench.store import ResultStore

    try:
        ResultStore(study).prepare()
    except ValueError as error:
        raise Usage(str(error)) from error
    return Checked(study, None)


def _check_device(name: str) -> None:
    from seedsbench.bench.cell import device_of

    device_of(name)


def _parsed(options: Options) -> list[Override]:
    overrides = OverridesParser.create().parse_overrides(options.overrides)
    for override in overrides:
        key, line = override.key_or_group, override.input_line
        if override.is_sweep_override() and not options.multirun:
            raise ValueError(f"{line} names several values: add -m before the overrides to run them all")
        if key in GROUPS and not override.is_sweep_override() and not override.is_delete():
            _known_choice(key, override.value())
        elif key in GROUPS:
            for value in override.sweep_iterator() if not _is_glob(override) else []:
                _known_choice(key, value)
    return overrides


def _is_glob(override: Override) -> bool:
    return isinstance(override.value(), Glob)


def _known_choice(group: str, value: Any) -> None:
    if value is not None and str(value) not in registry.names(group):
        raise ValueError(nearest(str(value), registry.names(group), what=group))


def _choices(override: Override) -> list[str]:
    """The single-valued overrides a (sweep) override stands for."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if _is_glob(override):
        glob: Any = override.value()
        return [f"{key}={name}" for name in glob.filter(registry.names(override.key_or_group))]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _variants(choices: list[list[str]], first: list[str]) -> list[list[str]]:
    """The first combination, then each other value beside the first of the others."""
    variants = [first]
    for i, values in enumerate(choices):
        variants += [[*first[:i], value, *first[i + 1 :]] for value in values[1:]]
    return variants


class _composing:
    """Hydra's compose API on our configuration and the user's --config-dir."""

    def __init__(self, options: Options) -> None:
        path = [f"file://{Path(folder).resolve()}" for folder in options.config_dirs]
        self._search = [f"hydra.searchpath=[{','.join(path)}]"] if path else []

    def __enter__(self) -> None:
        global _SEARCH
        _SEARCH = self._search
        GlobalHydra.instance().clear()
        initialize_config_dir(str(registry.conf_dir()), version_base="1.3").__enter__()

    def __exit__(self, *_: object) -> None:
        GlobalHydra.instance().clear()


_SEARCH: list[str] = []


def _compose(overrides: list[str]) -> DictConfig:
    """The configuration of one cell. An unknown key is named with its nearest neighbours."""
    groups = [o for o in overrides if o.lstrip("+~").split("=", 1)[0].split("@")[0] in GROUPS or o.startswith("hydra")]
    known = compose("config", overrides=[*_SEARCH, *groups], return_hydra_config=True)
    for override in overrides:
        key = override.split("=", 1)[0]
        if override not in groups and not key.startswith(("+", "~", "hydra")):
            _known_key(known, key)
    return compose("config", overrides=[*_SEARCH, *overrides], return_hydra_config=True)


def _known_key(cfg: DictConfig, key: str) -> None:
    node: Any = cfg
    for i, part in enumerate(parts := key.split(".")):
        if not isinstance(node, DictConfig):
            return
        keys = [k for k in map(str, node) if k not in ("hydra", "_target_", "choices")]
        if part not in node:
            prefix = ".".join(parts[:i])
            known = [f"{prefix}.{k}" if prefix else k for k in keys]
            raise ValueError(nearest(".".join(parts[: i + 1]), known or [f"({prefix} has no options)"], what="option"))
        node = OmegaConf.select(node, part) if not OmegaConf.is_missing(node, part) else None


def _plan(choices: list[list[str]]) -> str:
    """One line a cell: what would run, its steps and evaluations, and what is done already."""
    from seedsbench.bench.plan import plan_lines

    lines = [line for values in itertools.product(*choices) for line in plan_lines(_compose(list(values)))]
    return "\n".join([f"{len(lines)} cells", *lines])


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return ": ".join(said[:2]) if said else type(error).__name__


