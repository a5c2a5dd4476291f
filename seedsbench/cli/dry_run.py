"""The files that cells need from outside: fetched before a sweep, or listed (dry_run=true)."""

import sys
from collections.abc import Iterable
from dataclasses import replace

from seedsbench.bench.cell import Cell
from seedsbench.bench.problems.weaker import WHICH, weaker_model
from seedsbench.files.download import FetchError, cached_path
from seedsbench.files.extractor_files import compared, extractor_files
from seedsbench.files.model_files import Wanted, check_trained, listing, resolve, wanted_files

UNSCORED = "a network from a file brings no features to be scored on: add metrics=inception (or values)"


def files_of(cells: Iterable[Cell]) -> dict[str, list[Wanted] | ValueError]:
    """The files of each model, regime and metrics group among the cells, or what is wrong with these."""
    found: dict[str, list[Wanted] | ValueError] = {}
    for cell in cells:
        model, metrics = cell.choices["model"], cell.choices["metrics"]
        title = f"model={model} regime={cell.regime.name}"
        title += "" if metrics == "default" else f" metrics={metrics}"
        title += "".join(f" guidance.{key}={cell.guidance[key]}" for key in WHICH if cell.guidance.get(key))
        try:
            found[title] = files_of_cell(cell)
        except ValueError as error:
            found[title] = error
    return found


def files_of_cell(cell: Cell) -> list[Wanted]:
    """The files that a cell's model and metrics group ask for; ValueError for what has none."""
    check_trained(cell.choices["model"], cell.model, cell.regime.name)
    files = wanted_files(cell.model, cell.regime.name)
    if (weaker := weaker_model(cell)) is not None:
        check_trained(cell.choices["model"], weaker, cell.regime.name)
        (file, *_) = wanted_files(weaker, cell.regime.name) or [None]
        if file is not None:
            files.append(replace(file, role="weaker network", key="guidance.model"))
    return [*compared(cell.metrics, files), *extractor_files(cell.metrics)]


def still_to_fetch(wanted: Wanted) -> bool:
    """Whether a file would first have to be downloaded; FetchError for a path that is not there."""
    if wanted.remote is not None:
        return not cached_path(wanted.remote).is_file()
    if not (wanted.path and wanted.path.exists()):
        resolve(wanted, offline=True)
    return False


def bring(cells: list[Cell]) -> None:
    """Fetch what is missing, once, before a sweep. ValueError where no cell has its files.

    Where only some have not, that is said, and they fail, each in its row.
    """
    found = files_of(cells)
    faults = {title: _missing(files, cells[0].offline) for title, files in found.items()}
    missing = {title: fault for title, fault in faults.items() if fault}
    if len(missing) == len(found):
        raise next(iter(missing.values()))
    for title, fault in missing.items():
        print(f"seedsbench: {title}: {fault}; its cells fail", file=sys.stderr)


def _missing(files: list[Wanted] | ValueError, offline: bool) -> ValueError | None:
    """Why the files of a cell cannot be had; None once they are here."""
    if isinstance(files, ValueError):
        return files
    try:
        # A path that is missing is said before anything large is fetched.
        for wanted in sorted(files, key=lambda one: one.remote is not None):
            if still_to_fetch(wanted):
                resolve(wanted, offline=offline)
    except FetchError as error:
        return error
    return None


def dry_run_text(cells: Iterable[Cell]) -> str:
    """For each model, regime and metrics group: each file, from where, to where, its size and its licence.

    What cannot run is a line among several; alone, it is the ValueError.
    """
    found = files_of(cells)
    lines: list[str] = []
    known: list[Wanted] = []
    for title, files in found.items():
        if isinstance(files, ValueError):
            if len(found) == 1:
                raise files
            lines.append(f"{title}: {files}")
            continue
        lines += listing(title, files, known)
        known += files
        if any(file.role == "weights" for file in files) and " metrics=" not in title:
            lines.append(f"  {UNSCORED}")
    return "\n".join(lines)


def unscored(cell: Cell) -> bool:
    """Whether a cell has a network from a file and no metrics group that brings features."""
    return ("files" in cell.model or "path" in cell.model) and "_target_" not in cell.metrics
