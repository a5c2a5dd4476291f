"""Does a ranking of solvers on one network hold on another? python scripts/rank_transfer.py

Runs every fixed-step solver at four budgets on every network of the list below, as ordinary cells of a study
(<results>/rank-transfer, which seedsbench-report reads too), and compares rankings by FID: Kendall's tau-b
of every two networks at each budget. Prints the tables, and writes results/rank-transfer.md and .png.
What is done is not run again: an interrupted run goes on, and several with other --networks share the work.

    python scripts/rank_transfer.py --plan                          # what is to do, and how long it may take
    python scripts/rank_transfer.py --networks 'digits*' mixture    # some of the networks
"""

import argparse
import itertools
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.stats import kendalltau

import seedsbench
from scripts.studies import rows_of
from seedsbench import registry
from seedsbench.bench.stopping import Stopped
from seedsbench.cli.command import Usage
from seedsbench.report.style import INK, RC, SOLVER_FAMILIES
from seedsbench.report.table import markdown_table

TARGET = Path(__file__).parents[1] / "results" / "rank-transfer.md"
STUDY = "rank-transfer"
BUDGETS = (5, 10, 20, 50)
SAMPLED = ("schedule=linear", "grid=edm")
"""All networks are sampled alike: else schedules and grids would be compared, not solvers."""
LEAST = 10
"""Solvers that a tau is of, at least."""


@dataclass(frozen=True)
class Network:
    """What solvers are ranked on. words: of the command. exact: a formula. seed: of the samples."""

    title: str
    data: str
    regime: str
    training: int
    words: tuple[str, ...]
    exact: bool = False
    seed: int = 0


def networks() -> list[Network]:
    """All trainings of edm and vp of the embedded sets, one with other samples too; two exact ones."""
    found = []
    for data in ("glyphs", "digits"):
        for regime in ("edm", "vp"):
            for training in range(registry.load("model", data)["trainings"][regime]):
                words = (f"model={data}", f"regime={regime}", f"model.training={training}")
                found.append(Network(f"{data} {regime} {training}", data, regime, training, words))
    first = found[0]
    again = Network(f"{first.title} again", first.data, first.regime, first.training, first.words, seed=1)
    exact = {"mixture": "gaussian_mixture", "500 glyphs": "glyphs_finite"}
    formulas = [
        Network(title, title, "edm", 0, (f"model={model}", "regime=edm"), exact=True)
        for title, model in exact.items()
    ]
    return [first, again, *found[1:], *formulas]


def relation(one: Network, other: Network) -> str:
    """What two networks differ in."""
    if one.exact and other.exact:
        return "two exact denoisers"
    if one.exact or other.exact:
        return "an exact denoiser and a network"
    if one.data != other.data:
        return "other data"
    if one.regime != other.regime:
        return "other regime"
    return "other training" if one.training != other.training else "other samples"


RELATIONS = ("other samples", "other training", "other regime", "other data")
RELATIONS += ("an exact denoiser and a network", "two exact denoisers")


def solvers() -> list[str]:
    """All that take steps of a given number."""
    own = [name for name in seedsbench.solver_names() if name != "diffusers"]
    return [name for name in own if seedsbench.solver(name).family != "adaptive"]


def words_of(network: Network, options: argparse.Namespace) -> list[str]:
    """The words of the command that makes a network's cells, the small budgets first."""
    chosen = [
        f"nfe={','.join(map(str, options.nfe))}",
        f"solver={','.join(solvers())}",
        f"samples={options.samples}",
    ]
    place = [f"seed={network.seed}", f"results_dir={options.results}", f"study={STUDY}"]
    return ["-m", *network.words, *SAMPLED, *chosen, *place, *(["plan=true"] if options.plan else [])]


Scores = dict[tuple[str, int], dict[str, float]]
"""By network and budget: the FID of each solver that could be run."""


def measured(chosen: list[Network], options: argparse.Namespace) -> Scores:
    """Run what is not done yet."""
    found: Scores = {(network.title, budget): {} for network in chosen for budget in options.nfe}
    for network in chosen:
        for row in rows_of(words_of(network, options), STUDY):
            if row["status"] == "done":
                found[network.title, row["nfe_budget"]][row["solver"]] = row["fid"]
    return found


def ranked(fids: Mapping[str, float]) -> list[str]:
    """Solvers by FID, the best first."""
    return sorted(fids, key=fids.__getitem__)


class Tau(NamedTuple):
    """Kendall's tau-b of two rankings, its p-value if they had nothing in common, and of how many solvers."""

    value: float
    p: float
    solvers: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.solvers}; {'<' if self.p < 1e-4 else ''}{max(self.p, 1e-4):.1g})"


def tau(one: Mapping[str, float], other: Mapping[str, float]) -> Tau | None:
    """Of the solvers that both have; None where these are fewer than LEAST."""
    both = sorted(one.keys() & other.keys())
    if len(both) < LEAST:
        return None
    value, p = np.asarray(kendalltau([one[name] for name in both], [other[name] for name in both]), float)
    return Tau(float(value), float(p), len(both))


Taus = dict[tuple[str, str, int], Tau]
"""By two networks, in the order of the list, and budget."""


def budgets_of(found: Iterable[tuple[Any, ...]]) -> list[int]:
    """The budgets among the keys of scores or taus."""
    return sorted({key[-1] for key in found})


def all_taus(chosen: list[Network], scores: Scores) -> Taus:
    """Of every two networks at each budget, where enough solvers could be run."""
    found = {}
    for (one, other), budget in itertools.product(itertools.combinations(chosen, 2), budgets_of(scores)):
        value = tau(scores[one.title, budget], scores[other.title, budget])
        if value is not None:
            found[one.title, other.title, budget] = value
    return found


def by_relation(chosen: list[Network], taus: Taus) -> dict[str, dict[int, list[float]]]:
    """The taus at each budget of the pairs that differ in the same."""
    known = {network.title: network for network in chosen}
    found = {name: {budget: [] for budget in budgets_of(taus)} for name in RELATIONS}
    for (one, other, budget), value in taus.items():
        found[relation(known[one], known[other])][budget].append(value.value)
    return {name: groups for name, groups in found.items() if any(groups.values())}


def span(values: list[float]) -> str:
    """Median and range."""
    if not values:
        return "-"
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def meaning(chosen: list[Network], scores: Scores, taus: Taus) -> str:
    """Three sentences, of the numbers alone."""
    groups = {name: list(itertools.chain(*g.values())) for name, g in by_relation(chosen, taus).items()}
    said = "; ".join(f"{name}, {span(values)}" for name, values in groups.items())
    at = {b: [t.value for (_, _, budget), t in taus.items() if budget == b] for b in budgets_of(taus)}
    medians = {budget: statistics.median(values) for budget, values in at.items()}
    told = ", ".join(f"{value:.2f} at NFE {budget}" for budget, value in medians.items())
    first, *_, last = medians.values()
    way = "more" if last > first else "less"
    best = {key: ranked(found) for key, found in scores.items() if found}
    pairs = [
        (best[one.title, budget], best[other.title, budget])
        for one, other in itertools.permutations(chosen, 2)
        for budget in budgets_of(scores)
        if (one.title, budget) in best and (other.title, budget) in best
    ]
    same = sum(one[0] == other[0] for one, other in pairs)
    near = sum(one[0] in other[:5] for one, other in pairs)
    return (
        f"Median tau over all budgets, and range, by what two rankings differ in: {said}. "
        f"Over all pairs the median is {told}: rankings agree {way} at the largest budget than at the "
        f"smallest. The best solver of one ranking is the best of another in {same} of {len(pairs)} cases, "
        f"and among its best five in {near}."
    )


_TEXT = """\
# Do rankings transfer?

Made by `{command}`. Rankings by FID of {solvers} fixed-step solvers, {samples} samples a cell, on
the same latents and labels; every network is sampled with `schedule=linear grid=edm`. In each place:
Kendall's tau-b of two rankings (how many solvers both have; p-value if they had nothing in common). A
solver that cannot run at a budget is left out there. Several solvers are one method under these settings,
and tie in every ranking. *again*: the same network with other samples, what resampling alone leaves of a
ranking. The exact denoisers have no network error: they rank solvers by their discretisation alone.

{meaning}

![Kendall's tau of every two rankings](rank-transfer.png)

## By what two rankings differ in

{relations}

## Every two rankings

{pairs}

## The best five

{best}
"""


def document(chosen: list[Network], scores: Scores, taus: Taus, options: argparse.Namespace) -> str:
    """The page of the results."""
    words = ["python", "scripts/rank_transfer.py", f"--samples={options.samples}"]
    words += ["--networks", *options.networks] if options.networks != ["*"] else []
    words += ["--nfe", *map(str, options.nfe)] if tuple(options.nfe) != BUDGETS else []
    budgets = budgets_of(scores)
    columns = [f"NFE {budget}" for budget in budgets]
    relations = [
        [name, *(span(groups.get(budget, [])) for budget in budgets)]
        for name, groups in by_relation(chosen, taus).items()
    ]
    titles = [network.title for network in chosen]
    pairs = [
        [one, other, *(str(taus.get((one, other, budget), "-")) for budget in budgets)]
        for one, other in itertools.combinations(titles, 2)
    ]
    best = [[title, *(", ".join(ranked(scores[title, b])[:5]) for b in budgets)] for title in titles]
    return _TEXT.format(
        solvers=len(solvers()),
        command=shlex.join(words),
        samples=options.samples,
        meaning=meaning(chosen, scores, taus),
        relations="\n".join(markdown_table(["rankings differ in", *columns], relations)),
        pairs="\n".join(markdown_table(["one", "other", *columns], pairs)),
        best="\n".join(markdown_table(["network", *columns], best)),
    )


def figure(chosen: list[Network], taus: Taus) -> Figure:
    """For each budget, of one at least, the matrix of tau."""
    titles = [network.title for network in chosen]
    low, high = (SOLVER_FAMILIES[name].hue for name in ("seeds", "edm"))
    colours = LinearSegmentedColormap.from_list("tau", [low, "#ffffff", high])
    n, image = len(titles), None
    with rc_context(RC):
        made = Figure(figsize=(3.2 + 0.8 * n, 2.6 + 0.75 * n), layout="constrained")
        budgets = budgets_of(taus)
        axes = made.subplots(-(-len(budgets) // 2), 2, sharex=True, sharey=True, squeeze=False)
        for ax in axes.flat[len(budgets) :]:
            ax.set_axis_off()
        for ax, budget in zip(axes.flat, budgets, strict=False):
            values = [[value_of(taus, one, other, budget) for other in titles] for one in titles]
            image = ax.imshow(values, cmap=colours, vmin=-1, vmax=1)
            ax.set_title(f"NFE {budget}", fontsize=9)
            ax.set_xticks(range(n), titles, rotation=60, ha="right")
            ax.set_yticks(range(n), titles)
            ax.spines[:].set_visible(False)
            ax.tick_params(length=0)
            for (i, row), j in itertools.product(enumerate(values), range(n)):
                if i != j and row[j] == row[j]:
                    ax.text(j, i, f"{row[j]:.2f}", ha="center", va="center", fontsize=6.5, color=INK)
        assert image is not None
        made.colorbar(image, ax=axes, label="Kendall's tau-b of two rankings by FID", shrink=0.6)
    return made


def value_of(taus: Taus, one: str, other: str, budget: int) -> float:
    """The tau of two networks in any order: 1 of one with itself, nan where there is none."""
    if one == other:
        return 1.0
    found = taus.get((one, other, budget)) or taus.get((other, one, budget))
    return float("nan") if found is None else found.value


def main() -> None:
    """Run, compare, print, write."""
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1000, help="of a cell: 1000")
    parser.add_argument("--networks", nargs="+", metavar="NAME", default=["*"], help="as 'glyphs edm*': all")
    parser.add_argument("--nfe", nargs="+", type=int, metavar="N", default=list(BUDGETS), help="5 10 20 50")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where studies are: results")
    parser.add_argument("--plan", action="store_true", help="say what there is to do, and do nothing")
    options = parser.parse_args()
    known = networks()
    named = [one for name in options.networks for one in known if fnmatch(one.title, name)]
    chosen = list(dict.fromkeys(named))  # in the order that was asked for
    if len(chosen) < 2:
        parser.error(f"--networks must name two at least of: {', '.join(one.title for one in known)}")
    try:
        scores = measured(chosen, options)
    except Stopped as stopped:
        raise SystemExit(stopped.code) from None
    except Usage as error:
        parser.error(str(error))
    if options.plan:
        return
    taus = all_taus(chosen, scores)
    if not taus:
        parser.error(f"no two of these networks have {LEAST} solvers in common that could be run")
    text = document(chosen, scores, taus, options)
    print(text)
    TARGET.write_text(text)
    figure(chosen, taus).savefig(TARGET.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
