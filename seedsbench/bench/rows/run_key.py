"""The run_key: what can change a row's numbers, hashed. Device, batch size and paths are no part of it."""

import json
from collections.abc import Mapping
from typing import Any

from seedsbench import registry
from seedsbench.bench.cell import NUMERICS_VERSION, Cell
from seedsbench.bench.machine import has_cuda
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.problems.weaker import WHICH
from seedsbench.denoisers.guidance import Unguided
from seedsbench.files.digests import digest
from seedsbench.files.model_files import CIRCUMSTANCES
from seedsbench.files.sources import source_of

PLACES = ("weights", "reference", "real")
"""Options of a metrics group that say where something is; rows are keyed by what it is."""
CALLED = {"pipeline_problem": "checkpoint_problem"}
"""What a class is called in keys, where it is not by its name: rows made under an earlier one stay theirs."""
SAMPLED = ("samples", "seed", "final", "afs", "dtype", "compile")
"""What a cell and its row call alike."""
AS_BEFORE = (("extrapolate", False), ("resize", "tf1"))
"""Options of a metrics group that keys and rows leave out: those from before there were any stay theirs."""
NO_GUIDANCE = {"class": Unguided.__name__, "options": {}}


def run_key(cell: Cell, problem: Problem | None) -> str:
    """16 hex digits naming a configuration: sha256 of the canonical JSON of `what_changes_numbers`."""
    text = json.dumps(what_changes_numbers(cell, problem), sort_keys=True, separators=(",", ":"))
    return digest(text.encode())


def what_changes_numbers(cell: Cell, problem: Problem | None) -> dict[str, Any]:
    """All that can change a row's numbers, and nothing else. problem: None if it cannot be loaded."""
    known: dict[str, Any] = {}
    if problem is not None:
        known = {name: getattr(problem, name) for name in ("model_id", "reference_id", "real_id")}
        known["features_id"] = problem.features.id
        if problem.weaker_id is not None:
            known["weaker_id"] = problem.weaker_id
    seeding = [cell.seeding]
    if cell.seeding != "philox":  # torch's generators are the device's own
        seeding.append("cpu" if cell.device == "cpu" or not has_cuda() else "cuda")
    guidance = chosen(cell.guidance, without=WHICH if "weaker_id" in known else ())
    return {
        "numerics_version": NUMERICS_VERSION,
        "model": chosen(cell.model, without=CIRCUMSTANCES if problem else ()),
        **{group: chosen(getattr(cell, group)) for group in ("schedule", "grid", "solver")},
        # Rows from before there was guidance keep their keys.
        **({} if guidance == NO_GUIDANCE else {"guidance": guidance}),
        "metrics": chosen(scored(cell.metrics), without=PLACES),
        **known,
        "regime": cell.regime.name,
        **{key: getattr(cell, key) for key in ("nfe", "precision", "labels", *SAMPLED)},
        "seeding": seeding,
    }


def chosen(group: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What identifies a choice: the class's name, its options, and its source if it is not of this package.

    No module path: classes may move. Inside the package numerics_version stands for the source.
    """
    target = group.get("_target_")
    name = None if target is None else target.rpartition(".")[2]
    name = name and CALLED.get(name, name)
    return {"class": name, "options": options_of(group, without), **outside(group)}


def scored(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a metrics group asks for, as keys and rows have it."""
    return dict(item for item in metrics.items() if item not in AS_BEFORE)


def options_of(group: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entries of a choice but for its class and what is left out."""
    return {key: value for key, value in group.items() if key not in ("_target_", *without)}


def outside(group: Mapping[str, Any]) -> dict[str, str]:
    """{"source_id": hash} of a choice whose class is not of this package, else nothing."""
    target = group.get("_target_")
    source = None if target is None else source_of(registry.located(target))
    return {} if source is None else {"source_id": source}
