"""Which model the weaker network of guidance=auto is: its configuration, from the cell's.

Imports no torch: dry_run=true is quick anywhere.
"""

from typing import Any

from seedsbench import registry
from seedsbench.bench.cell import Cell

AUTO = "seedsbench.denoisers.guidance.Auto"
WHICH = ("model", "training")
"""Options of guidance that say which network the weaker one is; rows are keyed by what it is."""
OF_SAMPLES = ("shape", "latents", "vae", "reference")
"""Entries of a model for what becomes of its samples; the weaker network has none."""


def weaker_model(cell: Cell) -> dict[str, Any] | None:
    """The entries of the weaker network's model; None where the cell's guidance has no such network.

    Raises ValueError for another training of a model that has no others, and for the model itself.
    """
    if cell.guidance.get("_target_") != AUTO:
        return None
    name, training = cell.guidance.get("model"), cell.guidance.get("training")
    if name is None:
        if not cell.model.get("trainings"):
            raise ValueError(
                f"guidance.training={training}: model={cell.choices['model']} has one training alone: give "
                "guidance.model=<file, folder or name of a model>"
            )
        if training == (cell.model.get("training") or 0):
            raise ValueError(f"guidance.training={training} is the model that is sampled: give another one")
        return {**cell.model, "training": training}
    if name in registry.names("model"):
        found = registry.load("model", name, {"offline": cell.offline})
        return {key: value for key, value in found.items() if key not in OF_SAMPLES}
    return {**registry.load("model", "file", {"offline": cell.offline}), "name": "weaker", "path": name}
