"""One cell: a resolved configuration in, one row out. A cell that cannot run says why in its row."""

import logging
import platform
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import seedsbench
from seedsbench import registry
from seedsbench.api import noise_levels, steps_of
from seedsbench.bench import previews
from seedsbench.bench.machine import machine
from seedsbench.bench.model_files import CIRCUMSTANCES
from seedsbench.bench.problems import Model, Problem
from seedsbench.bench.progress import CellLine, SweepLine
from seedsbench.bench.sampling import Plan, classes_of, generate
from seedsbench.bench.scoring import Scorer, floor, prepared
from seedsbench.bench.store import ResultStore, Row, run_key
from seedsbench.bench.yardsticks import PLACES, measured
from seedsbench.config import NUMERICS_VERSION
from seedsbench.data.images import QUANTISER
from seedsbench.solvers.base import BudgetError, Solver

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
    model = _options(cfg.model, without=()) if problem is None else _options(cfg.model, CIRCUMSTANCES)
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
        "labels": _labels(cfg.labels),
        "final": cfg.final,
        "afs": cfg.afs,
        "dtype": cfg.dtype,
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
    row: Row = {"status": "failed", "reason": None, **_names(cfg), **dict.fromkeys(MEASURED)}
    row.update(seed=seed, command=command, invocation=invocation)
    problem, device = None, str(cfg.device)
    try:
        device = device_of(device)
        problem = problem_of(cfg, device)
    except Exception as error:
        return _failed(cfg, store, {**row, "run_key": run_key(scientific(cfg, None, seed))}, error)
    row.update(run_key=run_key(scientific(cfg, problem, seed)), **_identity(problem))
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
    labels = _labels(cfg.labels)
    classes_of(torch.arange(1), labels, problem.denoiser.label_dim, seed)
    n_steps = steps_of(solver, grid, cfg.nfe, cfg.final, afs=cfg.afs)
    sigmas, fitted = noise_levels(problem.denoiser, schedule, grid, n_steps)
    dtype = getattr(torch, cfg.dtype)
    plan = Plan(*(solver, fitted, sigmas, cfg.final, seed, labels, dtype, cfg.afs), cfg.seeding, cfg.samples)
    row = _sample_and_score(cfg, problem, plan, device, preview, title, sweep)
    started = time.perf_counter()
    row["fid_floor"] = floor(problem, cfg.samples, labels, cfg.metrics.splits, cfg.metrics.floor_sets)
    row["seconds_floor"] = time.perf_counter() - started
    return {**row, **_solver_facts(solver), "n_steps": len(sigmas) - 1, **_environment(cfg, device)}


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
    total, most = 0, 0
    shown = previews.Strip()
    seconds = {"sampling": 0.0, "features": 0.0, "scoring": 0.0}
    with CellLine(title, cfg.samples, cfg.samples * cfg.nfe, sweep) as line:
        batches = generate(
            problem.denoiser,
            plan,
            torch.arange(cfg.samples),
            batch_size=cfg.batch_size,
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
        **{f"seconds_{part}": value for part, value in seconds.items()},
        "images_per_second": cfg.samples / seconds["sampling"],
    }


def _labels(value: Any) -> str | int:
    if value is None:
        return "none"
    text = str(value)
    return int(text) if text.lstrip("-").isdigit() else text


def _names(cfg: DictConfig) -> Row:
    return {
        **{group: str(cfg.choices[group]) for group in ("model", "regime", "schedule", "grid", "solver")},
        **{f"{group}_params": _options(cfg[group]) for group in ("schedule", "grid", "solver")},
        "nfe_budget": cfg.nfe,
        "samples": cfg.samples,
        "labels": str(_labels(cfg.labels)),
        "final": cfg.final,
        "afs": cfg.afs,
        "dtype": cfg.dtype,
        "seeding": cfg.seeding,
        "time_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _options(node: DictConfig, without: tuple[str, ...] = ("_target_",)) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(node, resolve=True)
    return {key: value for key, value in values.items() if key not in without}


def _identity(problem: Problem) -> Row:
    return {
        "model_id": problem.model_id,
        "extractor": problem.features.name,
        "extractor_id": problem.features.id,
        "extractor_weights": problem.features.weights_id,
        "reference": problem.reference_name,
        "reference_id": problem.reference_id,
        "quantiser": QUANTISER if problem.features.quantised else "none",
        "numerics_version": NUMERICS_VERSION,
    }


def _solver_facts(solver: Solver) -> Row:
    return {
        "solver_family": solver.family,
        "order": solver.order,
        "weak_order": solver.weak_order,
        "stochastic": solver.stochastic,
    }


def _environment(cfg: DictConfig, device: str) -> Row:
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else platform.processor() or platform.machine()
    )
    return {
        "device": device,
        "device_name": name,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "batch_size": cfg.batch_size,
        "world_size": 1,
        "version_seedsbench": seedsbench.__version__,
        "version_torch": torch.__version__,
        "version_numpy": metadata.version("numpy"),
        "version_python": platform.python_version(),
    }


def describe(row: Row) -> str:
    """The cell in a few words, for logs and progress bars."""
    return f"{row['model']}/{row['regime']} {row['solver']} nfe={row['nfe_budget']} seed={row['seed']}"


def outcome(row: Row) -> str:
    """What became of the cell, in a few words."""
    if row["status"] != "done":
        return f"{row['status']}: {row['reason']}"
    score = "" if row.get("is_mean") is None else f", IS {row['is_mean']:.2f}"
    floor = "" if row.get("fid_floor") is None else f" (floor {row['fid_floor']:.3f})"
    return (
        f"FID {row['fid']:.3f}{floor}{score}, NFE {row['nfe']:g}, "
        f"{row['seconds_sampling']:.1f} s, {row['images_per_second']:.0f} images/s"
    )
