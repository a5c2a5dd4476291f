"""Do searched grids beat EDM's? python scripts/searched_grids.py

For each regime and solver below, levels are searched by each method, on samples of their own, and written to
results/grids/. Cells of a study (<results>/searched-grids) then test them and EDM's grid on the same
seeds, as any others. Prints the table with paired differences and verdicts, and writes it to
results/searched-grids.md. What is done is not done again, levels and cells alike.

    python scripts/searched_grids.py --methods gits oss --solvers dpmpp_2m     # a part
"""

import argparse
import itertools
import os
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml

from scripts.studies import rows_of
from seedsbench.bench.stopping import Stopped
from seedsbench.cli import schedule
from seedsbench.cli.command import Usage
from seedsbench.report.summary import plus_minus, verdict_text
from seedsbench.report.table import markdown_table
from seedsbench.report.verdicts import RunId, Scores, difference, judge, spread_over_runs
from seedsbench.searching.search import ALL_METHODS

TARGET = Path(__file__).parents[1] / "results" / "searched-grids.md"
STUDY = "searched-grids"
REGIMES, SOLVERS, BUDGETS = ("edm", "vp"), ("dpmpp_2m", "ipndm", "seeds3"), (5, 8, 10)
SEEDS = tuple(range(10))
SAMPLED = ("schedule=linear", "grid=edm")
"""Both regimes start from EDM's grid, which is what a searched one should beat."""


def file_of(regime: str, solver: str, method: str) -> Path:
    """Where the levels lie; searched if they are not there."""
    path = TARGET.parent / "grids" / f"{regime}-{solver}-{method}.yaml"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        budgets = f"nfe={','.join(map(str, BUDGETS))}"
        words = [f"method={method}", f"regime={regime}", f"solver={solver}", *SAMPLED, budgets]
        if schedule.main([*words, "--trials", "160", "--output", os.path.relpath(path)]):
            raise ValueError(f"no levels for {regime} {solver} by {method}")
    return path


def tested(regime: str, solver: str, grid: list[str], options: argparse.Namespace) -> dict[int, Scores]:
    """FID by seed at each budget, of cells that no search has seen."""
    given = [f"regime={regime}", f"solver={solver}", "schedule=linear", f"samples={options.samples}"]
    swept = [f"nfe={','.join(map(str, BUDGETS))}", f"seed={','.join(map(str, SEEDS))}"]
    place = [f"study={STUDY}", f"results_dir={options.results}"]
    found: dict[int, dict[RunId, float]] = {budget: {} for budget in BUDGETS}
    for row in rows_of(["-m", *given, *swept, *grid, *place], STUDY):
        if row["status"] == "done":
            found[row["nfe_budget"]][RunId("0", str(row["seed"]))] = row["fid"]
    return {budget: scores for budget, scores in found.items() if scores}


def grids_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What there is to say of each regime, solver, budget and method, beside EDM's grid."""
    found = []
    for regime, solver in itertools.product(options.regimes, options.solvers):
        default = tested(regime, solver, ["grid=edm"], options)
        for method in options.methods:
            path = file_of(regime, solver, method)
            own = tested(regime, solver, ["grid=searched", f"grid.path={path}"], options)
            cost = yaml.safe_load(path.read_text())["evaluations"]
            for budget in default.keys() & own.keys():
                names = {"regime": regime, "solver": solver, "nfe": budget, "method": method, "cost": cost}
                found.append({**names, "own": own[budget], "edm": default[budget]})
    return sorted(found, key=lambda one: (one["regime"], one["solver"], one["nfe"]))


def lines_of(found: list[dict[str, Any]]) -> list[list[str]]:
    """The table: FID on EDM's grid and on the searched one, their paired difference, and a verdict."""
    verdicts = judge([difference(one["own"], one["edm"]) for one in found])
    lines = []
    for one, verdict in zip(found, verdicts, strict=True):
        fids = [spread_over_runs(one[name]) for name in ("edm", "own")]
        gap = plus_minus(-verdict.difference.value, verdict.difference.error)
        lines.append(
            [one["regime"], one["solver"], str(one["nfe"]), one["method"]]
            + [plus_minus(fid.mean, fid.std) for fid in fids]
            + [gap, verdict_text(verdict), f"{one['cost']:,}"]
        )
    return lines


HEADER = ["regime", "solver", "NFE", "method", "EDM's grid", "searched", "difference", "verdict", "cost"]
_TEXT = """\
# Searched grids

Made by `{command}`, which also leaves the levels in `grids/`, for `grid=searched grid.path=...`.
The embedded networks, {samples} images a cell, seeds {seeds}, which share no sample with the search. FID is
mean ± standard deviation; the difference, searched less EDM's grid, is paired over the seeds, ± its standard
error; the verdict on the searched grid is corrected for all {n} comparisons (Holm, 5 %). The cost is that of
the search in network evaluations, over all its samples and for the three budgets together: to sample 1,000
images at 10 evaluations costs 10,000.

{told}

{table}
"""


def told(found: list[dict[str, Any]]) -> str:
    """What the verdicts say, counted by method."""
    verdicts = judge([difference(one["own"], one["edm"]) for one in found])
    counts: dict[str, dict[str, int]] = {}
    for one, verdict in zip(found, verdicts, strict=True):
        of_method = counts.setdefault(one["method"], dict.fromkeys(("better", "worse", "inconclusive"), 0))
        of_method[verdict.word] += 1
    return "\n".join(
        f"- `{method}`: better than EDM's grid in {n['better']} of {sum(n.values())} cases, worse in "
        f"{n['worse']}, not told apart in {n['inconclusive']}."
        for method, n in counts.items()
    )


def _narrowed(options: argparse.Namespace) -> list[str]:
    """The words of a command that asks for a part."""
    whole = {"regimes": REGIMES, "solvers": SOLVERS, "methods": ALL_METHODS}
    asked = [(name, getattr(options, name)) for name in whole]
    words = [[f"--{name}", *chosen] for name, chosen in asked if list(chosen) != list(whole[name])]
    more = [] if options.samples == 1000 else [f"--samples={options.samples}"]
    return [*itertools.chain(*words), *more]


def main() -> None:
    """Search, test, print, write."""
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES), help="edm vp")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), help=" ".join(SOLVERS))
    parser.add_argument("--methods", nargs="+", choices=ALL_METHODS, default=ALL_METHODS, help="all")
    parser.add_argument("--samples", type=int, default=1000, help="of a cell: 1000")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where studies are: results")
    options = parser.parse_args()
    try:
        found = grids_of(options)
    except Stopped as stopped:
        raise SystemExit(stopped.code) from None
    except (Usage, ValueError) as error:
        parser.error(str(error))
    text = _TEXT.format(
        command=shlex.join(["python", "scripts/searched_grids.py", *_narrowed(options)]),
        samples=options.samples,
        seeds=f"{SEEDS[0]} to {SEEDS[-1]}",
        n=len(found),
        told=told(found),
        table="\n".join(markdown_table(HEADER, lines_of(found))),
    )
    print(text)
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
