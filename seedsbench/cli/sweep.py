"""Running the cells of a command: one after another in this process, or handed to Hydra's launchers.

What a launcher's worker gets, pickled, is a Job: it knows nothing of the command but what that brings along.
"""

import os
import shlex
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from seedsbench import registry
from seedsbench.bench.cell import Cell
from seedsbench.bench.progress import SweepLine
from seedsbench.bench.run import run_cell
from seedsbench.cli.command import Command
from seedsbench.cli.compose import Composed, cell_of, composing
from seedsbench.cli.launchers import IN_PROCESS, as_submitit_task, watch_workers
from seedsbench.cli.logs import log_to
from seedsbench.tracking.base import Tracker, harmless

_WHERE = ("study", "results_dir", "seed", "repeats", "published", "force", "offline", "debug")
NOT_WHAT = (*(f"{key}=" for key in _WHERE), "hydra")
"""Overrides that a row's command leaves out: they say where and how, not what; the seed is added."""


LOST_WORKER = ("TerminatedWorkerError", "UncompletedJobError")
"""What joblib and submitit raise when a worker dies; each then gives up on the others too."""


class WorkerLost(Exception):
    """A launcher's worker died: its row is missing, and maybe those of others."""


def run(composed: list[Composed], command: Command, invocation: str) -> None:
    """Run every cell, in this order. Raises Stopped at SIGTERM, and WorkerLost."""
    first = composed[0]
    if (first.launcher, first.sweeper) != (IN_PROCESS, IN_PROCESS):
        _launch(first, len(composed), command, invocation)
        return
    log_to(first.cell.study_folder)
    cells = [one.cell for one in composed]
    line = SweepLine([cost for cell in cells for cost in [cell.samples * cell.nfe] * cell.repeats])
    try:
        for one in composed:
            run_seeds(one.cell, one.words, invocation, line)
    finally:
        line.close()


def run_seeds(
    cell: Cell, words: Iterable[str], invocation: str, line: SweepLine | None = None
) -> float | None:
    """Run a cell with each of its seeds; their mean FID, for optimising sweepers, None if one was not scored.

    words: the overrides that make it.
    """
    tracker: Tracker = registry.build(cell.tracker)
    command, scores = _command_of(words), []
    for seed in range(cell.seed, cell.seed + cell.repeats):
        one = replace(cell, seed=seed, repeats=1)
        row = run_cell(one, command=f"{command} seed={seed}", invocation=invocation, sweep=line)
        if line is not None:
            line.cell_done(row, computed=row.get("invocation") == invocation)
        harmless("tracking", partial(tracker.log_row, cell.study_folder, row, asdict(one)))
        scores += [row["fid"]] if row["status"] == "done" else []
    return sum(scores) / len(scores) if len(scores) == cell.repeats else None


def _command_of(words: Iterable[str]) -> str:
    """The command that makes the rows of a cell again, but for the seed."""
    folders = [part for folder in registry.conf_dirs()[1:] for part in ("--config-dir", str(folder))]
    return shlex.join(["seedsbench", *folders, *(word for word in words if not word.startswith(NOT_WHAT))])


@dataclass(frozen=True)
class Job:
    """What a worker does with a composed configuration; returns what an optimising sweeper minimises.

    cwd: the folder that relative paths mean. folders: SEEDSBENCH_CONF.
    """

    invocation: str
    study: str
    cwd: str
    folders: str

    def __call__(self, cfg: DictConfig) -> float | None:
        os.chdir(self.cwd)
        registry.use_folders(self.folders)
        hydra = HydraConfig.get()
        cell = cell_of(cfg, hydra.runtime.choices, self.study)
        log_to(cell.study_folder)
        work = partial(run_seeds, cell, hydra.overrides.task, self.invocation)
        return as_submitit_task(work) if "SUBMITIT_EXECUTOR" in os.environ else work()


def _launch(first: Composed, n_cells: int, command: Command, invocation: str) -> None:
    """Hand the sweep to Hydra's sweeper and launcher, which its first cell names."""
    study = first.cell.study_folder.name
    job = Job(invocation, study, os.getcwd(), os.environ.get("SEEDSBENCH_CONF", ""))
    quoted = study.replace("'", r"\'")
    words = [word for word in command.overrides if not word.startswith("study=")]
    with composing(), watch_workers(first.launcher, n_cells, first.cell.study_folder):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            hydra.multirun("config", job, [*words, f"study='{quoted}'"])
        except Exception as error:
            if type(error).__name__ not in LOST_WORKER:
                traceback.print_exc()
            raise WorkerLost("a worker was lost") from error
