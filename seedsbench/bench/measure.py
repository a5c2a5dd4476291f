"""How fast this machine is at a cell, timed on a few steps of one batch."""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from seedsbench import registry
from seedsbench.api import noise_levels, steps_of
from seedsbench.bench.batching import CPU_SIZE
from seedsbench.bench.cell import problem_of
from seedsbench.bench.labels import classes_of
from seedsbench.bench.machine import device_of
from seedsbench.bench.precision import tensor_cores, variant
from seedsbench.bench.problems import Problem, one_hot
from seedsbench.bench.sampling import Plan, generate
from seedsbench.data.images import quantise
from seedsbench.denoisers.base import Denoiser
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Solver

QUICK = 1.0
"""Seconds a measurement may take before it is made on less and extrapolated."""


def measured(cfg: DictConfig) -> tuple[float, float, float]:
    """Seconds an evaluation of one sample, an image's features, and drawing a real image take for a cell.

    The network runs in the cell's precision, but not compiled: that alone takes minutes.
    """
    device = device_of(cfg.device)
    problem = problem_of(cfg, device)
    count = min(CPU_SIZE if cfg.batch_size == "auto" else cfg.batch_size, cfg.samples)
    network = _network_seconds(problem, device, cfg.dtype, cfg.precision)
    evaluation = network
    if network * count < QUICK:
        solver, schedule, grid = (registry.build(cfg[group]) for group in ("solver", "schedule", "grid"))
        evaluation = _sampling_seconds(
            problem, solver, schedule, grid, cfg.dtype, cfg.precision, count, device
        )
    drawn, extracted = _image_seconds(problem)
    return evaluation, extracted, drawn


@lru_cache(maxsize=64)
def _network_seconds(problem: Problem, device: str, dtype: str, precision: str) -> float:
    """Seconds an evaluation of one sample, the network alone: from eight, and a block unless that is slow.

    Some networks are evaluated in blocks of fixed size, where eight samples cost what a block does.
    """
    denoiser = variant(problem.denoiser, device, precision=precision)
    found = []
    for count in (8, problem.features.block):
        x = torch.zeros(count, *denoiser.image_shape, dtype=getattr(torch, dtype), device=device)
        sigma = denoiser.round_sigma(torch.ones(count, dtype=x.dtype, device=device))
        classes = torch.zeros(count, dtype=torch.long, device=device)
        labels = one_hot(classes, denoiser.label_dim) if denoiser.label_dim else None
        with torch.inference_mode(), tensor_cores(precision == "tf32"):
            seconds = _timed(partial(_evaluated, denoiser, x, sigma, labels))
        found.append(seconds / count)
        if seconds > QUICK / 2:
            break
    return min(found)


def forget() -> None:
    """Measure anew from here on: what has been measured is otherwise remembered."""
    for known in (_network_seconds, _sampling_seconds, _image_seconds):
        known.cache_clear()


def _evaluated(denoiser: Denoiser, x: Tensor, sigma: Tensor, labels: Tensor | None) -> float:
    return float(denoiser(x, sigma, labels).sum())


@lru_cache(maxsize=64)
def _sampling_seconds(
    problem: Problem,
    solver: Solver,
    schedule: Schedule,
    grid: Any,
    dtype: str,
    precision: str,
    count: int,
    device: str,
) -> float:
    """Seconds an evaluation of one sample, network and solver, from a few steps of one batch."""
    try:
        n_steps = steps_of(solver, grid, 6, "denoise", afs=False)
    except ValueError:
        n_steps = 1
    sigmas, fitted = noise_levels(problem.denoiser, schedule, grid, n_steps)
    plan = Plan(solver, fitted, sigmas, dtype=getattr(torch, dtype), precision=precision)
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
