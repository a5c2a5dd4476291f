"""Everything that can be wrong with a command is said here, in one line, before anything runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seedsbench import registry
from seedsbench.bench.cell import Cell, check_precision
from seedsbench.bench.labels import refusal
from seedsbench.bench.machine import device_of
from seedsbench.bench.problems.build import check_function, check_problem, known_classes
from seedsbench.bench.rows.store import ResultStore
from seedsbench.cli.command import Command, Usage, interval_in
from seedsbench.cli.compose import Composed, compositions
from seedsbench.cli.dry_run import UNSCORED, dry_run_text, unscored
from seedsbench.cli.errors import one_line
from seedsbench.cli.launchers import IN_PROCESS, check_launcher
from seedsbench.cli.plan import plan_text


@dataclass(frozen=True)
class Checked:
    """A command that can run: its cells in the order in which they run, and how they are started.

    text: of plan=true or dry_run=true, which is all that these do.
    """

    composed: list[Composed]
    text: str | None = None

    @property
    def cells(self) -> list[Cell]:
        return [one.cell for one in self.composed]

    @property
    def first(self) -> Composed:
        return self.composed[0]

    @property
    def study(self) -> Path:
        return self.first.cell.study_folder

    @property
    def in_process(self) -> bool:
        """Whether the cells run one after another here, with no launcher or sweeper of Hydra's."""
        return (self.first.launcher, self.first.sweeper) == (IN_PROCESS, IN_PROCESS)


def check(command: Command, study: str) -> Checked:
    """Compose every cell of the command and check every choice; raises Usage.

    study: the name of a study that the command does not name. Builds each solver, schedule, grid and tracker,
    and models that are formulas; loads no network. Creates the study's folder, but not for plan and dry_run.
    """
    try:
        checked = Checked(compositions(command, study))
        first = checked.first
        _check_cells(checked.cells)
        if first.sweeper == IN_PROCESS and (interval := interval_in(command)):
            raise ValueError(
                f"{interval}: an interval needs a sweeper that searches, as hydra/sweeper=optuna, or write "
                f"{interval.split('=')[0]}=a,b"
            )
        if first.cell.dry_run:
            return Checked(checked.composed, dry_run_text(checked.cells))
        if first.cell.plan:
            return Checked(checked.composed, plan_text(checked.cells))
        check_launcher(first.launcher, first.remote, command.multirun)
        if not first.remote:  # the machine that submits need not have a GPU
            for precision, device in {(cell.precision, cell.device) for cell in checked.cells}:
                check_precision(precision, device_of(device))
        ResultStore(checked.study).prepare()
    except ValueError as error:
        raise Usage(one_line(error)) from error
    return checked


def _check_cells(cells: Iterable[Cell]) -> None:
    """Raise ValueError for the first choice or value that no cell could run with. Each is built once."""
    built = []
    for cell in cells:
        cell.check()
        for group in (cell.solver, cell.schedule, cell.grid, cell.tracker):
            if group not in built:
                registry.build(group)
                built.append(group)
        problem = (cell.model, cell.regime, cell.metrics)
        if problem in built:
            continue
        built.append(problem)
        check_problem(cell)
        if not cell.dry_run:
            check_function(cell)
            if unscored(cell):
                raise ValueError(f"model={cell.choices['model']}: {UNSCORED}")
    for labels in {cell.labels: None for cell in cells}:
        # Where one of several models can honour them, the others' cells fail, each in its row.
        refusals = [refusal(labels, known_classes(cell)) for cell in cells]
        if all(refusals):
            raise ValueError(refusals[0])
