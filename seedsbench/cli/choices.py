"""What can be chosen, as data: a YAML of a group with its options, what these may be, and where it is from.

For `seedsbench --help solver=seeds3`, and whoever writes a page about it.
"""

import inspect
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from seedsbench import registry
from seedsbench.bench.cell import CELL_OPTIONS
from seedsbench.checks import allowed_values, as_written, nearest
from seedsbench.solvers.base import Solver

_COMMENTED = re.compile(r"([A-Za-z_]\w*):.*?\s#\s*(.*)")
LONGEST_DEFAULT = 40
"""Characters of a default that are told; more are a table of files, which is read where it lies."""


@dataclass(frozen=True)
class Option:
    """default: as the YAML writes it. allowed: in words, "" where nothing is declared. note: its comment."""

    name: str
    default: str
    allowed: str
    note: str


@dataclass(frozen=True)
class ChoiceFacts:
    """A choice of a group.

    summary: the comment that opens its YAML. target: the dotted name it builds, "" for none. doc: of the
    target. origin: how its module opens: what it is and where from. sets: the lines of one that chooses and
    sets other keys, as a regime does. solver: with its defaults, if it is one that can be built here.
    """

    group: str
    name: str
    path: Path
    summary: str
    target: str
    doc: str
    origin: str
    options: tuple[Option, ...]
    sets: tuple[str, ...]
    solver: Solver | None


def summary_of(path: Path) -> str:
    """The comment that opens a YAML, in one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comments = (line.removeprefix("#").strip() for line in lines[:start])
    return " ".join(line for line in comments if line and not line.startswith("@package"))


def choice_facts(group: str, name: str) -> ChoiceFacts:
    """All that is known of a choice; ValueError, with the nearest names, where there is none."""
    if (path := registry.path_of(group, name)) is None:
        raise ValueError(nearest(name, registry.names(group) or ["(there is none)"], what=group))
    text = path.read_text(encoding="utf-8")
    config = OmegaConf.to_container(OmegaConf.load(path)) or {}
    assert isinstance(config, dict)
    given = {str(key): value for key, value in config.items() if not str(key).startswith("_")}
    sets_others = "# @package _global_" in text
    target = str(config.get("_target_") or "")
    built = registry.located(target) if target else None
    notes = {found[1]: found[2] for line in text.splitlines() if (found := _COMMENTED.match(line))}
    hints = (CELL_OPTIONS if group == "metrics" else {}) | _hints_of(built)
    options = [
        Option(key, _default_text(value), allowed_values(hints.get(key)), notes.get(key, ""))
        for key, value in given.items()
    ]
    return ChoiceFacts(
        group=group,
        name=name,
        path=path,
        summary=summary_of(path),
        target=target,
        doc=_doc_of(built),
        origin=_origin_of(built),
        options=() if sets_others else tuple(options),
        sets=tuple(line for line in text.splitlines() if line and line[0] != "#") if sets_others else (),
        solver=_solver(config) if group == "solver" else None,
    )


def _hints_of(built: Any) -> dict[str, Any]:
    """The annotations of a class's options or of a function's parameters."""
    declared = built.__init__ if inspect.isclass(built) and not is_dataclass(built) else built
    try:
        return get_type_hints(declared, include_extras=True) if declared is not None else {}
    except (NameError, TypeError):  # annotations for type checkers alone
        return {}


def _doc_of(built: Any) -> str:
    """What is written below its name; "" where that is but a dataclass's list of fields."""
    doc = inspect.cleandoc(getattr(built, "__doc__", None) or "")
    return "" if doc.startswith(f"{getattr(built, '__name__', '')}(") else doc


def _origin_of(built: Any) -> str:
    """The first paragraph of the module that defines it."""
    module = sys.modules.get(getattr(built, "__module__", ""))
    return inspect.cleandoc(getattr(module, "__doc__", None) or "").split("\n\n")[0]


def _default_text(value: Any) -> str:
    """A default as YAML has it, in one line."""
    if isinstance(value, Mapping) and value:
        return "(in the file)" if len(str(value)) > LONGEST_DEFAULT else _flow(value)
    text = _flow(value)
    return text if len(text) <= LONGEST_DEFAULT else f"{text[: LONGEST_DEFAULT - 3]}..."


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return as_written(value)


def _solver(config: Mapping[str, Any]) -> Solver | None:
    """The solver with its defaults; None where a library that it drives is missing."""
    with suppress(ValueError):
        solver = registry.build(config)
        if isinstance(solver, Solver):
            solver.nfe(1)  # a driven scheduler says only now that its library is not there
            return solver
    return None
