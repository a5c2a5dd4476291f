"""One cell: a resolved configuration in, one row out. A cell that cannot run says why in its row."""

import logging
import time
from functools import lru_cache, partial
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from seedsbench.bench.cell import study_folder
from seedsbench.bench.draw_and_score import Job, draw, lead, plan_of
from seedsbench.bench.machine import device_of, make_current
from seedsbench.bench.problems.base import Model, Problem
from seedsbench.bench.problems.own import built
from seedsbench.bench.problems.scored_on import measured
from seedsbench.bench.progress import SweepLine
from seedsbench.bench.ranks import Ranks, cells, gathered, joined
from seedsbench.bench.resume import forget
from seedsbench.bench.rows.columns import (
    as_used,
    choices_of,
    describe,
    environment_of,
    identity_of,
    outcome,
    reason_of,
    solver_facts,
)
from seedsbench.bench.rows.run_key import scientific
from seedsbench.bench.rows.store import ResultStore, Row, run_key
from seedsbench.bench.sampling import batch_size_for
from seedsbench.bench.sanity import divergence_warnings, facts_in, facts_of
from seedsbench.bench.scoring import beside_fid, fid_floor
from seedsbench.bench.stopping import Stopped, stop_requested
from seedsbench.metrics.base import State
from seedsbench.solvers.base import BudgetError

log = logging.getLogger(__name__)

# fmt: off
MEASURED = (
    "nfe", "nfe_max", "n_steps", "fid", "fid_floor", "is_mean", "is_std", "seconds_sampling",
    "seconds_features", "seconds_scoring", "seconds_floor", "images_per_second", "largest", "largest_data",
    "saturated", "warning",
)
# fmt: on
"""What only a finished cell has; null in the rows of the others, so that every row has every key. Where
samples diverged, their size is said all the same."""

KEPT = 8
"""Models and problems kept: a sweep over models or regimes loads each once. Of large networks (300 million
parameters) these are 10 GB."""


def problem_of(cfg: DictConfig, device: str) -> Problem:
    """The model's problem; loaded once for all cells of this process that share it.

    The first that a process asks of its GPU, which it then makes its own.
    """
    make_current(device)
    options: Any = OmegaConf.to_container(cfg.metrics, resolve=True)
    metrics = OmegaConf.to_yaml(cfg.metrics, resolve=True) if "_target_" in options else "{}"
    return _problem(OmegaConf.to_yaml(cfg.model, resolve=True), str(cfg.regime.name), metrics, device)


@lru_cache(maxsize=KEPT)
def _problem(model: str, regime: str, metrics: str, device: str) -> Problem:
    options: Any = OmegaConf.to_container(OmegaConf.create(metrics))
    return measured(_model(model, regime, device), options, device)


@lru_cache(maxsize=KEPT)
def _model(model: str, regime: str, device: str) -> Model:
    options: Any = OmegaConf.to_container(OmegaConf.create(model))
    return built(options, regime, device)


def run_cell(
    cfg: DictConfig, seed: int, *, command: str, invocation: str, sweep: SweepLine | None = None
) -> Row:
    """Run, or find finished, the cell of `cfg` with this seed; returns and stores its row.

    command reproduces the cell; invocation names the run it was computed in; sweep is told of progress.
    A budget that fits no step gives status "skipped"; any error gives "failed" with its message. Only
    KeyboardInterrupt, Stopped (and, with debug=true, the error itself) escapes.
    Of several ranks, rank 0 calls it and the others do their share in `follow`.
    """
    store, ranks = ResultStore(study_folder(cfg)), joined()
    row: Row = {"status": "failed", "reason": None, **choices_of(cfg), **dict.fromkeys(MEASURED)}
    row.update(seed=seed, command=command, invocation=invocation)
    try:
        device = device_of(str(cfg.device), ranks.local_rank)
        problem = problem_of(cfg, device)
    except Exception as error:
        return _failed(cfg, store, {**row, "run_key": run_key(scientific(cfg, None, seed))}, error)
    row.update(run_key=run_key(scientific(cfg, problem, seed)), **identity_of(problem))
    finished = None if cfg.force else store.finished(row["run_key"])
    if finished is not None:
        log.info("%s is already done: %s", describe(row), outcome(finished))
        forget(store, row["run_key"])
        return finished
    if stop_requested():
        raise Stopped
    try:
        row.update(as_used(cfg, problem.denoiser))
        row.update(_execute(_job(cfg, problem, device, store, dict(row), ranks), sweep))
        row["status"] = "done"
    except BudgetError as error:
        row.update(status="skipped", reason=str(error))
    except Exception as error:
        return _failed(cfg, store, row, error)
    _stored(store, row)
    forget(store, row["run_key"])
    return row


def follow(ranks: Ranks) -> None:
    """What the ranks other than 0 do: their share of each cell, and nothing else, until rank 0 ends.

    They read no command, run no Hydra and write nothing but their own sums. Raises Stopped when told to stop,
    or when another rank is gone.
    """
    for cell in cells(ranks):
        try:
            part: Any = _share(ranks, **cell)
        except Exception as error:
            part = reason_of(error)
        gathered(ranks, part)


def _share(ranks: Ranks, cfg: str, row: Row, done: np.ndarray) -> State:
    """The sums of this rank's share of a cell, told by its resolved configuration as YAML."""
    composed: Any = OmegaConf.create(cfg)
    device = device_of(str(composed.device), ranks.local_rank)
    store = ResultStore(study_folder(composed))
    problem = problem_of(composed, device)
    if problem.model_id != row["model_id"]:
        raise ValueError("the model is another one in each process: let what builds it seed its numbers")
    job = _job(composed, problem, device, store, row, ranks)
    mine = job.scorer()
    draw(job, done, mine)
    return mine.state()


def _job(cfg: DictConfig, problem: Problem, device: str, store: ResultStore, row: Row, ranks: Ranks) -> Job:
    plan = plan_of(cfg, problem, row["seed"])
    size = batch_size_for(problem.denoiser, plan, cfg.batch_size, device)
    return Job(cfg, problem, plan, size, device, store, row, ranks)


def _failed(cfg: DictConfig, store: ResultStore, row: Row, error: Exception) -> Row:
    if cfg.debug:
        raise error
    log.debug("cell failed", exc_info=error)
    row.update(status="failed", reason=reason_of(error), **facts_in(error))
    return _stored(store, row)


def _stored(store: ResultStore, row: Row) -> Row:
    store.write(row)
    log.info("%s: %s", describe(row), outcome(row))
    return row


def _execute(job: Job, sweep: SweepLine | None) -> Row:
    """What only a finished cell has. seconds_* add up over its runs; of ranks the slowest counts."""
    cfg, problem, plan = job.cfg, job.problem, job.plan
    earlier, scorer, others = lead(job, sweep)
    started = time.perf_counter()
    for part in others:
        scorer.add(part, alongside=True)
    if earlier.n_done:
        scorer.add(earlier.state())
    row: Row = {**scorer.compute(), "nfe": scorer.nfe / plan.samples, "nfe_max": scorer.nfe_max}
    sizes = facts_of(problem, scorer.extent.tolist(), plan.samples)
    warnings = [*problem.warnings, *plan.warnings, *divergence_warnings(sizes), *scorer.warnings]
    scored = time.perf_counter()
    real = partial(fid_floor, problem, plan.samples, plan.labels, cfg.metrics.floor_sets)
    row.update(beside_fid(("fid_floor",), lambda: {"fid_floor": real()}, warnings))
    sampling, features = scorer.seconds.tolist()
    row.update(
        **sizes,
        warning="; ".join(warnings) or None,
        seconds_sampling=sampling,
        seconds_features=features,
        seconds_scoring=scored - started,
        seconds_floor=time.perf_counter() - scored,
        images_per_second=plan.samples / sampling,
        batch_size=job.size.now,
    )
    scorer.shown.write(job.store.sample_path(job.row["run_key"]))
    environment = environment_of(cfg, job.device, job.ranks.world_size)
    return {**row, **solver_facts(plan.solver), "n_steps": len(plan.sigmas) - 1, **environment}
