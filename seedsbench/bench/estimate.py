"""How long cells would take here: from rows this machine has made, else from a short measurement.

A row tells seconds an evaluation and seconds an image of features. Rows of the same solver are best, then
rows of any solver on the same network; without either, a few steps of one batch are timed.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from seedsbench import registry
from seedsbench.api import noise_levels, steps_of
from seedsbench.bench.batching import CPU_SIZE
from seedsbench.bench.cell import device_of, problem_of
from seedsbench.bench.machine import duration, machine
from seedsbench.bench.problems import Problem, one_hot
from seedsbench.bench.sampling import Plan, classes_of, generate
from seedsbench.data.images import quantise
from seedsbench.denoisers.base import Denoiser
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Solver

QUICK = 1.0
"""Seconds a measurement may take before it is made on less and extrapolated."""
START_AND_REPORT = 6.0
"""Seconds of a sweep that are not its cells: imports, loading the network, tables and figures."""


@dataclass(frozen=True)
class Speed:
    """Seconds an evaluation of one sample, an image's features, and a whole floor; where they are from."""

    evaluation: float
    image: float
    floor: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of what is left to do, and where the speeds are from."""

    seconds: float
    size: int
    sources: tuple[str, ...]


def speed_of(cfg: DictConfig, rows: list[dict[str, Any]]) -> Speed:
    """The speed of a cell: from `rows` if one of them fits, else measured. cfg: a composed cell."""
    return from_rows(cfg, rows) or _measured(cfg)


def rows_of(results: Path) -> list[dict[str, Any]]:
    """Finished rows in the studies of a results folder that this machine has made."""
    found = []
    for path in results.glob("*/rows/*.json"):
        try:
            row = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(row, dict) and row.get("status") == "done" and row.get("machine") == machine():
            found.append(row)
    return found


def from_rows(cfg: DictConfig, rows: list[dict[str, Any]]) -> Speed | None:
    """The mean speed of rows of this network and device; those of the same solver if there are any."""
    chosen = cfg.hydra.runtime.choices
    wanted = {"model": chosen.model, "regime": chosen.regime, "dtype": cfg.dtype}
    wanted |= {"device": device_of(cfg.device), "threads": torch.get_num_threads()}
    near = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    near = [row for row in near if row.get("seconds_sampling") and row.get("nfe")]
    near = [row for row in near if row.get("solver") == chosen.solver] or near
    near = [row for row in near if row.get("batch_size") == cfg.batch_size] or near
    if not near:
        return None
    images = _total(near, "samples")
    floors = [(row.get("seconds_floor") or 0.0) * cfg.samples / row["samples"] for row in near]
    return Speed(
        evaluation=_total(near, "seconds_sampling") / sum(row["nfe"] * row["samples"] for row in near),
        image=(_total(near, "seconds_features") + _total(near, "seconds_scoring")) / images,
        floor=max(floors),
        source="earlier rows",
    )


def _total(rows: Iterable[dict[str, Any]], key: str) -> float:
    return sum(float(row.get(key) or 0.0) for row in rows)


def _measured(cfg: DictConfig) -> Speed:
    device = device_of(cfg.device)
    problem = problem_of(cfg, device)
    count = min(CPU_SIZE if cfg.batch_size == "auto" else cfg.batch_size, cfg.samples)
    network = _network_seconds(problem, device, cfg.dtype)
    evaluation = network
    if network * count < QUICK:
        solver, schedule, grid = (registry.build(cfg[group]) for group in ("solver", "schedule", "grid"))
        evaluation = _sampling_seconds(problem, solver, schedule, grid, cfg.dtype, count, device)
    drawn, extracted = _image_seconds(problem)
    floor = cfg.metrics.floor_sets * cfg.samples * (drawn + extracted)
    return Speed(evaluation, extracted, floor, "a short measurement")


@lru_cache(maxsize=64)
def _network_seconds(problem: Problem, device: str, dtype: str) -> float:
    """Seconds an evaluation of one sample, the network alone: from eight, and a block unless that is slow.

    Some networks are evaluated in blocks of fixed size, where eight samples cost what a block does.
    """
    denoiser = problem.denoiser
    found = []
    for count in (8, problem.features.block):
        x = torch.zeros(count, *denoiser.image_shape, dtype=getattr(torch, dtype), device=device)
        sigma = denoiser.round_sigma(torch.ones(count, dtype=x.dtype, device=device))
        classes = torch.zeros(count, dtype=torch.long, device=device)
        labels = one_hot(classes, denoiser.label_dim) if denoiser.label_dim else None
        seconds = _timed(partial(_evaluated, denoiser, x, sigma, labels))
        found.append(seconds / count)
        if seconds > QUICK / 2:
            break
    return min(found)


def _evaluated(denoiser: Denoiser, x: Tensor, sigma: Tensor, labels: Tensor | None) -> float:
    return float(denoiser(x, sigma, labels).sum())


@lru_cache(maxsize=64)
def _sampling_seconds(
    problem: Problem, solver: Solver, schedule: Schedule, grid: Any, dtype: str, count: int, device: str
) -> float:
    """Seconds an evaluation of one sample, network and solver, from a few steps of one batch."""
    try:
        n_steps = steps_of(solver, grid, 6, "denoise", afs=False)
    except ValueError:
        n_steps = 1
    sigmas, fitted = noise_levels(problem.denoiser, schedule, grid, n_steps)
    plan = Plan(solver, fitted, sigmas, dtype=getattr(torch, dtype))
    spent = 0

    def sample() -> None:
        nonlocal spent
        (batch,) = generate(problem.denoiser, plan, torch.arange(count), batch_size=count, device=device)
        spent = int(batch.nfe.sum())

    seconds = _timed(sample)
    return seconds / max(spent, 1)


@lru_cache(maxsize=16)
def _image_seconds(problem: Problem) -> tuple[float, float]:
    """Seconds to draw a real image (0 where there are none to draw) and to extract an image's features."""
    features, real = problem.features, problem.real
    shape = problem.denoiser.image_shape
    if real is None:
        images, drawn = torch.zeros(features.block, *shape), 0.0
    else:
        indices = torch.arange(features.block)
        classes = classes_of(indices, "balanced", problem.denoiser.label_dim, 0)
        images = real(indices, classes, 0)
        drawn = _timed(lambda: real(indices, classes, 0)) / len(indices)
    prepared = quantise(images) if features.quantised else images.double()
    return drawn, _timed(lambda: features.extract(prepared)) / len(images)


def _timed(call: Callable[[], object]) -> float:
    """Seconds of a call: the middle of three after one to warm up; one if it is slow."""
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
        if sum(taken) > 2 * QUICK:
            break
    timed = sorted(taken[1:] or taken)
    return timed[len(timed) // 2]


def estimate(cells: list[tuple[DictConfig, int, int]], results: Path) -> Estimate:
    """What cells to be computed would take: (composed cell, evaluations a sample, how many seeds) each."""
    rows = rows_of(results)
    seconds, size, sources, floors = 0.0, 0, [], {}
    for cfg, nfe, count in cells:
        speed = speed_of(cfg, rows)
        problem = problem_of(cfg, device_of(cfg.device))
        sources.append(speed.source)
        floors[problem.model_id, problem.reference_id, cfg.samples, str(cfg.labels)] = speed.floor
        seconds += count * cfg.samples * (nfe * speed.evaluation + speed.image)
        strip = 8 * math.prod(problem.denoiser.image_shape) if problem.features.quantised else 0
        size += count * (3000 + strip)
    if cells:
        seconds += sum(floors.values()) + START_AND_REPORT
        size += 1_000_000  # tables and figures
    return Estimate(seconds, size, tuple(dict.fromkeys(sources)))


def estimate_lines(found: Estimate, study: Path) -> list[str]:
    """The estimate in words: time, where the speed is from, and disk."""
    if not found.sources:
        return ["nothing to do"]
    place = next(folder for folder in (study, *study.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return [
        f"estimated time: {duration(found.seconds)} on this machine, one cell after another "
        f"(speed from {' and '.join(found.sources)})",
        f"disk: about {found.size / 1e6:.1f} MB in {study} ({free / 1e9:.0f} GB free)",
    ]
