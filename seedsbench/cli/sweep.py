"""Running the cells of a command: one after another in this process, or handed to Hydra's launchers.

What a launcher's worker gets, pickled, is a Job: it knows nothing of the command but what that brings along.
"""

import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from seedsbench import registry
from seedsbench.bench.cell import Cell
from seedsbench.bench.progress import SweepLine, Telling
from seedsbench.bench.run import run_cell
from seedsbench.bench.stopping import Stopped, stop_requested
from seedsbench.checks import in_one_line
from seedsbench.cli.command import Command, key_of
from seedsbench.cli.compose import Composed, cell_of, composing
from seedsbench.cli.launchers import IN_PROCESS, as_submitit_task, as_worker, watch_workers
from seedsbench.cli.logs import log_to
from seedsbench.files.atomic import temporary_prefix
from seedsbench.files.rows import Row, judged_by
from seedsbench.tracking.base import Tracker, harmless

_WHERE = ("study", "results_dir", "seed", "repeats", "published", "force", "offline", "debug", "log_progress")
NOT_WHAT = (*(f"{key}=" for key in _WHERE), "hydra")
"""Overrides that a row's command leaves out: they say where and how, not what; the seed is added."""


LOST_WORKER = ("TerminatedWorkerError", "UncompletedJobError")
"""What joblib and submitit raise when a worker dies; each then gives up on the others too."""


class WorkerLost(Exception):
    """A launcher's worker died: its row is missing, and maybe those of others."""


def run(composed: list[Composed], command: Command, invocation: str) -> list[str]:
    """Run every cell, in this order; the run_keys of the rows, but for a sweeper that searches.

    Raises Stopped when told to stop, and WorkerLost.
    """
    first = composed[0]
    if (first.launcher, first.sweeper) != (IN_PROCESS, IN_PROCESS):
        return _launch(first, len(composed), command, invocation)
    log_to(first.cell.study_folder)
    cells = [one.cell for one in composed]
    with closing(_line_of(cells)) as line:
        return [
            row["run_key"] for one in composed for row in run_seeds(one.cell, one.words, invocation, line)
        ]


def _line_of(cells: list[Cell]) -> SweepLine:
    costs = [cost for cell in cells for cost in [cell.samples * cell.nfe] * cell.repeats]
    return SweepLine(costs, cells[0].log_progress)


def run_seeds(cell: Cell, words: Iterable[str], invocation: str, line: SweepLine) -> Iterator[Row]:
    """The row of a cell with each of its seeds. words: the overrides that make it. line: of its sweep."""
    tracker: Tracker = registry.build(cell.tracker)
    command = _command_of(words)
    for seed in range(cell.seed, cell.seed + cell.repeats):
        one = replace(cell, seed=seed, repeats=1)
        row = run_cell(one, command=f"{command} seed={seed}", invocation=invocation, telling=Telling(line))
        line.cell_done(row, computed=row.get("invocation") == invocation)
        harmless("tracking", partial(tracker.log_row, cell.study_folder, row, asdict(one)))
        yield row


def mean_score(rows: list[Row]) -> float | None:
    """What an optimising sweeper minimises; None where a row was not scored."""
    scores = [row[judged_by(row)] for row in rows if row["status"] == "done"]
    return sum(scores) / len(scores) if len(scores) == len(rows) else None


def _command_of(words: Iterable[str]) -> str:
    """The command that makes the rows of a cell again, but for the seed."""
    folders = [part for folder in registry.conf_dirs()[1:] for part in ("--config-dir", str(folder))]
    return shlex.join(["seedsbench", *folders, *(word for word in words if not word.startswith(NOT_WHAT))])


@dataclass(frozen=True)
class Job:
    """What a worker does with a composed configuration.

    It returns the keys of its rows, or to a sweeper that searches what that minimises; None where it was told
    to stop. cwd: the folder that relative paths mean. folders: SEEDSBENCH_CONF. stop: a file that tells it to
    stop. parent: the process of the command. searching: whether the sweeper searches. swept: the keys that
    have several values.
    """

    invocation: str
    study: str
    cwd: str
    folders: str
    stop: Path
    parent: int
    searching: bool
    swept: frozenset[str]

    def __call__(self, cfg: DictConfig) -> list[str] | float | None:
        os.chdir(self.cwd)
        registry.use_folders(self.folders)
        hydra = HydraConfig.get()
        words = hydra.overrides.task
        varied = [word for word in words if key_of(word) in self.swept]
        cell = replace(cell_of(cfg, hydra.runtime.choices, self.study), varied=varied)
        log_to(cell.study_folder)

        def work() -> list[str] | float | None:
            with closing(_line_of([cell])) as line:
                rows = list(run_seeds(cell, words, self.invocation, line))
            return mean_score(rows) if self.searching else [row["run_key"] for row in rows]

        if "SUBMITIT_EXECUTOR" in os.environ:
            return as_submitit_task(work)
        return as_worker(work, self.stop, self.parent)


def _launch(first: Composed, n_cells: int, command: Command, invocation: str) -> list[str]:
    """Hand the sweep to Hydra's sweeper and launcher, which its first cell names; the keys of its rows."""
    study = first.cell.study_folder.name
    stop = first.cell.study_folder / f"{temporary_prefix()}stop.tmp"
    job = Job(
        invocation=invocation,
        study=study,
        cwd=os.getcwd(),
        folders=os.environ.get("SEEDSBENCH_CONF", ""),
        stop=stop.absolute(),
        parent=os.getpid(),
        searching=first.sweeper != IN_PROCESS,
        swept=command.swept,
    )
    quoted = study.replace("'", r"\'")
    words = [word for word in command.overrides if not word.startswith("study=")]
    with composing(), watch_workers(first.launcher, n_cells, first.cell.study_folder, stop):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            batches = hydra.multirun("config", job, [*words, f"study='{quoted}'"])
            known = [] if job.searching else batches
            keys = [key for batch in known for one in batch for key in one.return_value or []]
        except Exception as error:
            if stop_requested():
                raise Stopped from error
            if first.cell.debug:
                raise
            lost = type(error).__name__ in LOST_WORKER
            raise WorkerLost("a worker was lost" if lost else in_one_line(error)) from error
        if stop_requested():
            raise Stopped
    return keys
