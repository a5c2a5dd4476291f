"""One cell: a resolved configuration in, one row out. A cell that cannot run says why in its row."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from seedsbench import registry
from seedsbench.api import noise_levels, steps_of
from seedsbench.bench import previews
from seedsbench.bench.model_files import CIRCUMSTANCES
from seedsbench.bench.problems import Model, Problem
from seedsbench.bench.progress import CellLine, SweepLine
from seedsbench.bench.row_facts import (
    changed_arithmetic,
    choices_of,
    describe,
    environment_of,
    identity_of,
    labels_of,
    options_of,
    outcome,
    solver_facts,
)
from seedsbench.bench.sampling import Plan, batch_size_for, classes_of, generate
from seedsbench.bench.scoring import Scorer, floor, prepared
from seedsbench.bench.store import ResultStore, Row, run_key
from seedsbench.bench.yardsticks import PLACES, measured
from seedsbench.config import NUMERICS_VERSION
from seedsbench.solvers.base import BudgetError

log = logging.getLogger(__name__)

# fmt: off
MEASURED = (
    "nfe", "nfe_max", "n_steps", "fid", "fid_floor", "is_mean", "is_std", "seconds_sampling",
    "seconds_features", "seconds_scoring", "seconds_floor", "images_per_second",
)
# fmt: on
"""What only a finished cell has; null in the rows of the others, so that every row has every key."""

_LOADED: dict[tuple[str, ...], Any] = {}


def problem_of(cfg: DictConfig, device: str) -> Problem:
    """The model's problem; loaded once for all cells of this process that share it."""
    model = (OmegaConf.to_yaml(cfg.model, resolve=True), str(cfg.regime.name), device)
    options: Any = OmegaConf.to_container(cfg.metrics, resolve=True)
    metrics = OmegaConf.to_yaml(cfg.metrics, resolve=True) if "_target_" in options else ""
    return _once(
        (*model, metrics), lambda: measured(_once(model, lambda: _model(cfg, device)), options, device)
    )


def _model(cfg: DictConfig, device: str) -> Model:
    return registry.build({**cfg.model, "regime": cfg.regime.name, "device": device})


def _once(key: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """What make() returns, kept for the last few keys."""
    if key not in _LOADED:
        made = make()
        while len(_LOADED) >= 8:
            _LOADED.pop(next(iter(_LOADED)))
        _LOADED[key] = made
    return _LOADED[key]


def device_of(name: str) -> str:
    """ "auto" is CUDA where there is one; asking for CUDA where there is none is an error."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name}, but torch sees no CUDA device here: use device=cpu or auto")
    return name


def scientific(cfg: DictConfig, problem: Problem | None, seed: int) -> dict[str, Any]:
    """All that can change a row's numbers, and nothing else: what `run_key` hashes."""
    groups = ("schedule", "grid", "solver", "metrics")
    model = options_of(cfg.model, without=()) if problem is None else options_of(cfg.model, CIRCUMSTANCES)
    science: dict[str, Any] = {
        "numerics_version": NUMERICS_VERSION,
        "model": model,
        **{group: OmegaConf.to_container(cfg[group], resolve=True) for group in groups},
        "model_id": None if problem is None else problem.model_id,
        "features_id": None if problem is None else problem.features.id,
        "reference_id": None if problem is None else problem.reference_id,
        "regime": cfg.regime.name,
        "nfe": cfg.nfe,
        "samples": cfg.samples,
        "seed": seed,
        "labels": labels_of(cfg.labels),
        "final": cfg.final,
        "afs": cfg.afs,
        "dtype": cfg.dtype,
        **changed_arithmetic(cfg),
    }
    for place in PLACES:  # known by features_id, reference_id and real_id
        science["metrics"].pop(place, None)
    if problem is not None and problem.pairs is not None:
        science["real_id"] = problem.pairs.id
    if cfg.seeding != "philox":  # torch's generators are the device's own
        on_cpu = str(cfg.device) == "cpu" or not torch.cuda.is_available()
        science["seeding"] = [cfg.seeding, "cpu" if on_cpu else "cuda"]
    return science


def run_cell(
    cfg: DictConfig, seed: int, *, command: str, invocation: str, sweep: SweepLine | None = None
) -> Row:
    """Run, or find finished, the cell of `cfg` with this seed; returns and stores its row.

    command reproduces the cell; invocation names the run it was computed in; sweep is told of
    progress. A budget that fits no step
    gives status "skipped"; any error gives "failed" with its message. Only
    KeyboardInterrupt (and, with debug=true, the error itself) escapes.
    """
    store = ResultStore(Path(cfg.results_dir) / cfg.study)
    row: Row = {"status": "failed", "reason": None, **choices_of(cfg), **dict.fromkeys(MEASURED)}
    row.update(seed=seed, command=command, invocation=invocation)
    problem, device = None, str(cfg.device)
    try:
        device = device_of(device)
        problem = problem_of(cfg, device)
    except Exception as error:
        return _failed(cfg, store, {**row, "run_key": run_key(scientific(cfg, None, seed))}, error)
    row.update(run_key=run_key(scientific(cfg, problem, seed)), **identity_of(problem))
    finished = None if cfg.force else store.finished(row["run_key"])
    if finished is not None:
        log.info("%s is already done: %s", describe(row), outcome(finished))
        return finished
    try:
        preview = store.sample_path(row["run_key"])
        row.update(_execute(cfg, problem, device, seed, preview, describe(row), sweep))
        row["status"] = "done"
    except BudgetError as error:
        row.update(status="skipped", reason=str(error))
    except Exception as error:
        return _failed(cfg, store, row, error)
    return _stored(store, row)


def _failed(cfg: DictConfig, store: ResultStore, row: Row, error: Exception) -> Row:
    if cfg.debug:
        raise error
    log.debug("cell failed", exc_info=error)
    message = " ".join(str(error).split())
    expected = isinstance(error, ValueError | ArithmeticError)
    row.update(
        status="failed", reason=message if expected and message else f"{type(error).__name__}: {message}"
    )
    return _stored(store, row)


def _stored(store: ResultStore, row: Row) -> Row:
    store.write(row)
    log.info("%s: %s", describe(row), outcome(row))
    return row


def _execute(
    cfg: DictConfig,
    problem: Problem,
    device: str,
    seed: int,
    preview: Path,
    title: str,
    sweep: SweepLine | None,
) -> Row:
    solver, schedule, grid = (registry.build(cfg[group]) for group in ("solver", "schedule", "grid"))
    labels = labels_of(cfg.labels)
    classes_of(torch.arange(1), labels, problem.denoiser.label_dim, seed)
    n_steps = steps_of(solver, grid, cfg.nfe, cfg.final, afs=cfg.afs)
    sigmas, fitted = noise_levels(problem.denoiser, schedule, grid, n_steps)
    dtype = getattr(torch, cfg.dtype)
    plan = Plan(
        *(solver, fitted, sigmas, cfg.final, seed, labels, dtype, cfg.afs),
        *(cfg.seeding, cfg.samples, cfg.precision, cfg.compile),
    )
    row = _sample_and_score(cfg, problem, plan, device, preview, title, sweep)
    started = time.perf_counter()
    row["fid_floor"] = floor(problem, cfg.samples, labels, cfg.metrics.splits, cfg.metrics.floor_sets)
    row["seconds_floor"] = time.perf_counter() - started
    return {**row, **solver_facts(solver), "n_steps": len(sigmas) - 1, **environment_of(cfg, device)}


def _sample_and_score(
    cfg: DictConfig,
    problem: Problem,
    plan: Plan,
    device: str,
    preview: Path,
    title: str,
    sweep: SweepLine | None,
) -> Row:
    scorer = Scorer(problem, cfg.samples, min(cfg.metrics.splits, cfg.samples))
    size = batch_size_for(problem.denoiser, plan, cfg.batch_size, device)
    total, most = 0, 0
    shown = previews.Strip()
    seconds = {"sampling": 0.0, "features": 0.0, "scoring": 0.0}
    with CellLine(title, cfg.samples, cfg.samples * cfg.nfe, sweep) as line:
        batches = generate(
            problem.denoiser,
            plan,
            torch.arange(cfg.samples),
            batch_size=size,
            device=device,
            progress=line.advance,
        )
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            images = prepared(problem, batch)
            sampled = time.perf_counter()
            scorer.update(batch.indices, images)
            seconds["sampling"] += sampled - started
            seconds["features"] += time.perf_counter() - sampled
            line.finished(len(batch.indices))
            total, most = total + int(batch.nfe.sum()), max(most, int(batch.nfe.max()))
            shown.add(batch.indices, images)
    started = time.perf_counter()
    scores = scorer.compute()
    seconds["scoring"] = time.perf_counter() - started
    shown.write(preview)
    return {
        **scores,
        "nfe": total / cfg.samples,
        "nfe_max": most,
        "batch_size": size.now,
        **{f"seconds_{part}": value for part, value in seconds.items()},
        "images_per_second": cfg.samples / seconds["sampling"],
    }
