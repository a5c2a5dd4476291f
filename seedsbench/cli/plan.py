"""What cells would cost and which are done: the lines of plan=true. Writes and fetches nothing.

Times are those of this machine's earlier rows: of the same solver, else of any. Where no row tells, the time
is not known yet.
"""

import itertools
import math
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seedsbench import registry
from seedsbench.api import evaluations_of, levels_within
from seedsbench.bench.cell import Cell
from seedsbench.bench.machine import device_of, duration, machine
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.columns import asked, score_text
from seedsbench.bench.rows.run_key import run_key
from seedsbench.bench.rows.store import ResultStore
from seedsbench.cli.dry_run import files_of_cell, still_to_fetch
from seedsbench.denoisers.guidance import Unguided
from seedsbench.files.rows import read_row, title_of
from seedsbench.solvers.base import BudgetError

START_AND_REPORT = 6.0
"""Seconds of a sweep that are not its cells: imports, loading the network, tables and figures."""
MAX_LINES = 2000
SHORTEST = 0.5
"""Seconds of sampling in a row that tells a speed; in less, the first calls count for too much."""


@dataclass(frozen=True)
class Speed:
    """Seconds an evaluation of one sample, an image's features and scores, and a whole floor take."""

    evaluation: float
    image: float
    floor: float


def plan_text(cells: list[Cell]) -> str:
    """A count, one line a row, then the time and disk that what is not done would take.

    A row's line has its choices, steps and evaluations, or what is known of it where it is done.
    """
    lines, left = [], []
    for cell in cells:
        # If its files are not here, no row of it can be known.
        # A list: a path that is not there is said even where another file is still to be fetched.
        absent = any([still_to_fetch(wanted) for wanted in files_of_cell(cell)])
        problem = None if absent else problem_of(cell, device_of(cell.device))
        for seed in range(cell.seed, cell.seed + cell.repeats):
            line, nfe = _line(replace(cell, seed=seed), problem)
            lines.append(line)
            left += [(cell, nfe, _disk(cell, problem))] if nfe else []
    count, more = f"{len(lines)} cell{'s' * (len(lines) != 1)}", lines[MAX_LINES:]
    shown = [*lines[:MAX_LINES], *([f"  and {len(more):,} more"] if more else [])]
    return "\n".join([count, *shown, *_cost_lines(left, cells[0].study_folder)])


def _line(cell: Cell, problem: Problem | None) -> tuple[str, int]:
    """The line of a row, and the evaluations a sample that are left to do, those of exact paths too."""
    title = f"  {title_of(asked(cell), cell.varied)}"
    store = ResultStore(cell.study_folder)
    try:
        told, nfe = _steps(cell, problem)
    except BudgetError as error:
        return f"{title}: will be skipped, {error}", 0
    except ValueError as error:
        return f"{title}: will fail, {error}", 0
    known = problem is not None and not cell.force
    row = store.finished(run_key(cell, problem), look_only=True) if known else None
    state = f"done, {score_text(row)}" if row else f"{cell.samples * nfe:,} evaluations to do"
    return f"{title}: {told}, {state}", 0 if row else nfe


def _steps(cell: Cell, problem: Problem | None) -> tuple[str, int]:
    """Steps and evaluations of a cell, in words, and the latter. BudgetError where no step fits."""
    solver, grid, guidance = map(registry.build, (cell.solver, cell.grid, cell.guidance))
    guided = None if problem is None else guidance.of(problem.denoiser)
    if guided is None and not isinstance(
        guidance, Unguided
    ):  # its cost is told by the network's noise levels
        return f"NFE {cell.nfe} at most", cell.nfe
    if guided is None or guided.evaluations == 1:
        steps = solver.steps_for(cell.nfe, cell.final, afs=cell.afs, own_steps=grid.own_steps)
        nfe = solver.total_nfe(steps, cell.final, afs=cell.afs)
    else:
        schedule = registry.build(cell.schedule)
        levels = levels_within(cell.nfe, guided, solver, schedule, grid, cell.final, afs=cell.afs)
        steps, nfe = len(levels[0]) - 1, evaluations_of(guided, solver, *levels, cell.final, afs=cell.afs)
    beside = 0 if problem is None or problem.paths is None else problem.paths.evaluations(solver, nfe)
    return f"{steps} steps, NFE {nfe}", nfe + beside


def _disk(cell: Cell, problem: Problem | None) -> int:
    """Bytes of a row, its strip of images, and what it is asked to keep, as far as that is known."""
    image = math.prod(cell.model.get("shape") or (3, 16, 16))
    size = 3000 + 8 * image + cell.kept_samples * image
    if cell.keep_statistics and problem is not None:
        size += 8 * problem.features.dim**2 + 4 * cell.samples * problem.features.n_classes
    return size


def _cost_lines(left: list[tuple[Cell, int, int]], study: Path) -> list[str]:
    """The time and disk that rows would take. left: for each its cell, evaluations a sample, and bytes."""
    if not left:
        return ["nothing to do"]
    rows = earlier_rows(study.parent)
    lines, floors, unknown, seconds, size = [], {}, [], START_AND_REPORT, 1e6
    for cell, nfe, kept in left:
        size += kept
        speed, name = speed_of(cell, rows), f"{cell.choices['model']}/{cell.choices['regime']}"
        if speed is None:
            unknown.append(name)
            continue
        floors[name, str(cell.metrics), cell.samples, str(cell.labels)] = speed.floor
        seconds += cell.samples * (nfe * speed.evaluation + speed.image)
    if floors:
        total = duration(seconds + sum(floors.values()))
        lines.append(f"estimated time: {total} on this machine, one cell after another (by its earlier rows)")
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        lines.append(f"time not known yet of {names}: no such cell has run on this machine")
    free = shutil.disk_usage(next(folder for folder in (study, *study.parents) if folder.exists())).free
    return [*lines, f"disk: about {size / 1e6:.1f} MB in {study} ({free / 1e9:.0f} GB free)"]


def earlier_rows(results: Path) -> list[dict[str, Any]]:
    """Finished rows that this machine has made, of the studies of a results folder; of many, some 1,000."""
    found = []
    for path in itertools.islice(results.glob("*/rows/*.json"), 1000):  # more tell no more, and take long
        if path.parents[1].is_symlink():  # results/latest: its rows are met under the study's own name
            continue
        with suppress(OSError, ValueError):
            row = read_row(path)
            if row["status"] == "done" and row.get("machine") == machine():
                found.append(row)
    return found


def speed_of(cell: Cell, rows: list[dict[str, Any]]) -> Speed | None:
    """The mean speed of rows of this network and device; those of the same solver if there are any."""
    same = {**asked(cell), "device": device_of(cell.device), "threads": torch.get_num_threads()}
    keys = ("model", "regime", "dtype", "network_precision", "compile", "device", "threads")
    near = [row for row in rows if all(row.get(key) == same[key] for key in keys)]
    # The seconds of others are those of exact paths too.
    near = [row for row in near if row.get("trajectory_rms") is None]
    near = [row for row in near if (row.get("seconds_sampling") or 0.0) >= SHORTEST]
    near = [row for row in near if row["nfe"] and row.get("samples")]
    near = [row for row in near if row.get("solver") == same["solver"]] or near
    near = [row for row in near if row.get("batch_size") == cell.batch_size] or near
    if not near:
        return None

    def total(*keys: str) -> float:
        return sum(float(row.get(key) or 0.0) for key in keys for row in near)

    return Speed(
        evaluation=total("seconds_sampling") / sum(row["nfe"] * row["samples"] for row in near),
        image=total("seconds_features", "seconds_scoring") / total("samples"),
        floor=max((row.get("seconds_floor") or 0.0) * cell.samples / row["samples"] for row in near),
    )
