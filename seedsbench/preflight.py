"""Everything that can be wrong with a command is said here, in one line, before anything runs.

Hydra would find most of it too, but only when it reaches the job concerned, in several lines, and
without the nearest names. Each value of a sweep is composed and built once, beside the first values
of the others, so that the cost is the sum of the choices and not their product.
"""

import itertools
import os
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seedsbench import registry
from seedsbench.bench.dry_run import dry_run_text
from seedsbench.checks import nearest
from seedsbench.config import Config, check_config
from seedsbench.launchers import check_launcher, missing_plugin

ConfigStore.instance().store(name="schema", node=Config)
GROUPS = ("model", "regime", "schedule", "grid", "solver", "metrics", "tracker", "experiment")
BUILT = ("solver", "schedule", "grid", "tracker")


class Usage(Exception):
    """A command that cannot run; the message is one line that says what would work."""


@dataclass(frozen=True)
class Options:
    """What the command line says, as Hydra reads it; flags are the arguments that are no overrides."""

    flags: list[str]
    overrides: list[str]
    config_dirs: list[str]
    multirun: bool
    informational: bool


@dataclass(frozen=True)
class Checked:
    """A command that can run: its study folder, the text of plan or dry_run if asked for, and its tracker.

    weights: evaluations each cell may cost, in the order in which they run; a guide for progress only.
    launcher: name of what starts the cells.
    """

    study: Path
    plan: str | None
    tracker: dict[str, Any]
    weights: list[int]
    launcher: str


def parse(arguments: list[str]) -> Options:
    """Split the arguments as Hydra does, but with flags anywhere; raises Usage for an unknown flag.

    --help and the like are Hydra's own business. Folders of SEEDSBENCH_CONF join Hydra's search path.
    """
    parser: ArgumentParser = get_args_parser()
    parser.error = _refuse_flags
    known, rest = parser.parse_known_args(arguments)
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown:
        raise Usage(nearest(unknown[0], parser._option_string_actions, what="flag"))
    overrides = [*known.overrides, *rest]
    flags = [argument for argument in arguments if argument not in overrides]
    directories = [known.config_dir] if known.config_dir else []
    absolute = [Path(folder).resolve() for folder in directories]
    more = ",".join(f"'file://{folder}'" for folder in registry.conf_dirs()[1:] if folder not in absolute)
    if more and not any(override.startswith("hydra.searchpath") for override in overrides):
        overrides.append(f"hydra.searchpath=[{more}]")
    shown = (known.help, known.hydra_help, known.cfg, known.info, known.shell_completion)
    return Options(flags, overrides, directories, known.multirun, any(shown))


def with_experiment(options: Options) -> Options:
    """Spell the sweep of `experiment=<name>` out as overrides; raises Usage if it needs -m and has none.

    Hydra would run both it and the command's own values for a key. So the command's win, and the sweep
    is checked and planned like any other.
    """
    given = dict(text.split("=", 1) for text in options.overrides if "=" in text)
    experiment = given.get("experiment", "")
    if "," in experiment:
        raise Usage(f"experiment={experiment} names several experiments: run one at a time")
    params = registry.sweep_of(experiment)
    missing = {key: value for key, value in params.items() if key not in given}
    if missing and not options.multirun:
        raise Usage(f"experiment={experiment} sweeps over {', '.join(missing)}: add -m to run it")
    if not params:
        return options
    spelt = [f"{key}={value}" for key, value in missing.items()]
    return replace(options, overrides=[*options.overrides, *spelt, "hydra.sweeper.params=null"])


def _refuse_flags(message: str) -> NoReturn:
    raise Usage(f"{message} (seedsbench --help lists what there is)")


def preflight(options: Options) -> Checked:
    """Check every choice of the command; raises Usage. Creates the study folder."""
    try:
        parsed = _parsed(options)
        choices = [_choices(override) for override in parsed]
        first = [values[0] for values in choices]
        with _composing(options.config_dirs):
            for values in _variants(choices, first):
                cfg = _compose(values)
                check_config(cfg)
                for group in BUILT:
                    registry.build(cfg[group])
            cfg = _compose(first)
            _check_sweeper(cfg.hydra.runtime.choices["hydra/sweeper"], parsed)
            launcher = str(cfg.hydra.runtime.choices["hydra/launcher"])
            _check_launcher(cfg.hydra.runtime.choices["hydra/launcher"])
            study = Path(cfg.results_dir) / cfg.study
            tracker: Any = OmegaConf.to_container(cfg.tracker, resolve=True)
            if cfg.dry_run:
                shown = dry_run_text(_compose(list(v)) for v in itertools.product(*choices))
                return Checked(study, shown, tracker, [], launcher)
            _check_device(cfg.device)
            if cfg.plan:
                return Checked(study, _plan(choices), tracker, [], launcher)
            check_launcher(launcher, cfg.hydra.launcher, options.multirun)
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        raise Usage(_one_line(error)) from error
    from seedsbench.bench.progress import weights_of
    from seedsbench.bench.store import ResultStore

    try:
        ResultStore(study).prepare()
    except ValueError as error:
        raise Usage(str(error)) from error
    return Checked(study, None, tracker, weights_of(choices, cfg), launcher)


def _check_sweeper(name: str | None, overrides: list[Override]) -> None:
    """Refuse an interval where the sweeper can only enumerate."""
    for override in overrides:
        if override.is_interval_sweep() and name == "basic":
            key = override.get_key_element()
            raise ValueError(
                f"{override.input_line}: an interval needs a sweeper that searches, as hydra/sweeper=optuna, "
                f"or write {key}=a,b"
            )


def _check_launcher(name: str | None) -> None:
    """Refuse to start further processes from each of the ranks that share a cell."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and name != "basic":
        raise ValueError(f"hydra/launcher={name} cannot be used under torchrun: drop one of the two")


def compositions(options: Options) -> list[DictConfig]:
    """The configuration of every cell of the command, composed but not built; raises Usage."""
    try:
        choices = [_choices(override) for override in _parsed(options)]
        with _composing(options.config_dirs):
            return [_compose(list(values)) for values in itertools.product(*choices)]
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        raise Usage(_one_line(error)) from error


def _check_device(name: str) -> None:
    from seedsbench.bench.cell import device_of

    device_of(name)


def _parsed(options: Options) -> list[Override]:
    overrides = [_parsed_override(text) for text in options.overrides]
    for override in overrides:
        key, line = override.key_or_group, override.input_line
        if override.is_sweep_override() and not options.multirun:
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


def _choices(override: Override) -> list[str]:
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


def _variants(choices: list[list[str]], first: list[str]) -> list[list[str]]:
    """The first combination, then each other value beside the first of the others."""
    variants = [first]
    for i, values in enumerate(choices):
        variants += [[*first[:i], value, *first[i + 1 :]] for value in values[1:]]
    return variants


@contextmanager
def _composing(config_dirs: list[str]) -> Iterator[None]:
    """Hydra's compose API on our configuration and the user's --config-dir."""
    search_path = create_config_search_path(str(registry.conf_dir()))
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ValueError(f"--config-dir {folder}: no such folder; give one that holds solver/<name>.yaml")
        url = f"file://{Path(folder).resolve()}"
        search_path.prepend("command-line", url, SearchPathQuery(provider="schema"))
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2(task_name="seedsbench", config_search_path=search_path)
        yield
    finally:
        GlobalHydra.instance().clear()


def _compose(overrides: list[str]) -> DictConfig:
    """The configuration of one cell. An unknown key is named with its nearest neighbours."""
    keys = {override: override.split("=", 1)[0] for override in overrides}
    try:
        if not any(key.startswith("choices") for key in keys.values()):  # computed, not an option
            return compose("config", overrides=overrides, return_hydra_config=True)
        raise ConfigCompositionException("choices cannot be set")
    except ConfigCompositionException:
        hydras_own = [o for o, key in keys.items() if key.startswith(("+", "~", "hydra"))]
        groups = [o for o, key in keys.items() if key.lstrip("+~").split("@")[0] in GROUPS or o in hydras_own]
        known = compose("config", overrides=groups, return_hydra_config=True)
        for override, key in keys.items():
            if override not in groups:
                _known_key(known, key)
        raise


def _known_key(cfg: DictConfig, key: str) -> None:
    """Raise ValueError if cfg has no such dotted key."""
    node: Any = cfg
    for i, part in enumerate(parts := key.split(".")):
        if not isinstance(node, DictConfig):
            return
        keys = [k for k in map(str, node) if k not in ("hydra", "_target_", "choices")]
        if part not in keys and part != "_target_":
            prefix = ".".join(parts[:i])
            known = [f"{prefix}.{k}" if prefix else k for k in keys]
            none = f"({prefix}={cfg.hydra.runtime.choices.get(prefix)} has no options)"
            raise ValueError(nearest(".".join(parts[: i + 1]), known or [none], what="option"))
        node = OmegaConf.select(node, part) if not OmegaConf.is_missing(node, part) else None


def _plan(choices: list[list[str]]) -> str:
    """A count, then one line a cell: what would run, its steps and evaluations, and what is done already."""
    from seedsbench.bench.plan import plan_text

    return plan_text([_compose(list(values)) for values in itertools.product(*choices)])


def _one_line(error: Exception) -> str:
    """The first lines of an error that say something; for a value of the wrong type, why it is wrong."""
    if "hydra/sweeper/optuna" in str(error):
        return "hydra/sweeper=optuna is not installed: pip install 'seedsbench[optuna]'"
    if isinstance(error, ConfigCompositionException) and "merging override" in str(error) and error.__cause__:
        return f"{str(error).split('override ')[-1].strip()}: {_one_line(error.__cause__)}"  # type: ignore[arg-type]
    if (line := missing_plugin(str(error))) is not None:
        return line
    lines = [line.strip() for line in str(error).splitlines()]
    said = [
        line
        for line in lines
        if line and not line.startswith(("full_key:", "object_type=", "reference_type="))
    ]
    return ": ".join(said[:2]) if said else type(error).__name__
