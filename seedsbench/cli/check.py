"""Everything that can be wrong with a command is said here, in one line, before anything runs."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from seedsbench import registry
from seedsbench.bench.cell import Cell, check_precision
from seedsbench.bench.labels import refusal, unguidable
from seedsbench.bench.machine import device_of
from seedsbench.bench.problems.build import check_function, check_problem, known_classes
from seedsbench.bench.rows.store import ResultStore
from seedsbench.checks import named
from seedsbench.cli.command import Command, Usage, interval_in
from seedsbench.cli.compose import Composed
from seedsbench.cli.dry_run import UNSCORED, dry_run_text, unscored
from seedsbench.cli.errors import hydra_error_line
from seedsbench.cli.launchers import IN_PROCESS, check_launcher
from seedsbench.cli.plan import plan_text
from seedsbench.denoisers.guidance import Guidance
from seedsbench.solvers.base import check_declared


def check(composed: list[Composed], command: Command) -> str | None:
    """Check every choice of the cells; returns the text of plan=true or dry_run=true, all that these do.

    Builds each solver, schedule, grid and tracker, and models that are formulas; loads no network. Creates
    the study's folder, but not for plan and dry_run. Raises Usage.
    """
    first, cells = composed[0], [one.cell for one in composed]
    try:
        check_cells(cells)
        if first.sweeper == IN_PROCESS and (interval := interval_in(command)):
            raise ValueError(
                f"{interval}: an interval needs a sweeper that searches, as hydra/sweeper=optuna, or write "
                f"{interval.split('=')[0]}=a,b"
            )
        if first.cell.dry_run:
            return dry_run_text(cells)
        if first.cell.plan:
            return plan_text(cells)
        check_launcher(first.launcher, first.remote, command.multirun)
        if not first.remote:  # the machine that submits need not have a GPU
            for precision, device in {(cell.precision, cell.device) for cell in cells}:
                check_precision(precision, device_of(device))
        ResultStore(first.cell.study_folder).prepare()
    except ValueError as error:
        raise Usage(hydra_error_line(error)) from error
    return None


@contextmanager
def _naming_file(group: str, name: str) -> Iterator[None]:
    """Says with a ValueError which file of the user's chose what is wrong."""
    try:
        yield
    except ValueError as error:
        path = registry.path_of(group, name)
        if path is None or path.is_relative_to(registry.conf_dir()):
            raise
        raise ValueError(f"{path}: {error}") from error


def check_cells(cells: Iterable[Cell]) -> None:
    """Raise ValueError for the first choice or value that no cell could run with. Each is built once."""
    built = []
    for cell in cells:
        cell.check()
        for group in ("solver", "schedule", "grid", "guidance", "tracker"):
            if getattr(cell, group) not in built:
                built.append(getattr(cell, group))
                with _naming_file(group, cell.choices[group]):
                    made = registry.build(built[-1])
                    if group == "solver":
                        check_declared(made)
                    if group == "guidance" and not isinstance(made, Guidance):
                        said = "derive it from seedsbench.denoisers.guidance.Guidance"
                        raise ValueError(f"{named(made)} is no guidance: {said}")
        problem = (cell.model, cell.regime, cell.metrics, cell.guidance)
        if problem in built:
            continue
        built.append(problem)
        with _naming_file("model", cell.choices["model"]):
            check_problem(cell)
        if not cell.dry_run:
            check_function(cell)
            if unscored(cell):
                raise ValueError(f"model={cell.choices['model']}: {UNSCORED}")
    # Where one of several models can honour these, the others' cells fail, each in its row.
    if guided := [cell for cell in cells if registry.build(cell.guidance).needs_labels]:
        refusals = [unguidable(cell.labels, known_classes(cell)) for cell in guided]
        if all(refusals):
            raise ValueError(f"guidance={guided[0].choices['guidance']} {refusals[0]}")
    for labels in {cell.labels: None for cell in cells}:
        refusals = [refusal(labels, known_classes(cell)) for cell in cells]
        if all(refusals):
            raise ValueError(refusals[0])
