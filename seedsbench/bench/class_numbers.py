"""Whether the classes a command asks for exist, told from models' configurations. Imports no torch."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig


def check_classes(cells: Iterable[DictConfig]) -> None:
    """Raise ValueError for a value of `labels` that no model of these composed cells can honour.

    As far as is known unloaded. Where one of several models can, the others' cells fail, each in its row.
    """
    cells = list(cells)
    for labels in {cfg.labels: None for cfg in cells}:
        refusals = [refusal(labels, _classes(cfg.model)) for cfg in cells]
        if all(refusals):
            raise ValueError(refusals[0])


def refusal(labels: Any, n_classes: int | None) -> str | None:
    """Why a model of so many classes (None: not known) cannot take the labels; None if it can."""
    if labels in ("balanced", "none", None) or n_classes is None:
        return None
    if n_classes == 0:
        return f"labels={labels} on an unconditional model: use labels=none"
    known = labels == "random" or 0 <= int(labels) < n_classes
    return None if known else f"labels={labels}: the model has classes 0..{n_classes - 1}"


def _classes(model: DictConfig) -> int | None:
    """How many classes a model has, 0 for an unconditional one; None where only its file can tell."""
    target = str(model.get("_target_")).removeprefix("seedsbench.bench.problems.")
    if target == "mixture_problem":
        return len(model.weights) if len(model.weights) > 1 else 0
    return {"glyphs_problem": 10, "finite_glyphs_problem": 0}.get(target, model.get("classes"))
