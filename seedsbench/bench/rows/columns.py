"""What a row says beside its scores: choices, identity, the solver's declarations, the environment."""

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import torch

import seedsbench
from seedsbench import registry
from seedsbench.api import as_trained
from seedsbench.bench.cell import NUMERICS_VERSION, Cell
from seedsbench.bench.machine import machine
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.rows.run_key import PLACES, SAMPLED, options_of, outside, scored
from seedsbench.data.uint8 import QUANTISERS
from seedsbench.denoisers.base import Denoiser
from seedsbench.files.rows import SCORE_NAMES, Row, judged_by
from seedsbench.solvers.base import Solver

SAMPLERS = ("schedule", "grid", "solver", "guidance")
"""Groups whose choice and options a row says."""


def asked(cell: Cell) -> Row:
    """What was asked for: names, options and sizes."""
    return {
        **{group: cell.choices[group] for group in ("model", "regime", *SAMPLERS)},
        "training": cell.model.get("training"),
        **{f"{group}_params": params(getattr(cell, group)) for group in SAMPLERS},
        "metrics_params": params(scored(cell.metrics), without=PLACES),
        "nfe_budget": cell.nfe,
        **{key: getattr(cell, key) for key in SAMPLED},
        "labels": str(cell.labels),
        "network_precision": cell.precision,
        "seeding": cell.seeding,
        "time_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def as_used(cell: Cell, denoiser: Denoiser) -> Row:
    """Options of schedule and grid that are null, which leaves them to the network, as they came out."""
    schedule, grid = as_trained(denoiser, registry.build(cell.schedule), registry.build(cell.grid))
    return {
        "schedule_params": _filled(params(cell.schedule), schedule),
        "grid_params": _filled(params(cell.grid), grid),
    }


def params(group: Mapping[str, Any], without: tuple[str, ...] = ()) -> Row:
    """The options of a choice, and the source of a class from outside the package."""
    return {**options_of(group, without), **outside(group)}


def _filled(options: Row, built: Any) -> Row:
    return {key: getattr(built, key) if value is None else value for key, value in options.items()}


def identity_of(problem: Problem) -> Row:
    """IDs of network, extractor and reference, and the version of the arithmetic."""
    return {
        "model_id": problem.model_id,
        **({} if problem.weaker_id is None else {"weaker_id": problem.weaker_id}),
        "extractor": problem.features.name,
        "extractor_id": problem.features.id,
        "extractor_weights": problem.features.weights_id,
        "reference": problem.reference_name,
        "reference_id": problem.reference_id,
        "reference_images": (problem.reference and problem.reference.n) or None,
        "reference_shape": problem.reference_shape,
        "real_id": problem.real_id,
        "quantiser": QUANTISERS[problem.pixels] if problem.features.quantised else "none",
        "numerics_version": NUMERICS_VERSION,
    }


def solver_facts(solver: Solver) -> Row:
    """What the solver declares."""
    return {
        "solver_family": solver.family,
        **{key: getattr(solver, key) for key in ("order", "weak_order", "stochastic")},
    }


def environment_of(device: str, world_size: int) -> Row:
    """Where it ran, and with which versions."""
    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return {
        "device": device,
        "device_name": name,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "version_seedsbench": seedsbench.__version__,
        "version_torch": torch.__version__,
        "version_numpy": metadata.version("numpy"),
        "version_python": platform.python_version(),
    }


def score_text(row: Row) -> str:
    """What a finished row is judged by: 'FID 1.234'."""
    name = judged_by(row)
    return f"{SCORE_NAMES[name]} {row[name]:{'.3f' if name == 'fid' else '.3g'}}"


def result_text(row: Row) -> str:
    """What became of the cell, in a few words."""
    if row["status"] != "done":
        return f"{row['status']}: {row['reason']}"
    score = "" if row.get("is_mean") is None else f", IS {row['is_mean']:.2f}"
    seconds, rate = row.get("seconds_sampling"), row.get("images_per_second")
    speed = "" if seconds is None or rate is None else f", {seconds:.1f} s, {rate:.0f} images/s"
    floor = "" if row.get("fid_floor") is None else f" (floor {row['fid_floor']:.3f})"
    return f"{score_text(row)}{floor}{score}, NFE {row['nfe']:g}{speed}" + (
        f" (warning: {row['warning']})" if row.get("warning") else ""
    )
