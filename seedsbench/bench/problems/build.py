"""From the YAMLs of a model and a metrics group to a problem, built once for all cells of a process."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

from seedsbench import registry
from seedsbench.bench.cell import CELL_OPTIONS, Cell
from seedsbench.bench.machine import make_current
from seedsbench.bench.problems.base import Model, Problem
from seedsbench.bench.problems.own import model_from
from seedsbench.bench.problems.weaker import weaker_model
from seedsbench.checks import Count, Range, check_options, nearest
from seedsbench.denoisers.autoguidance import WithWeaker
from seedsbench.files.model_files import TRAININGS, place_of
from seedsbench.files.sources import check_defined, source_of

_Classes = Annotated[int, Range(0, 10**6)] | None
FACTS: dict[str, Any] = {
    "name": str,
    "shape": list[Count] | None,
    "classes": _Classes,
    "network": bool,
    **TRAININGS,
    "format": str | None,
    "reference": object,
    "offline": bool,
    "licence": str | None,
    "note": str | None,
}
"""What a model's YAML says of it, by type. A builder is given those that it declares as parameters.

classes: how many, 0 for an unconditional model. network: false for a formula, which is quick to build.
format: python where `path` names a function.
"""
KEPT = 8
"""Models and problems kept: a sweep over models or regimes loads each once. Of large networks (300 million
parameters) these are 10 GB."""


def problem_of(cell: Cell, device: str) -> Problem:
    """The cell's problem; loaded once for all cells of this process that share it.

    The first that a process asks of its GPU, which it then makes its own.
    """
    make_current(device)
    metrics = cell.metrics if "_target_" in cell.metrics else {}
    return _problem(*_model_key(cell), json.dumps(metrics), device)


def model_of(cell: Cell, device: str) -> Model:
    """The cell's model; loaded once for all cells of this process that share it."""
    return _guided_model(*_model_key(cell), device)


def _model_key(cell: Cell) -> tuple[str, str | None, str]:
    weaker = weaker_model(cell)
    return json.dumps(cell.model), None if weaker is None else json.dumps(weaker), cell.regime.name


def check_problem(cell: Cell) -> None:
    """Raise ValueError for options of model and metrics that cannot be. Loads no network.

    What the options of a formula are together is told by building it.
    """
    for model in filter(None, (cell.model, weaker_model(cell))):
        options, given, _ = _entries(model, cell.regime.name, "cpu")
        check_options("model", FACTS, model)
        registry.check_config(options, given=given)
    if cell.model.get("network") is False:
        model_of(cell, "cpu")
    options = {key: value for key, value in cell.metrics.items() if key not in CELL_OPTIONS}
    if "_target_" in options:
        registry.check_config(options, None, given={"device": "cpu"})
    elif options:
        raise ValueError(nearest(next(iter(options)), CELL_OPTIONS, what="option of metrics"))


def check_function(cell: Cell) -> None:
    """Raise ValueError where `model.path` should name a function in a Python file and does not."""
    if cell.model.get("format") == "python":
        check_defined(*place_of(cell.model.get("path")))


def known_classes(cell: Cell) -> int | None:
    """How many classes a cell's model has, 0 for an unconditional one; None where only its file can tell."""
    if cell.model.get("network") is False:
        return model_of(cell, "cpu").denoiser.label_dim
    return cell.model.get("classes")


@lru_cache(maxsize=KEPT)
def _problem(model: str, weaker: str | None, regime: str, metrics: str, device: str) -> Problem:
    made, options = _guided_model(model, weaker, regime, device), json.loads(metrics)
    if options:
        options = {key: value for key, value in options.items() if key not in CELL_OPTIONS}
        return registry.build(options, made, given={"device": device})
    if not isinstance(made, Problem):
        raise ValueError(
            f"{made.name} has no features of its own to be scored on: choose metrics=inception (or values)"
        )
    return made


def _guided_model(model: str, weaker: str | None, regime: str, device: str) -> Model:
    """The model, with the weaker one's network beside its own where there is one."""
    made = _model(model, regime, device)
    if weaker is None:
        return made
    other = _model(weaker, regime, device)
    return replace(made, denoiser=WithWeaker(made.denoiser, other.denoiser), weaker_id=other.model_id)


@lru_cache(maxsize=KEPT)
def _model(model: str, regime: str, device: str) -> Model:
    """What the `_target_` of a model's YAML makes: a `Model`, or a denoiser, which becomes one."""
    entries = json.loads(model)
    options, given, facts = _entries(entries, regime, device)
    made = registry.build(options, given=given)
    if not isinstance(made, Model):
        target = options.pop("_target_")
        options |= {key: value for key, value in given.items() if key != "device"}
        source = [target.rpartition(".")[2], source_of(registry.located(target)), options]
        made = model_from(made, target, facts, source, device)
    _check_facts(made, entries)
    return made


def _entries(
    model: Mapping[str, Any], regime: str, device: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A model's entries for its builder, what the program adds to them, and the facts it does not ask for."""
    declared = inspect.signature(registry.located(str(model["_target_"]))).parameters
    added = {"regime": regime, "device": device}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared.values()):
        return dict(model), added, {}
    facts = {key: value for key, value in model.items() if key in FACTS and key not in declared}
    options = {key: value for key, value in model.items() if key not in facts}
    return options, {key: value for key, value in added.items() if key in declared}, facts


def _check_facts(model: Model, said: Mapping[str, Any]) -> None:
    """Raise ValueError where a model is not what its YAML says."""
    is_shape, is_classes = list(model.image_shape), model.denoiser.label_dim
    shape, classes = said.get("shape"), said.get("classes")
    if list(shape or is_shape) != is_shape or classes not in (None, is_classes):
        raise ValueError(
            f"model={model.name} holds a network for images {is_shape} and {is_classes} classes, but its "
            f"configuration says {shape or is_shape} and {classes}: is it another model's file?"
        )
