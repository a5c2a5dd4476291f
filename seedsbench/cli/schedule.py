"""`seedsbench-schedule`: noise levels searched for a solver, written as a file that grid=searched takes.

    seedsbench-schedule model=glyphs regime=edm solver=dpmpp_2m nfe=5,8,10 method=gits --output gits.yaml
    seedsbench -m model=glyphs regime=edm solver=dpmpp_2m nfe=5,8,10 grid=searched grid.path=gits.yaml

method=gits                the least error of single Euler steps between levels (Chen et al. 2024)
method=oss                 the solver's own run, kept nearest to the exact one (Pei et al. 2025)
method=constant_rotation   levels between which the paths turn by the same angle
method=fid                 the score itself lowered by trial, from the best of gits, oss and the cell's grid

The other words are those of seedsbench. The exact run is Heun's, of --steps steps on EDM's grid over the
range of the cell's own. Samples that are searched on come from streams of noise of their own: no cell ever
draws them. It runs on the CPU. What it cost is written beside the levels.

exit codes  0 written    1 the search failed    2 the command was wrong
"""

import argparse
import logging
import shlex
import sys
from functools import partial
from pathlib import Path

import yaml

from seedsbench import registry
from seedsbench.bench.cell import Cell
from seedsbench.checks import nearest
from seedsbench.cli.check import check_cells
from seedsbench.cli.command import Command, Usage, parse, use_config_dirs, with_experiment
from seedsbench.cli.compose import compositions
from seedsbench.files.atomic import write_atomic
from seedsbench.files.console import exit_code
from seedsbench.searching.search import ALL_METHODS, Search, search

SAME = ("model", "regime", "schedule", "solver", "guidance", "metrics", "labels", "final")
"""What all cells of a command must agree in: a file is for one of each."""
LEFT_ALONE = {
    "afs": (False,), "precision": ("fp32",), "compile": (False,), "dtype": ("float64",),
    "seeding": ("philox",), "device": ("auto", "cpu"), "samples": (2000,), "seed": (0,), "repeats": (1,),
}  # fmt: skip
"""Values of a cell, its defaults, that a search leaves alone: it runs on the CPU, on samples of its own."""


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 when the file was written, 1 when a search failed, 2 when the command was wrong."""
    return exit_code("seedsbench-schedule", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    given = _parser().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        method, words = _method(given.words)
        use_config_dirs(Command((), config_dirs=tuple(given.config_dir)))
        command = with_experiment(parse(["-m", *words]))
        cells = [one.cell for one in compositions(command, study="schedule")]
        _check(cells)
    except (Usage, ValueError) as error:
        print(f"seedsbench-schedule: {error}", file=sys.stderr)
        return 2
    try:
        how = Search(method, given.steps, given.samples, given.scored, given.trials, given.seed)
        found = search(cells[0], [cell.nfe for cell in cells], how)
    except (ValueError, ArithmeticError, OSError) as error:
        print(f"seedsbench-schedule: {error}", file=sys.stderr)
        return 1
    said = f"# Found by: seedsbench-schedule {shlex.join(sys.argv[1:] if argv is None else argv)}\n"
    write_atomic(given.output, (said + yaml.safe_dump(found, sort_keys=False)).encode())
    print(f"{given.output}: use it with grid=searched grid.path={given.output}")
    return 0


def _method(words: list[str]) -> tuple[str, list[str]]:
    """method=..., and the other words."""
    methods = [word.partition("=")[2] for word in words if word.startswith("method=")]
    if len(methods) != 1:
        raise ValueError(f"give one method=: {', '.join(ALL_METHODS)}")
    if methods[0] not in ALL_METHODS:
        raise ValueError(nearest(methods[0], ALL_METHODS, what="method"))
    return methods[0], [word for word in words if not word.startswith("method=")]


def _check(cells: list[Cell]) -> None:
    """Raise ValueError unless all cells differ in their budget alone, and could run."""
    check_cells(cells)
    for name in SAME:
        if any(getattr(cell, name) != getattr(cells[0], name) for cell in cells):
            raise ValueError(f"one file is for one {name}: search for several in several commands")
    for name, known in LEFT_ALONE.items():
        if (asked := getattr(cells[0], name)) not in known:
            raise ValueError(f"{name}={asked}: a search has its own; leave it out, and give it to the cells")
    if registry.build(cells[0].solver).adaptive:
        raise ValueError(f"solver={cells[0].choices['solver']} chooses its own levels")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seedsbench-schedule", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", help="method=..., and of a cell: model=... solver=... nfe=5,8,10")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.yaml", help="where to write")
    parser.add_argument("--steps", type=int, default=60, help="of the exact run: 60")
    parser.add_argument("--samples", type=int, default=64, help="whose exact paths are followed: 64")
    parser.add_argument("--scored", type=int, default=1000, help="samples of a trial, with method=fid: 1000")
    parser.add_argument("--trials", type=int, default=60, help="for each budget, with method=fid: 60")
    parser.add_argument("--seed", type=int, default=0, help="of the samples searched on: 0")
    parser.add_argument("--config-dir", action="append", default=[], help="of your own models and solvers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
