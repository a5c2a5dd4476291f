"""The samples of a cell, drawn and scored: one rank's share of what earlier runs have left to do.

What is shared out is blocks of samples, as the extractor sees them: their sums are exact, so that the scores
are the same to the bit however many ranks and runs made them.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from seedsbench.bench.batching import BatchSize
from seedsbench.bench.cell import Cell
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.progress import CellLine, Telling
from seedsbench.bench.ranks import Ranks, broadcast, gathered
from seedsbench.bench.resume import Saver, about, restore
from seedsbench.bench.rows.images import KeptImages
from seedsbench.bench.rows.store import ResultStore
from seedsbench.bench.sampling import SamplingPlan, generate
from seedsbench.bench.sanity import check_latents, extents
from seedsbench.bench.scoring import Scorer, extractor_input
from seedsbench.bench.stopping import Stopped, stop_requested
from seedsbench.checks import in_one_line
from seedsbench.files.rows import Row, title_of
from seedsbench.metrics.base import State

log = logging.getLogger(__name__)

PART = 2**20
"""Samples whose indices are in memory at once."""


@dataclass(frozen=True)
class CellRun:
    """A cell as its ranks see it: what to score, what to draw, and where its sums are saved.

    row: what is known of the cell before it has run, with its run_key. ranks: who share it.
    """

    problem: Problem
    plan: SamplingPlan
    size: BatchSize
    device: str
    store: ResultStore
    row: Row
    ranks: Ranks

    @property
    def cell(self) -> Cell:
        return self.plan.cell

    @property
    def title(self) -> str:
        """The cell in a few words."""
        return title_of(self.row, self.cell.varied)

    @property
    def of(self) -> dict[str, Any]:
        """What its files of sums say they are of."""
        block = self.problem.features.block
        return about(self.row["run_key"], self.cell.samples, block, self.row["invocation"])

    def scorer(self) -> Scorer:
        """An empty one."""
        options, n = self.cell.metrics, self.cell.samples
        extrapolate, keep = options.get("extrapolate", False), self.cell.keep_statistics
        splits = min(options.get("splits", 1), n)
        return Scorer(self.problem, n, splits, extrapolate=extrapolate, keep_logits=keep)

    @property
    def images(self) -> KeptImages:
        """The images that it leaves."""
        return KeptImages(self.store.images_folder(self.row["run_key"]), self.cell.kept_samples)


def lead(run: CellRun, telling: Telling | None) -> tuple[Scorer, Scorer, list[State]]:
    """Rank 0's part of a cell: the sums of earlier runs, of its share of what they left, and of the others'.

    Raises ValueError with the rank and the error where one of several could not do its share.
    """
    earlier, mine = restore(run.store, run.of, run.scorer, run.cell.force), run.scorer()
    if earlier.n_done:
        log.info("%s: goes on at %d of %d samples", run.title, earlier.n_done, run.cell.samples)
    if run.ranks.world_size > 1:
        broadcast({"cell": run.cell, "row": run.row, "done": earlier.done})
    failure = None
    cell, key = run.cell, run.row["run_key"]
    with CellLine(run.title, key, cell.samples, earlier.n_done, cell.nfe, telling) as line:
        try:
            _draw_missing(run, earlier.done)
            draw(run, earlier.done, mine, line)
        except Exception as error:
            if run.ranks.world_size == 1:
                raise
            failure = error
    _, *others = gathered(run.ranks, None)
    for rank, part in enumerate([failure and in_one_line(failure), *others]):
        if isinstance(part, str):
            raise ValueError(f"rank {rank}: {part}") from failure
    return earlier, mine, others


def draw(run: CellRun, done: np.ndarray, scorer: Scorer, line: CellLine | None = None) -> None:
    """Draw and score this rank's share of the blocks that are not done, saving the sums now and then.

    The scorer is told the seconds of sampling, and of scoring: features, sums and their saving.
    """
    ranks = run.ranks
    blocks = (~done).nonzero()[0][ranks.rank :: ranks.world_size].tolist()
    samples = sum(len(scorer.indices(block)) for block in blocks)
    saver = Saver(run.store, run.of, ranks.rank, run.cell.save_every, samples)

    def advance(evaluations: int) -> None:
        if stop_requested():
            raise Stopped
        if line is not None:
            line.advance(evaluations * ranks.world_size)

    denoiser, device = run.problem.denoiser, run.device
    batches = (
        batch
        for indices in in_parts(blocks, scorer)
        for batch in generate(
            denoiser, run.plan, indices, batch_size=run.size, device=device, progress=advance
        )
    )
    try:
        started = time.perf_counter()
        for batch in batches:
            drawn = time.perf_counter()
            scorer.seconds[0] += drawn - started
            check_latents(run.problem, batch)
            batch = replace(batch, x=run.problem.images(batch.x))
            sizes = extents(run.problem, batch)
            images = extractor_input(run.problem, batch.x)
            run.images.add(batch.indices, images)  # before the sums that are said to be of them
            if batch.exact is not None:
                images = torch.cat((images, extractor_input(run.problem, batch.exact)), 1)
            scorer.update(batch.indices, images, batch.nfe, sizes)
            saver.offer(scorer)
            scorer.seconds[1] += time.perf_counter() - drawn
            if line is not None:
                line.finished(len(batch.indices) * ranks.world_size)
            started = time.perf_counter()  # what a tracker takes is no sampling
        if ranks.world_size > 1:
            saver.save(scorer)  # who waits for another rank cannot be told to stop
    except Stopped:
        saver.save(scorer)
        raise


def _draw_missing(run: CellRun, done: np.ndarray) -> None:
    """Draw again what is scored already and whose images are wanted, but were left by no run before."""
    missing = run.images.missing()
    scored = missing[torch.from_numpy(done)[missing // run.problem.features.block]]
    for batch in generate(run.problem.denoiser, run.plan, scored, batch_size=run.size, device=run.device):
        if stop_requested():
            raise Stopped
        run.images.add(batch.indices, extractor_input(run.problem, run.problem.images(batch.x)))


def in_parts(blocks: list[int], scorer: Scorer) -> Iterator[torch.Tensor]:
    """The sample indices of blocks, a million or so at a time: all at once would fill the memory."""
    size = max(1, PART // max(1, len(scorer.indices(0))))
    for start in range(0, len(blocks), size):
        ranges = map(scorer.indices, blocks[start : start + size])
        yield torch.cat([torch.arange(one.start, one.stop) for one in ranges])
