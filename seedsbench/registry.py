"""Names to objects through the configuration folders: one YAML in `conf/<group>` is one choice.

Nothing is registered in code. The folder is the list, so a solver is one Python file and one YAML.
"""

import inspect
import os
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from seedsbench.checks import check_options, in_one_line, nearest
from seedsbench.files.settings import read_settings

_PACKAGE = Path(__file__).resolve().parent


class NotThere(ValueError):
    """A file that a choice names is not there."""


def conf_dir() -> Path:
    """The configuration folder: inside the package when installed from a wheel, else the checkout's."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "conf"


def conf_dirs() -> list[Path]:
    """`conf_dir()` and the folders named in SEEDSBENCH_CONF (separated as in PATH), which may add to it."""
    extra = os.environ.get("SEEDSBENCH_CONF", "")
    return [conf_dir(), *(Path(p).expanduser().resolve() for p in extra.split(os.pathsep) if p)]


def use_folders(folders: str) -> None:
    """Let YAMLs and modules be found in these folders, separated as in PATH: no other's code runs."""
    os.environ["SEEDSBENCH_CONF"] = folders
    for folder in folders.split(os.pathsep):
        if folder and folder not in sys.path:
            sys.path.append(folder)


def names(group: str) -> list[str]:
    """Names of all choices of a group, sorted."""
    return sorted({path.stem for folder in conf_dirs() for path in (folder / group).glob("*.yaml")})


def path_of(group: str, name: str) -> Path | None:
    """The YAML of a choice; None if there is none."""
    paths = (folder / group / f"{name}.yaml" for folder in conf_dirs())
    return next(filter(Path.is_file, paths), None)


def load(group: str, name: str, beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The YAML `conf/<group>/<name>.yaml` as a dict; ValueError with the nearest names if there is none.

    beside: keys of a whole configuration that it may refer to, as ${offline}.
    """
    from omegaconf import OmegaConf

    if (path := path_of(group, name)) is None:
        raise ValueError(nearest(name, names(group), what=group))
    whole = OmegaConf.create({**(beside or {}), group: OmegaConf.load(path)})
    config = OmegaConf.to_container(whole[group], resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def sweep_of(experiment: str) -> dict[str, str]:
    """`hydra.sweeper.params` of an experiment: key -> comma-separated values; empty if there is none."""
    from omegaconf import OmegaConf

    if (path := path_of("experiment", experiment)) is None:
        return {}
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") or {}
    return {str(key): str(value) for key, value in params.items()}


def configured(group: str, choice: str | Mapping[str, Any], **overrides: Any) -> dict[str, Any]:
    """The configuration of a named choice with overrides applied; unknown options are errors.

    choice: "seeds3" or {"name": "seeds3", "c2": 0.4}.
    """
    if isinstance(choice, Mapping):
        if "name" not in choice:
            raise ValueError(f"{group}={dict(choice)} has no 'name': write {{'name': 'seeds3', 'c2': 0.4}}")
        overrides = {**choice, **overrides}
        choice = str(overrides.pop("name"))
    config = load(group, choice)
    known = [key for key in config if key != "_target_"]
    for key, value in overrides.items():
        if key not in known:
            raise ValueError(f"{group} {choice}: {nearest(key, known or ['(it has none)'], what='option')}")
        config[key] = value
    return with_file(config)


def with_file(config: Mapping[str, Any]) -> dict[str, Any]:
    """A grid or solver of this package; one with a `path` has the options that this YAML file says instead.

    So what the file says identifies a row, and not where it lies. A class from outside may call an option
    what it likes. Raises ValueError for a file that is none or has other entries than the choice has options,
    and NotThere where there is none.
    """
    path, ours = config.get("path"), str(config.get("_target_")).startswith("seedsbench.")
    if not (ours and isinstance(path, str)):
        return dict(config)
    known = [key for key in config if key not in ("_target_", "path")]
    try:
        found = read_settings(path)
    except FileNotFoundError:
        raise NotThere(f"path={path} is not there: give a YAML file with {', '.join(known)}") from None
    for key in found:
        if key not in known:
            raise ValueError(f"{path}: {nearest(key, known, what='option')}")
    return {**config, **found, "path": None}


def located(target: str) -> Any:
    """The function or class of this dotted name; ValueError, in one line, if it cannot be imported.

    Importing a module of the user's runs it, and whatever goes wrong in it is said with its line.
    """
    module, _, name = target.rpartition(".")
    own = " or ".join(map(str, conf_dirs()[1:])) or "a folder given with --config-dir"
    try:
        found = pkgutil.resolve_name(target)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise ValueError(f"_target_ {target}: {in_one_line(error)}") from error
        raise ValueError(f"_target_ {target}: there is no module {error.name}; put it into {own}") from error
    except AttributeError as error:
        if module not in sys.modules:  # only the start of its name is one
            raise ValueError(f"_target_ {target}: there is no module {module}; put it into {own}") from error
        known = [key for key in vars(sys.modules[module]) if not key.startswith("_")]
        raise ValueError(f"_target_ {target}: {nearest(name, known, what=f'name in {module}')}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"_target_ {target}: {in_one_line(error)}") from error
    if not callable(found):
        raise ValueError(f"_target_ {target} is no class or function but {type(found).__name__}")
    return found


def check_config(config: Mapping[str, Any], *args: Any, given: Mapping[str, Any] | None = None) -> None:
    """Raise ValueError for options that what `_target_` names does not have, lacks or cannot take.

    args and given come from the program and are no options. The signature and the annotations are asked
    (see `seedsbench.checks`); nothing is built.
    """
    given = given or {}
    if not isinstance(config.get("_target_"), str):
        raise ValueError("no _target_: write `_target_: module.Class`, the class that the options are of")
    target: Any = located(config["_target_"])
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    signature = inspect.signature(target)
    known = [key for key in list(signature.parameters)[len(args) :] if key not in given]
    for key in options:
        if key not in known and not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            raise ValueError(f"{target.__name__}: {nearest(key, known or ['(it has none)'], what='option')}")
    try:
        signature.bind(*args, **options, **given)
        declared = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
        hints = get_type_hints(declared, include_extras=True)
    except TypeError as error:
        raise ValueError(f"{target.__name__}: {error}") from error
    except NameError:  # an annotation for type checkers alone
        return
    defaults = {key: parameter.default for key, parameter in signature.parameters.items()}
    given_values = {k: v for k, v in options.items() if v is not None or defaults.get(k) is not None}
    check_options(target.__name__, hints, given_values)


def build(config: Mapping[str, Any], *args: Any, given: Mapping[str, Any] | None = None) -> Any:
    """Call what `_target_` names with the other entries as keywords.

    They are checked first; args and given are as there. A constructor's TypeError comes out as a ValueError,
    and so does its attempt to end the process.
    """
    check_config(config, *args, given=given)
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return located(config["_target_"])(*args, **options, **(given or {}))
    except (TypeError, SystemExit) as error:
        raise ValueError(in_one_line(error)) from error
