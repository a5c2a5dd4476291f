"""The door: the words of a command become cells, composed by Hydra and typed once.

Behind it nothing sees a configuration of Hydra's.
"""

import copy
import itertools
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from seedsbench import registry
from seedsbench.bench.cell import Cell
from seedsbench.checks import nearest
from seedsbench.cli.command import GROUPS, MAX_CELLS, Command, Usage, key_of, read
from seedsbench.cli.errors import hydra_error_line

PLAIN_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


class OwnFolders(SearchPathPlugin):
    """Has Hydra look in the folders of --config-dir and SEEDSBENCH_CONF too, after ours."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in registry.conf_dirs()[1:]:
            search_path.append("seedsbench", f"file://{folder}")


@dataclass(frozen=True)
class Composed:
    """A cell, the overrides that make it, and how Hydra would start it: launcher and sweeper by name.

    remote: the launcher starts its cells on other machines.
    """

    cell: Cell
    words: tuple[str, ...]
    launcher: str
    sweeper: str
    remote: bool


def register() -> None:
    """Tell Hydra of our schema and of the user's folders; doing so twice changes nothing."""
    schema = OmegaConf.structured(Cell)
    for frozen in (schema, schema.regime):  # frozen classes make frozen nodes, which nothing could override
        OmegaConf.set_readonly(frozen, False)
    ConfigStore.instance().store(name="schema", node=schema)
    Plugins.instance().register(OwnFolders)


@contextmanager
def composing() -> Iterator[None]:
    """Hydra's compose API on our configuration and the user's."""
    register()
    with initialize_config_dir(str(registry.conf_dir()), job_name="seedsbench", version_base="1.3"):
        yield


Bases = dict[tuple[str, ...], tuple[DictConfig, DictConfig]]
"""What Hydra has composed of combinations of choices, to be used again."""


def compose_each(
    commands: Iterable[Iterable[str]], study: str, bases: Bases | None = None, swept: Container[str] = ()
) -> list[Composed]:
    """One cell for each list of single-valued overrides, inside `composing()`.

    study: if none is named. swept: the keys that have several values.

    Hydra composes (0.1 s) once for each combination of choices; plain values are then set on copies of that.
    Raises ValueError, HydraException and OmegaConfBaseException for what cannot be composed.
    """
    bases = {} if bases is None else bases
    found = []
    for words in map(tuple, commands):
        plain = [word for word in words if _is_plain(word)]
        chosen = tuple(word for word in words if word not in plain)
        if chosen not in bases:
            bases[chosen] = _composed(chosen)
        ours, hydra = bases[chosen]
        choices = hydra.runtime.choices
        varied = [word for word in words if key_of(word) in swept]
        cell = replace(cell_of(_with_values(ours, plain, hydra), choices, study), varied=varied)
        launcher, sweeper = str(choices["hydra/launcher"]), str(choices["hydra/sweeper"])
        remote = str((hydra.launcher or {}).get("_target_", "")).endswith(".SlurmLauncher")
        found.append(Composed(cell, words, launcher, sweeper, remote))
    return found


def compositions(command: Command, study: str) -> list[Composed]:
    """Every cell of the command, composed but not built; raises Usage."""
    try:
        choices = command.choices
        if (cells := math.prod(map(len, choices))) > MAX_CELLS:
            raise ValueError(
                f"{cells:,} cells are more than {MAX_CELLS:,}: run a part of the sweep at a time"
            )
        with composing():
            return compose_each(itertools.product(*choices), study, swept=command.swept)
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        raise Usage(hydra_error_line(error)) from error


def cell_of(cfg: DictConfig, choices: Mapping[str, Any], study: str) -> Cell:
    """A composed configuration as a typed cell. choices: Hydra's, by group. study: where cfg names none.

    Raises OmegaConfBaseException for a value that is missing or of the wrong type.
    """
    cell = OmegaConf.to_object(cfg)
    assert isinstance(cell, Cell)
    labels: Any = "none" if cell.labels is None else cell.labels
    if isinstance(labels, str) and labels.lstrip("-").isdigit():  # a class number may come as text
        labels = int(labels)
    names = {group: str(choices[group]) for group in GROUPS if group in choices}
    cell = replace(cell, grid=registry.with_file(cell.grid), solver=registry.with_file(cell.solver))
    return replace(cell, choices=names, study=study if cell.study is None else cell.study, labels=labels)


def _composed(chosen: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
    """What Hydra composes of choices, additions and deletions: our part and its own.

    An unknown key is named with the nearest.
    """
    try:
        cfg = compose("config", list(chosen), return_hydra_config=True)
    except ConfigCompositionException:
        groups = [word for word in chosen if key_of(word).lstrip("+~").split("@")[0] in GROUPS]
        known = compose("config", groups, return_hydra_config=True)
        for word in chosen:
            if not word.startswith(("+", "~", "hydra")) and word not in groups:
                _check_key(known, word, known.hydra)
        raise
    HydraConfig.instance().set_config(cfg)  # for ${hydra:...} in a user's files
    hydra = cfg.hydra
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, hydra


def _with_values(base: DictConfig, plain: list[str], hydra: DictConfig) -> DictConfig:
    """A copy of a composed configuration with plain values set."""
    cfg = copy.deepcopy(base)
    for word in plain:
        _check_key(cfg, word, hydra)
        try:
            OmegaConf.update(cfg, key_of(word), read(word).value())
        except OmegaConfBaseException as error:
            raise ValueError(f"{word}: {str(error).splitlines()[0]}") from error
    return cfg


def _is_plain(word: str) -> bool:
    """Whether an override sets a value of ours and chooses nothing."""
    key = key_of(word)
    ours = key.split(".")[0] != "hydra" and key not in GROUPS
    return "=" in word and PLAIN_KEY.fullmatch(key) is not None and ours


def _check_key(cfg: DictConfig, word: str, hydra: DictConfig) -> None:
    """Raise ValueError, with the nearest names, if cfg has no such dotted key."""
    node: Any = cfg
    for i, part in enumerate(parts := key_of(word).split(".")):
        if not isinstance(node, DictConfig):
            return
        keys = [
            key for key in map(str, node) if key not in ("hydra", "_target_", "_file_", "choices", "varied")
        ]
        if part not in keys and part != "_target_":
            prefix = ".".join(parts[:i])
            known = [f"{prefix}.{key}" if prefix else key for key in keys]
            none = f"({prefix}={hydra.runtime.choices.get(prefix)} has no options)"
            raise ValueError(nearest(".".join(parts[: i + 1]), known or [none], what="option"))
        node = OmegaConf.select(node, part) if not OmegaConf.is_missing(node, part) else None
