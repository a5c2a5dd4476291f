"""Configurations of cells, composed as Hydra does when it runs them; unknown keys named with the nearest."""

import copy
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from seedsbench import registry
from seedsbench.bench.cell import Config
from seedsbench.checks import nearest
from seedsbench.cli.command import GROUPS

ConfigStore.instance().store(name="schema", node=Config)
Bases = dict[tuple[str, ...], DictConfig]
EXCHANGED = ("model", "schedule", "grid", "solver", "metrics", "tracker")
"""Groups whose files hold options of their own; a regime or an experiment says more."""
PLAIN_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


@contextmanager
def composing(config_dirs: list[str]) -> Iterator[None]:
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


def compose_each(cells: Iterable[list[str]], bases: Bases) -> list[DictConfig]:
    """The configuration of each list of overrides; of `hydra` only launcher, sweeper and choices are right.

    Hydra composes (0.1 s) once for each regime or experiment; files of other groups take each other's place.
    Plain values are then set on copies, by Hydra's own function. bases: what has been composed already,
    added to.
    """
    found = []
    for overrides in cells:
        plain = [override for override in overrides if _is_plain(override)]
        rest = tuple(override for override in overrides if override not in plain)
        try:
            if rest not in bases:
                bases[rest] = _with_other_choices(rest, bases) or compose(list(rest))
            cfg = _copied(bases[rest])
            parsed = OverridesParser.create().parse_overrides(plain)
            ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)
        except (ValueError, HydraException, OmegaConfBaseException):
            cfg = compose(overrides)  # and says what is wrong
        found.append(cfg)
    return found


def _copied(base: DictConfig) -> DictConfig:
    """A copy whose own values may be set; it shares `hydra`, four fifths of all, with the original."""
    shared = base._get_node("hydra")
    return copy.deepcopy(base, {id(shared): shared})


def _with_other_choices(overrides: tuple[str, ...], bases: Bases) -> DictConfig | None:
    """A composed configuration with other files in place of its own; None if it takes more than that.

    The files are found and read by Hydra, which has to compose where one says more than options.
    """
    chosen, others = _choices(overrides)
    if any(override.startswith("hydra.searchpath") for override in others):
        return None
    for known, base in bases.items():
        had, rest = _choices(known)
        if rest == others and had.keys() == chosen.keys():
            cfg = copy.deepcopy(base)
            changed = {group: name for group, name in chosen.items() if had[group] != name}
            return cfg if all(_put(cfg, group, name) for group, name in changed.items()) else None
    return None


def _choices(overrides: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Choices of the groups whose files can be exchanged, and all other overrides."""
    pairs = [override.partition("=") for override in overrides]
    chosen = {key: value for key, _, value in pairs if key in EXCHANGED}
    return chosen, ["".join(pair) for pair in pairs if pair[0] not in EXCHANGED]


def _put(cfg: DictConfig, group: str, name: str) -> bool:
    """Put a file in the place of the one chosen; False, with cfg as it was, if it is not that simple."""
    loader: Any = GlobalHydra.instance().config_loader()
    loaded = loader.repository.load_config(f"{group}/{name}")
    if loaded is None or loaded.defaults_list or loaded.header["package"] is not None:
        return False
    with open_dict(cfg):
        cfg[group] = loaded.config
        cfg.hydra.runtime.choices[group] = name
    return True


def _is_plain(override: str) -> bool:
    """Whether an override sets a value of ours and chooses nothing."""
    key = override.split("=", 1)[0]
    chooses = key in GROUPS or key.split(".")[0] in ("hydra", "choices")
    return "=" in override and PLAIN_KEY.fullmatch(key) is not None and not chooses


def compose(overrides: list[str]) -> DictConfig:
    """The configuration of one cell. An unknown key is named with its nearest neighbours."""
    keys = {override: override.split("=", 1)[0] for override in overrides}
    try:
        if not any(key.startswith("choices") for key in keys.values()):  # computed, not an option
            return hydra_compose("config", overrides=overrides, return_hydra_config=True)
        raise ConfigCompositionException("choices cannot be set")
    except ConfigCompositionException:
        hydras_own = [o for o, key in keys.items() if key.startswith(("+", "~", "hydra"))]
        groups = [o for o, key in keys.items() if key.lstrip("+~").split("@")[0] in GROUPS or o in hydras_own]
        known = hydra_compose("config", overrides=groups, return_hydra_config=True)
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
