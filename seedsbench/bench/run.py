"""One cell: a typed configuration in, one row out. A cell that cannot run says why in its row."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seedsbench.bench.cell import Cell
from seedsbench.bench.draw_and_score import CellRun, draw, lead
from seedsbench.bench.machine import device_of
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.progress import Telling
from seedsbench.bench.ranks import Ranks, cells, gathered, joined
from seedsbench.bench.resume import forget
from seedsbench.bench.rows.columns import (
    as_used,
    asked,
    environment_of,
    identity_of,
    result_text,
    solver_facts,
)
from seedsbench.bench.rows.images import KeptImages
from seedsbench.bench.rows.run_key import run_key
from seedsbench.bench.rows.store import ResultStore, row_text
from seedsbench.bench.sampling import batch_size_for, plan_of
from seedsbench.bench.sanity import divergence_warnings, facts_in, facts_of
from seedsbench.bench.scoring import FLOOR, Scorer, beside_fid, fid_floor
from seedsbench.bench.stopping import Stopped, stop_requested
from seedsbench.checks import in_one_line
from seedsbench.diffusion.path import NoPathError
from seedsbench.files.rows import Row, title_of
from seedsbench.metrics.base import State
from seedsbench.solvers.base import BudgetError

log = logging.getLogger(__name__)

# fmt: off
MEASURED = (
    "nfe", "nfe_max", "n_steps", "fid", "fid_floor", "fid_floor_std", "is_mean", "is_std",
    "seconds_sampling", "seconds_features", "seconds_scoring", "seconds_floor", "images_per_second",
    "largest", "largest_data", "saturated", "statistics_id", "warning",
)
# fmt: on
"""What only a finished cell has; null in the rows of the others, so that every row has every key. Where
samples diverged, their size is said all the same."""


def run_cell(cell: Cell, *, command: str, invocation: str, telling: Telling | None = None) -> Row:
    """Run a cell with its first seed, or find it finished; returns and stores its row.

    command reproduces the cell; invocation names the run it was computed in; telling: who hears of progress.
    A budget that fits no step, and exact paths asked for where there are none, give status "skipped"; any
    error gives "failed" with its message. Only KeyboardInterrupt, Stopped (and, with debug=true, the error
    itself) escapes.
    Of several ranks, rank 0 calls it and the others do their share in `follow`.
    """
    store, ranks = ResultStore(cell.study_folder), joined()
    row: Row = {"status": "failed", "reason": None, **asked(cell), **dict.fromkeys(MEASURED)}
    row.update(command=command, invocation=invocation)
    try:
        device = device_of(cell.device, ranks.local_rank)
        problem = problem_of(cell, device)
    except (Exception, SystemExit) as error:
        return _failed(cell, store, {**row, "run_key": run_key(cell, None)}, error)
    key = run_key(cell, problem)
    row.update(run_key=key, **identity_of(problem))
    finished = None if cell.force else store.finished(key)
    if finished is not None:
        log.info("%s is already done: %s", title_of(row, cell.varied), result_text(finished))
        if left := _not_kept(cell, store, finished):
            log.warning("%s is done without %s: force=true makes them", title_of(row, cell.varied), left)
        forget(store, key)
        return finished
    if stop_requested():
        raise Stopped
    try:
        row.update(as_used(cell, problem.denoiser))
        row.update(_measure(_prepared(cell, problem, device, dict(row), ranks), telling))
        row_text({**row, "status": "done"})  # a value that no row can have is a failure of this cell
        row["status"] = "done"
    except (BudgetError, NoPathError) as error:
        row.update(status="skipped", reason=str(error))
    except (Exception, SystemExit) as error:
        return _failed(cell, store, row, error)
    _stored(cell, store, row)
    forget(store, key)
    return row


def _not_kept(cell: Cell, store: ResultStore, row: Row) -> str:
    """What a cell is asked to keep and its finished row has not, in words; "" where that is nothing."""
    key, asked_for = row["run_key"], []
    if cell.keep_statistics and not (row.get("statistics_id") and store.statistics_path(key).is_file()):
        asked_for.append("statistics")
    if not KeptImages(store.images_folder(key), cell.kept_samples).finished:
        asked_for.append("its images")
    return " and ".join(asked_for)


def follow(ranks: Ranks) -> None:
    """What the ranks other than 0 do: their share of each cell, and nothing else, until rank 0 ends.

    They read no command and write nothing but their own sums. Raises Stopped when told to stop, or when
    another rank is gone.
    """
    for message in cells(ranks):
        try:
            part: Any = _share(ranks, **message)
        except (Exception, SystemExit) as error:
            part = in_one_line(error)
        gathered(ranks, part)


def _share(ranks: Ranks, cell: Cell, row: Row, done: np.ndarray) -> State:
    """The sums of this rank's share of a cell."""
    device = device_of(cell.device, ranks.local_rank)
    problem = problem_of(cell, device)
    if problem.model_id != row["model_id"]:
        raise ValueError("the model is another one in each process: let what builds it seed its numbers")
    run = _prepared(cell, problem, device, row, ranks)
    mine = run.scorer()
    draw(run, done, mine)
    return mine.state()


def _prepared(cell: Cell, problem: Problem, device: str, row: Row, ranks: Ranks) -> CellRun:
    plan = plan_of(cell, problem)
    size = batch_size_for(problem.denoiser, plan, cell.batch_size, device)
    return CellRun(problem, plan, size, device, ResultStore(cell.study_folder), row, ranks)


def _failed(cell: Cell, store: ResultStore, row: Row, error: BaseException) -> Row:
    if cell.debug:
        raise error
    log.debug("%s failed", title_of(row, cell.varied), exc_info=error)
    row.update(status="failed", reason=in_one_line(error), **facts_in(error))
    return _stored(cell, store, row)


def _stored(cell: Cell, store: ResultStore, row: Row) -> Row:
    store.write(row)
    log.info("%s: %s", title_of(row, cell.varied), result_text(row))
    return row


def _scores(scorer: Scorer, run: CellRun, n_earlier: int) -> Row:
    """The scores and the mean NFE. Sums of an earlier run that give none are forgotten, and said to be."""
    try:
        scores: Row = {**scorer.compute(), "nfe": scorer.nfe / run.cell.samples}
        row_text({**run.row, **scores, "status": "done"})
    except (ValueError, ArithmeticError) as error:
        if not n_earlier:
            raise
        forget(run.store, run.row["run_key"])
        said = f"the saved sums of {n_earlier} samples fit nothing and are deleted: run again"
        raise ValueError(f"{said} ({in_one_line(error)})") from error
    return scores


def _keep_statistics(scorer: Scorer, path: Path, wanted: bool) -> str | None:
    """The id of the statistics left at a path; where none are wanted, those of an earlier row go."""
    if not wanted:
        if path.is_file():
            path.unlink()
        return None
    kept = scorer.statistics()
    kept.write(path)
    return kept.id


def _measure(run: CellRun, telling: Telling | None) -> Row:
    """What only a finished cell has. seconds_* add up over its runs; of ranks the slowest counts."""
    problem, plan, cell = run.problem, run.plan, run.cell
    earlier, scorer, others = lead(run, telling)
    started = time.perf_counter()
    for part in others:
        scorer.add(part, alongside=True)
    if earlier.n_done:
        scorer.add(earlier.state())
    row: Row = {**_scores(scorer, run, earlier.n_done), "nfe_max": scorer.nfe_max}
    sizes = facts_of(problem, scorer.extent.tolist(), cell.samples)
    warnings = [*problem.warnings, *plan.warnings, *divergence_warnings(sizes), *scorer.warnings]
    scored = time.perf_counter()
    real = partial(fid_floor, problem, cell.samples, cell.labels, cell.metrics.get("floor_sets", 1))
    row.update(beside_fid(FLOOR, real, warnings))
    sampling, features = scorer.seconds.tolist()
    row.update(
        **sizes,
        warning="; ".join(warnings) or None,
        seconds_sampling=sampling,
        seconds_features=features,
        seconds_scoring=scored - started,
        seconds_floor=time.perf_counter() - scored,
        # Of a solver whose samples' exact paths took most of the time, nothing is known.
        images_per_second=cell.samples / sampling if plan.exact is None else None,
        batch_size=run.size.now,
    )
    key = run.row["run_key"]
    scorer.shown.write(run.store.sample_path(key))
    run.images.finish()
    row["statistics_id"] = _keep_statistics(scorer, run.store.statistics_path(key), cell.keep_statistics)
    environment = environment_of(run.device, run.ranks.world_size)
    return {**row, **solver_facts(plan.solver), "n_steps": len(plan.sigmas) - 1, **environment}
