"""Everything that can be wrong with a command is said here, in one line, before anything runs.

Hydra would find most of it too, but only when it reaches the job concerned, in several lines, and
without the nearest names. Each value of a sweep is composed and built once, beside the first values
of the others, so that the cost is the sum of the choices and not their product.
"""

import itertools
import re
from argparse import ArgumentParser
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seedsbench import registry
from seedsbench.bench.cell import OF_CELLS, check_config, check_network, check_precision, study_folder
from seedsbench.bench.problems.own_files import check_own, entries_for
from seedsbench.checks import nearest
from seedsbench.cli.command import choices_of, parsed, variants
from seedsbench.cli.compose import Bases, compose_each, composing
from seedsbench.cli.dry_run import UNSCORED, dry_run_text, unscored
from seedsbench.cli.launchers import check_launcher, elsewhere, missing_plugin

HOME = re.compile(r"^([\w.]+=)(~[^'\",]*)$")
"""A path from a home, which Hydra reads only in quotes, and a shell takes off the quotes it was given in."""
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
    launcher: name of what starts the cells. published: whether the figures show published numbers.
    """

    study: Path
    plan: str | None
    tracker: dict[str, Any]
    weights: list[int]
    launcher: str
    published: bool = False


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
    overrides = [HOME.sub(r"\1'\2'", override) for override in overrides]
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
        overrides = parsed(options.overrides, multirun=options.multirun)
        choices = [choices_of(override) for override in overrides]
        with composing(options.config_dirs):
            bases: Bases = {}
            checked = compose_each(variants(choices), bases)
            for cfg in checked:
                check_config(cfg)
                check_network(cfg)
                if not cfg.dry_run:
                    check_own(cfg.model)
                if unscored(cfg) and not cfg.dry_run:
                    raise ValueError(f"model={cfg.hydra.runtime.choices.model}: {UNSCORED}")
            from seedsbench.bench.labels import check_classes  # and torch: later than what needs none

            check_classes(checked)
            first = checked[0]
            _check_sweeper(first.hydra.runtime.choices["hydra/sweeper"], overrides)
            launcher = str(first.hydra.runtime.choices["hydra/launcher"])
            study = study_folder(first)
            tracker: Any = OmegaConf.to_container(first.tracker, resolve=True)
            if first.plan or first.dry_run:
                cells = compose_each(map(list, itertools.product(*choices)), bases)
                return Checked(study, _told(checked, cells), tracker, [], launcher)
            check_launcher(launcher, first.hydra.launcher, options.multirun)
            _build(checked)
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        raise Usage(_one_line(error)) from error
    from seedsbench.bench.machine import device_of
    from seedsbench.bench.progress import weights_of
    from seedsbench.bench.rows.store import ResultStore

    try:
        if not elsewhere(first.hydra.launcher):  # the machine that submits need not have a GPU
            for cfg in checked:
                check_precision(cfg.precision, device_of(cfg.device))
        ResultStore(study).prepare()
    except ValueError as error:
        raise Usage(str(error)) from error
    return Checked(study, None, tracker, weights_of(choices, first), launcher, first.published)


def _build(cells: list[DictConfig]) -> None:
    """Build or check what a choice of groups names, each once; ValueError for options that cannot be."""
    done = []
    for cfg in cells:
        for group in BUILT:
            if cfg[group] not in done:
                registry.build(cfg[group])
                done.append(cfg[group])
        problem = (cfg.model, cfg.regime, cfg.metrics)
        if problem not in done:
            check_problem(cfg)
            done.append(problem)


def check_problem(cfg: DictConfig) -> None:
    """Check the options of a cell's model and metrics, whose building may take files and minutes."""
    options, given, _ = entries_for(cfg.model, cfg.regime.name, "cpu")
    registry.check(options, given=given)
    if "means" in options:  # a formula: what its options are together only building it tells, which is quick
        registry.build(options, given=given)
    options = {key: value for key, value in cfg.metrics.items() if key not in OF_CELLS}
    if "_target_" in options:
        registry.check(options, None, given={"device": "cpu"})
    elif options:
        raise ValueError(nearest(str(next(iter(options))), OF_CELLS, what="option of metrics"))


def _told(checked: list[DictConfig], cells: list[DictConfig]) -> str:
    """The text of plan=true or dry_run=true, once all choices have proved good."""
    _build(checked)
    if checked[0].dry_run:
        return dry_run_text(cells)
    from seedsbench.cli.plan import plan_text

    return plan_text(cells)


def _check_sweeper(name: str | None, overrides: list[Override]) -> None:
    """Refuse an interval where the sweeper can only enumerate."""
    for override in overrides:
        if override.is_interval_sweep() and name == "basic":
            key = override.get_key_element()
            raise ValueError(
                f"{override.input_line}: an interval needs a sweeper that searches, as hydra/sweeper=optuna, "
                f"or write {key}=a,b"
            )


def compositions(options: Options) -> list[DictConfig]:
    """The configuration of every cell of the command, composed but not built; raises Usage."""
    try:
        overrides = parsed(options.overrides, multirun=options.multirun)
        choices = [choices_of(override) for override in overrides]
        with composing(options.config_dirs):
            return compose_each(map(list, itertools.product(*choices)), {})
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        raise Usage(_one_line(error)) from error


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
