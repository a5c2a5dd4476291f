"""Sample indices to batches of finished samples. What sample i is depends on (seed, i) alone."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from seedsbench import registry
from seedsbench.api import foreign_table, noise_levels, steps_of
from seedsbench.bench.batching import BatchSize, out_of_memory, shared_batch_size
from seedsbench.bench.cell import Cell, Labels
from seedsbench.bench.labels import classes_of, one_hot
from seedsbench.bench.precision import release, tensor_cores, variant
from seedsbench.bench.problems.base import Model
from seedsbench.denoisers.base import Denoiser
from seedsbench.diffusion.noise import Noise, Philox, edm_start, latents
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Final, Solver
from seedsbench.solvers.integrate import integrate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingPlan:
    """How samples are drawn: everything of a cell but the model and the indices.

    schedule: fitted to the range of sigmas, (n_steps + 1,) noise levels. labels: "balanced" (each class its
    share of the data: class i mod K if all are equal), "random", "none" or a class number. dtype: of the
    state. afs: analytic first step. samples: of the whole cell. precision, compile: how the network runs
    (`seedsbench.bench.precision`). warnings: what a reader of the scores should know, a sentence each.

    seeding: "philox", or "edm": image i of seed s has the per-image seed s * samples + i of EDM's
    generate script, so that seeds 0, 1, 2 of 50,000 samples are its three published draws. A class is then
    drawn for every image of a conditional model, and used for labels "random" if all are equally likely.
    """

    solver: Solver
    schedule: Schedule
    sigmas: Tensor
    final: Final = "denoise"
    seed: int = 0
    labels: Labels = "balanced"
    dtype: torch.dtype = torch.float64
    afs: bool = False
    seeding: str = "philox"
    samples: int = 0
    precision: str = "fp32"
    compile: bool = False
    warnings: tuple[str, ...] = ()


def plan_of(cell: Cell, problem: Model) -> SamplingPlan:
    """How a cell's samples are drawn. Raises BudgetError, and ValueError for labels the model has not."""
    solver, schedule, grid = map(registry.build, (cell.solver, cell.schedule, cell.grid))
    classes_of(torch.arange(1), cell.labels, problem.denoiser.label_dim, cell.seed)
    n_steps = steps_of(solver, grid, cell.nfe, cell.final, afs=cell.afs)
    sigmas, fitted = noise_levels(problem.denoiser, schedule, grid, n_steps, zero_snr=solver.zero_snr)
    other_table = foreign_table(problem.denoiser, fitted)
    if other_table:
        log.warning(other_table)
    return SamplingPlan(
        solver=solver,
        schedule=fitted,
        sigmas=sigmas,
        final=cell.final,
        seed=cell.seed,
        labels=cell.labels,
        dtype=getattr(torch, cell.dtype),
        afs=cell.afs,
        seeding=cell.seeding,
        samples=cell.samples,
        precision=cell.precision,
        compile=cell.compile,
        warnings=(other_table,) if other_table else (),
    )


@dataclass(frozen=True)
class SampleBatch:
    """indices (B,); x (B, C, H, W) finished samples; nfe (B,) evaluations each of them cost."""

    indices: Tensor
    x: Tensor
    nfe: Tensor


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
    called with the network evaluations spent since its last call, less those of a batch given up.
    """
    size = batch_size_for(denoiser, plan, batch_size, device) if isinstance(batch_size, int) else batch_size
    whole = plan.samples or len(indices)  # a part of a cell is drawn by the compiled graph of the whole
    while len(indices):
        batch = indices[: size.now]
        padded = min(size.now, whole)
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
    with tensor_cores(plan.precision == "tf32"):
        return shared_batch_size(asked, variant(denoiser, device, precision=plan.precision), device)


def _finished(
    denoiser: Denoiser,
    plan: SamplingPlan,
    batch: Tensor,
    padded: int,
    device: str,
    progress: Callable[[int], object],
) -> SampleBatch:
    """The samples with the indices of `batch`. padded: the size that a compiled network sees."""
    network = variant(denoiser, device, precision=plan.precision, compiled=plan.compile, size=padded)
    with torch.inference_mode(), tensor_cores(plan.precision == "tf32"):
        start, classes, noise = _start(plan, batch, denoiser, device)
        labels = None if classes is None else one_hot(classes, denoiser.label_dim).to(device)
        process = Process(network, plan.schedule, len(batch), labels, afs=plan.afs)
        times = plan.schedule.sigma_inv(plan.sigmas)
        x, spent = start, 0
        try:
            for state in integrate(process, plan.solver, start, times, noise, plan.final):
                x = state
                total = int(process.nfe.sum())
                progress(total - spent)
                spent = total
        except Exception:
            progress(-spent)
            raise
    # A clone made here is an ordinary tensor again.
    return SampleBatch(batch, x.clone(), process.nfe.clone())


def _start(
    plan: SamplingPlan, batch: Tensor, denoiser: Denoiser, device: str
) -> tuple[Tensor, Tensor | None, Noise]:
    """Latents, classes and noise of the samples with these indices."""
    shape, label_dim = denoiser.image_shape, denoiser.label_dim
    weights = denoiser.class_weights
    classes = classes_of(batch, plan.labels, label_dim, plan.seed, weights)
    if plan.seeding == "edm":
        seeds = batch + (plan.seed * plan.samples) % 2**32
        begun = edm_start(seeds, shape, label_dim, dtype=plan.dtype, device=device)
        drawn = begun.classes if plan.labels == "random" and weights is None else classes
        return begun.latents.to(plan.dtype), drawn, begun.noise
    start = latents(batch, shape, seed=plan.seed, device=device).to(plan.dtype)
    return start, classes, Philox(batch, shape, seed=plan.seed, dtype=plan.dtype, device=device)
