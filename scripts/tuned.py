"""Solvers as they come beside solvers tuned, each as well as a declared set allows: python scripts/tuned.py

The sets are the sweeps of experiment=tuned and experiment=tuned_eta: grids, and options of solvers. For each
solver and budget the choice of least mean FID is made on seeds 100 to 102, in the study tuned_selection.
Seeds 0 to 4, which it never saw, then test the default and what was chosen, in the study tuned, and the table
shows both: printed, and written to results/tuned.md. What is done is not run again. Words are as those of
seedsbench:

    python scripts/tuned.py                      # the embedded EDM network
    python scripts/tuned.py model=digits
    python scripts/tuned.py regime=vp solver=heun,dpmpp_2m nfe=10 --experiments tuned
"""

import argparse
import math
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.studies import rows_of
from seedsbench.bench.stopping import Stopped
from seedsbench.cli.command import Usage
from seedsbench.files.rows import Row
from seedsbench.report.summary import plus_minus
from seedsbench.report.table import markdown_table

TARGET = Path(__file__).parents[1] / "results" / "tuned.md"
EXPERIMENTS = ["tuned", "tuned_eta"]
SELECTION, TEST = (100, 101, 102), (0, 1, 2, 3, 4)
DEFAULT = ("grid=edm",)
"""The choice that every solver is compared with."""
CHOSEN = ("grid", "solver.", "final=", "afs=")
"""How words of a command begin that say what was chosen."""
SWEPT = ("solver", "nfe", "seed", "grid")
"""Keys that a test gives itself."""


_TEXT = """\
# Solvers as they come, and tuned

Made by `{command}`. FID on seeds {test}, mean ± standard deviation: of each solver on EDM's grid with its own
options, and with the best of a declared set (*of* how many: five grids, for SEEDS also three strengths of
noise), chosen by mean FID on seeds {selection}, which the test never sees. A choice may turn out worse: then
the set's best was so by chance.

{table}
"""


class Cell(NamedTuple):
    """What a choice is made for."""

    solver: str
    nfe: int


class Choice(NamedTuple):
    """What is chosen, as words of a command, and its mean FID on the seeds of the selection."""

    words: tuple[str, ...]
    fid: float


def words_of(row: Row) -> tuple[str, ...]:
    """Those of its command that say what was chosen."""
    return tuple(sorted(word for word in shlex.split(row["command"])[1:] if word.startswith(CHOSEN)))


def choices(rows: Iterable[Row]) -> dict[Cell, list[Choice]]:
    """For each cell the choices that were scored on every seed of the selection, the best first.

    Cells whose default was not are left out. ValueError for a row of another seed: the test must not be what
    is selected on.
    """
    found: dict[Cell, dict[tuple[str, ...], dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["seed"] not in SELECTION:
            raise ValueError(f"seed={row['seed']}: choices may see {', '.join(map(str, SELECTION))} alone")
        if row["status"] == "done":
            found[Cell(row["solver"], row["nfe_budget"])][words_of(row)][row["seed"]] = row["fid"]
    ranked = {}
    for cell, candidates in found.items():
        whole = {words: fids for words, fids in candidates.items() if len(fids) == len(SELECTION)}
        made = [Choice(words, statistics.mean(fids.values())) for words, fids in whole.items()]
        if DEFAULT in whole:  # which is chosen where others are no better
            ranked[cell] = sorted(made, key=lambda one: (one.fid, one.words != DEFAULT, one.words))
    return ranked


def tested(cell: Cell, choice: tuple[str, ...], words: list[str]) -> list[float]:
    """FIDs on the seeds of the test. words: an experiment and more, whose sweep gives way to this choice."""
    given = [f"solver={cell.solver}", f"nfe={cell.nfe}", f"seed={','.join(map(str, TEST))}", *choice]
    kept = [word for word in words if word.split("=")[0] not in SWEPT]
    rows = rows_of(["-m", *given, "study=tuned", *kept], "tuned")
    return [row["fid"] for row in rows if row["status"] == "done"]


def line(cell: Cell, ranked: list[Choice], words: list[str]) -> list[str]:
    """A line of the table: FIDs as it comes and tuned, on the seeds of the test, and what was chosen."""
    best = ranked[0].words
    default, tuned = tested(cell, DEFAULT, words), tested(cell, best, words)
    gain = 1 - statistics.mean(tuned) / statistics.mean(default) if default and tuned else math.nan
    chosen = "its default" if best == DEFAULT else " ".join(best)
    return [cell.solver, str(cell.nfe), shown(default), shown(tuned), f"{gain:.0%}", chosen, str(len(ranked))]


def shown(fids: list[float]) -> str:
    """Mean and standard deviation."""
    if not fids:
        return "-"
    return plus_minus(statistics.mean(fids), statistics.stdev(fids) if len(fids) > 1 else math.nan)


def main() -> None:
    """Select, test, print, write."""
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="of a cell, as for seedsbench")
    parser.add_argument("--experiments", nargs="+", default=EXPERIMENTS, help="the sets: tuned tuned_eta")
    options = parser.parse_args()
    commands = [[f"experiment={name}", *options.words] for name in options.experiments]
    try:
        ranked = choices(row for words in commands for row in rows_of(["-m", *words], "tuned"))
        lines = [line(cell, made, commands[0]) for cell, made in sorted(ranked.items())]
    except Stopped as stopped:
        raise SystemExit(stopped.code) from None
    except (Usage, ValueError) as error:
        parser.error(str(error))
    header = ["solver", "NFE", "as it comes", "tuned", "lower by", "chosen", "of"]
    told = [word for word in options.words if not word.startswith("results_dir=")]
    text = _TEXT.format(
        command=shlex.join(["python", "scripts/tuned.py", *told]),
        test=", ".join(map(str, TEST)),
        selection=", ".join(map(str, SELECTION)),
        table="\n".join(markdown_table(header, lines)),
    )
    print(text)
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
