"""Sample indices to batches of finished samples. What sample i is depends on (seed, i) alone."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seedsbench import registry
from seedsbench.api import foreign_table, levels_within
from seedsbench.bench.batching import BatchSize, out_of_memory, shared_batch_size
from seedsbench.bench.cell import Cell
from seedsbench.bench.labels import classes_of, one_hot, unguidable
from seedsbench.bench.precision import release, tensor_cores, variant
from seedsbench.bench.problems.base import Model, Problem
from seedsbench.bench.problems.exact_path import ExactPath, exact_path, finished, side_by_side
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.guidance import Guidance, Unguided
from seedsbench.diffusion.noise import BRIDGES, Noise, Philox, edm_start, latents
from seedsbench.diffusion.path import BrownianPath
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Solver
from seedsbench.solvers.integrate import integrate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingPlan:
    """How the samples of a cell are drawn: everything but the model and the indices.

    schedule: fitted to the range of sigmas, (n_steps + 1,) noise levels. cell: what else is asked for.
    guidance: of the model's denoiser. warnings: what a reader of the scores should know, a sentence each.
    exact: the run that stands for the samples' exact paths, None where they are not held against these.
    """

    solver: Solver
    schedule: Schedule
    sigmas: Tensor
    cell: Cell = field(default_factory=Cell)
    warnings: tuple[str, ...] = ()
    guidance: Guidance = field(default_factory=Unguided)
    exact: ExactPath | None = None


def plan_of(cell: Cell, problem: Model) -> SamplingPlan:
    """How a cell's samples are drawn. Raises BudgetError, ValueError for labels the model has not, and
    NoPathError where exact paths are asked for and there are none."""
    solver, schedule, grid, guidance = map(
        registry.build, (cell.solver, cell.schedule, cell.grid, cell.guidance)
    )
    n_classes = problem.denoiser.label_dim
    classes_of(torch.arange(1), cell.labels, n_classes, cell.seed)
    if guidance.needs_labels and (refused := unguidable(cell.labels, n_classes)) is not None:
        raise ValueError(f"guidance={cell.choices['guidance']} {refused}")
    guided = guidance.of(problem.denoiser)
    sigmas, fitted = levels_within(cell.nfe, guided, solver, schedule, grid, cell.final, afs=cell.afs)
    other_table = foreign_table(problem.denoiser, fitted)
    if other_table:
        log.warning(other_table)
    exact, notes = None, (*solver.notes(), *([other_table] if other_table else []))
    if isinstance(problem, Problem) and problem.paths is not None:
        exact = exact_path(problem.paths, solver, sigmas, fitted, guided, cell.final)
        notes += exact.notes
    return SamplingPlan(solver, fitted, sigmas, cell, notes, guidance, exact)


@dataclass(frozen=True)
class SampleBatch:
    """indices (B,); x (B, C, H, W) finished samples; nfe (B,) evaluations each of them cost.

    exact: (B, C, H, W) the ends of their exact paths, where the plan asks for these.
    """

    indices: Tensor
    x: Tensor
    nfe: Tensor
    exact: Tensor | None = None


def generate(
    denoiser: Denoiser,
    plan: SamplingPlan,
    indices: Tensor,
    *,
    batch_size: int | BatchSize,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda evaluations: None,
) -> Iterator[SampleBatch]:
    """Yield finished samples of the given indices, `batch_size` at a time, in their order.

    A batch that runs out of memory is drawn again in halves, and later ones are no larger. progress is
    called before each evaluation with their number over the batch, and with less than 0 for a batch given up.
    """
    size = batch_size_for(denoiser, plan, batch_size, device) if isinstance(batch_size, int) else batch_size
    while len(indices):
        batch = indices[: size.now]
        padded = min(size.now, plan.cell.samples)  # a part is drawn by the compiled graph of the whole
        try:
            finished = _finished(denoiser, plan, batch, padded, device, progress)
        except Exception as error:
            if not out_of_memory(error) or not size.halve(len(batch)):
                raise
            finished = None
        if finished is None:  # out of the handler, where the error still holds the batch's tensors
            release(device)
            continue
        yield finished
        indices = indices[len(batch) :]


def batch_size_for(denoiser: Denoiser, plan: SamplingPlan, asked: int | str, device: str) -> BatchSize:
    """What `generate` takes: `asked` samples at a time, or as many as "auto" finds best, or fewer in need."""
    precision = plan.cell.precision
    with tensor_cores(precision == "tf32"):
        return shared_batch_size(asked, variant(denoiser, device, precision=precision), device)


def _finished(
    denoiser: Denoiser,
    plan: SamplingPlan,
    batch: Tensor,
    padded: int,
    device: str,
    progress: Callable[[int], object],
) -> SampleBatch:
    """The samples with the indices of `batch`. padded: the size that a compiled network sees."""
    cell = plan.cell
    network = variant(denoiser, device, precision=cell.precision, compiled=cell.compile, size=padded)
    guided = plan.guidance.of(network)
    with torch.inference_mode(), tensor_cores(cell.precision == "tf32"):
        start, classes, noise = _start(cell, batch, denoiser, device)
        labels = None if classes is None else one_hot(classes, denoiser.label_dim).to(device)
        process = Process(guided, plan.schedule, len(batch), labels, afs=cell.afs, progress=progress)
        times = plan.schedule.sigma_inv(plan.sigmas)
        try:
            if plan.exact is None:
                x, exact = finished(integrate(process, plan.solver, start, times, noise, cell.final)), None
            else:
                # progress is told that this goes on, and of no evaluations: they are none of the cell's.
                other = Process(guided, plan.schedule, len(batch), labels, progress=lambda _: progress(0))
                path = BrownianPath(noise, _bridges(cell, batch, start))
                x, exact = _with_exact(process, other, plan, plan.exact, start, path)
        except Exception:
            progress(-int(process.nfe.sum()))
            raise
    # A clone made here is an ordinary tensor again.
    return SampleBatch(batch, x.clone(), process.nfe.clone(), None if exact is None else exact.clone())


def _bridges(cell: Cell, batch: Tensor, start: Tensor) -> Noise:
    """Normals of the finer run's own, whatever the cell's come from."""
    options: Any = {"dtype": start.dtype, "device": start.device}
    return Philox(batch, start.shape[1:], seed=cell.seed, stream=BRIDGES, **options)


def _with_exact(
    process: Process, other: Process, plan: SamplingPlan, exact: ExactPath, start: Tensor, path: BrownianPath
) -> tuple[Tensor, Tensor]:
    """Finished samples, and the ends of their exact paths by another process."""
    runs = ((process, plan.solver, plan.sigmas), (other, exact.solver, exact.sigmas))
    own, fine = (
        integrate(each, solver, start, plan.schedule.sigma_inv(sigmas), path, plan.cell.final)
        for each, solver, sigmas in runs
    )
    if exact.refine is None:
        return finished(own), finished(fine)
    return side_by_side(own, fine, len(plan.sigmas) - 1, exact.refine, path)


def _start(cell: Cell, batch: Tensor, denoiser: Denoiser, device: str) -> tuple[Tensor, Tensor | None, Noise]:
    """Latents, classes and noise of the samples with these indices.

    seeding "edm": image i of seed s has the per-image seed s * samples + i of EDM's generate script, so that
    seeds 0, 1, 2 of 50,000 samples are its three published draws. A class is then drawn for every image of a
    conditional model, and used for labels "random" if all are equally likely.
    """
    shape, label_dim, weights = denoiser.image_shape, denoiser.label_dim, denoiser.class_weights
    dtype: torch.dtype = getattr(torch, cell.dtype)
    classes = classes_of(batch, cell.labels, label_dim, cell.seed, weights)
    if cell.seeding == "edm":
        seeds = batch + (cell.seed * cell.samples) % 2**32
        begun = edm_start(seeds, shape, label_dim, dtype=dtype, device=device)
        drawn = begun.classes if cell.labels == "random" and weights is None else classes
        return begun.latents.to(dtype), drawn, begun.noise
    start = latents(batch, shape, seed=cell.seed, device=device).to(dtype)
    return start, classes, Philox(batch, shape, seed=cell.seed, dtype=dtype, device=device)
