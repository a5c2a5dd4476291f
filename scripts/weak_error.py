"""Weak error against NFE of every SDE solver that has a weak order: python scripts/weak_error.py

On the certificate's problems, both from noise levels uniform in log sigma, no final step: the variance of
Gaussian data (std 0.5, sigma 20 to 0.05) by exact propagation, and four expectations on the mixture's first
coordinate (sigma 5 to 0.4). These are by quadrature for a solver without memory. One with memory is sampled,
to 40 evaluations: along the same Brownian paths runs seeds3 at 40 steps, whose expectations are known, or for
er_sde, which solves an SDE of its own, itself at 512. "<" is an error of less than three standard errors,
with two of them added. Prints the page, and writes results/weak-error.md and .png.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import seedsbench
from seedsbench.certify.problems import END, START, line_mixture, log_levels
from seedsbench.certify.weak import (
    exact_expectations,
    gaussian_moments,
    is_affine,
    is_markov,
    kolmogorov_expectations,
    observables,
)
from seedsbench.diffusion.noise import Philox
from seedsbench.diffusion.path import BrownianPath
from seedsbench.report.style import RC, spread
from seedsbench.report.table import markdown_table
from seedsbench.solvers.base import BudgetError

TARGET = Path(__file__).parents[1] / "results" / "weak-error.md"
BUDGETS = (10, 14, 20, 30, 40, 80, 160, 400)
NEW = {
    "seeds_multistep": "#cc3399",
    "seeds3_tilted": "#d55e00",
    "seeds3twice": "#0072b2",
    "seeds4": "#009e73",
}
RIVALS = {"seeds3": "#333333", "er_sde": "#cc6677", "dpmpp_3m_sde": "#5b4fa2", "dpmpp_2m_sde": "#c99700"}
STD, HIGH, LOW = 0.5, 20.0, 0.05
REFERENCE = ("seeds3", 40)
"""Solver and steps of the run that one with memory is compared with."""
OWN_SDE, OWN_STEPS = ("er_sde",), 512
"""Those that no other solver follows, and the steps of their own that they are compared with."""
SAMPLED = 40
"""The most steps of a solver that is sampled."""
NO_PATH = ("sa_solver",)
"""It switches its noise on and off at grid levels, so that runs on two grids follow two SDEs."""
PATHS, AT_ONCE, STREAM = 10_000_000, 50_000, 0x210
ByCost = dict[int, float]
"""Evaluations -> error."""
Errors = Mapping[str, Mapping[int, float]]  # solver -> evaluations -> error


def solvers() -> list[str]:
    """Names of all solvers with a fixed number of steps that declare a weak order."""
    built = {name: seedsbench.solver(name) for name in seedsbench.solver_names()}
    return [name for name, one in built.items() if one.weak_order is not None and not one.adaptive]


def steps_at(name: str, budgets: tuple[int, ...]) -> dict[int, int]:
    """Evaluations -> steps, of the most steps that each budget allows."""
    solver, found = seedsbench.solver(name), {}
    for budget in budgets:
        try:
            steps = solver.steps_for(budget, "stop")
        except BudgetError:
            continue
        found[solver.nfe(steps)] = steps
    return found


def gaussian_errors(name: str, budgets: tuple[int, ...]) -> dict[int, float]:
    """|variance - exact| by evaluations."""
    exact = STD**2 + LOW**2
    return {
        nfe: abs(float(gaussian_moments(name, steps, std=STD, high=HIGH, low=LOW)[1]) - exact)
        for nfe, steps in steps_at(name, budgets).items()
    }


def mixture_errors(name: str, budgets: tuple[int, ...], *, paths: int = PATHS) -> tuple[ByCost, ByCost]:
    """Norm of the errors of the four expectations, and bounds of those that are not resolved."""
    steps = steps_at(name, budgets)
    if is_markov(name):
        exact = exact_expectations()
        found = {n: float(np.linalg.norm(kolmogorov_expectations(name, k) - exact)) for n, k in steps.items()}
        return found, {}
    few = {nfe: k for nfe, k in steps.items() if k <= SAMPLED}
    sizes = common_noise_errors(name, list(few.values()), paths=paths)
    resolved = {nfe for nfe, k in few.items() if sizes[k][0] > 3 * sizes[k][1]}
    errors = {nfe: sizes[k][0] for nfe, k in few.items() if nfe in resolved}
    return errors, {nfe: sizes[k][0] + 2 * sizes[k][1] for nfe, k in few.items() if nfe not in resolved}


def common_noise_errors(name: str, counts: list[int], *, paths: int) -> dict[int, tuple[float, float]]:
    """steps -> (error, its standard error) of a solver with memory."""
    reference = (name, OWN_STEPS) if name in OWN_SDE else REFERENCE
    exact = exact_expectations()
    known = exact if name in OWN_SDE else kolmogorov_expectations(*reference)
    sums, squares = np.zeros((2, len(counts), len(exact)))
    for indices in torch.arange(paths).split(AT_ONCE):
        normals, beside = (Philox(indices, (1, 1, 1), stream=STREAM + i) for i in (0, 2))
        latents = line_mixture().draw(indices, seed=1, stream=STREAM + 1) / START + normals.normal()
        path = BrownianPath(normals, normals, beside)
        fine = _observed(*reference, latents, path)
        for i, n in enumerate(counts):
            difference = _observed(name, n, latents, path) - fine
            sums[i] += difference.sum(0)
            squares[i] += (difference**2).sum(0)
    means = sums / paths
    errors = np.sqrt((squares / paths - means**2) / paths)
    biases = means + known - exact
    return {
        n: (float(np.linalg.norm(b)), float(np.linalg.norm(e)))
        for n, b, e in zip(counts, biases, errors, strict=True)
    }


def _observed(name: str, steps: int, latents: Tensor, path: BrownianPath) -> np.ndarray:
    """The four observables at the ends of runs along a path."""
    levels = log_levels(steps, START, END)
    run = seedsbench.sample(line_mixture(), latents, solver=name, sigmas=levels, final="stop", noise=path)
    return observables(run.x.flatten().numpy())


def at_budget(errors: Mapping[int, float], budget: int) -> float:
    """The error at the most evaluations up to the budget and more than three quarters of it; nan if none."""
    within = [nfe for nfe in errors if 0.75 * budget < nfe <= budget]
    return errors[max(within)] if within else math.nan


def best_at(errors: Errors, budget: int) -> tuple[str, float]:
    """(solver, error) with the smallest error at the budget."""
    found = {name: at_budget(of, budget) for name, of in errors.items()}
    name = min((name for name in found if not math.isnan(found[name])), key=found.__getitem__)
    return name, found[name]


def meaning(errors: Errors, problem: str, bounds: Errors) -> str:
    """One paragraph: which solver is best at each budget, and how the new ones stand beside the others.

    Of an error that is not resolved its bound counts, which may lose a comparison but win none wrongly; those
    of other people's solvers are not compared.
    """
    at_most = {name: {**bounds.get(name, {}), **of} for name, of in errors.items()}
    best = {budget: best_at(at_most, budget)[0] for budget in BUDGETS}
    runs = [
        (name, [budget for budget, _ in group])
        for name, group in itertools.groupby(best.items(), key=lambda pair: pair[1])
    ]
    places = ", ".join(f"{name} at {_span(budgets)}" for name, budgets in runs)
    old = {name: of for name, of in errors.items() if name not in NEW}
    lines = [f"{problem}: the least error has {places}."]
    for name in NEW:
        ahead = [b for b in BUDGETS if at_budget(at_most[name], b) < best_at(old, b)[1]]
        said = f"at NFE {', '.join(map(str, ahead))}" if ahead else "at none of these budgets"
        lines.append(f"`{name}` beats every solver of weak order 2 or less that is measured {said}.")
    last = {name: max(b for b in BUDGETS if not math.isnan(at_budget(of, b))) for name, of in old.items()}
    lost = [f"{name} above NFE {budget}" for name, budget in last.items() if budget < BUDGETS[-1]]
    if lost:
        lines.append(f"Not resolved, so not compared: {', '.join(lost)}.")
    return " ".join(lines)


def _span(budgets: list[int]) -> str:
    return f"NFE {budgets[0]}" + (f" to {budgets[-1]}" if len(budgets) > 1 else "")


def document(problems: Mapping[str, Errors], bounds: Errors) -> str:
    """The page of the figure: what it shows, what it says, the numbers. bounds: of what is not resolved."""
    lines = ["# Weak error against NFE", "", *str(__doc__).splitlines()[2:], ""]
    lines += ["![Weak error against NFE, two problems](weak-error.png)", ""]
    for title, errors in problems.items():
        lines += [f"## {title}", "", meaning(errors, title, bounds), ""]
        order = sorted(errors, key=lambda name: (name not in NEW, name))
        rows = [[name, *(_number(errors[name], bounds.get(name, {}), b) for b in BUDGETS)] for name in order]
        lines += [*markdown_table(["solver", *(f"NFE {b}" for b in BUDGETS)], rows), ""]
    return "\n".join(lines)


def _number(errors: Mapping[int, float], bounds: Mapping[int, float], budget: int) -> str:
    found, bound = at_budget(errors, budget), at_budget(bounds, budget)
    return f"{found:.1e}" if not math.isnan(found) else "-" if math.isnan(bound) else f"<{bound:.0e}"


def figure(problems: Mapping[str, Errors]) -> Figure:
    """Error against evaluations, a panel a problem; the new solvers marked, their nearest rivals named."""
    drawn = Figure(figsize=(10.5, 4.6), layout="constrained")
    panels = drawn.subplots(1, len(problems), squeeze=False)[0]
    for ax, (title, errors) in zip(panels, problems.items(), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel="weak error")
        ax.set_title(title, loc="left", fontsize=9)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        for name, of in errors.items():
            marker = "o" if name in NEW else "." if name in RIVALS else ""
            (line,) = ax.plot(list(of), list(of.values()), marker=marker, markersize=4)
            line.set(color=(NEW | RIVALS).get(name, "#cfcfcf"), linewidth=1.9 if name in NEW else 1.1)
            line.set_zorder(1 + (name in RIVALS) + 2 * (name in NEW))
        _name(ax, {name: errors[name] for name in (*NEW, *RIVALS) if errors.get(name)})
    return drawn


def _name(ax: Axes, errors: Errors) -> None:
    """Names at the right edge, moved apart, at the height where the lines end."""
    low, high = np.log(ax.get_ylim())
    ends = np.array([(math.log(list(of.values())[-1]) - low) / (high - low) for of in errors.values()])
    for name, y in zip(errors, spread(ends, 0.05, 0.0, 1.0), strict=True):
        text = ax.text(1.02, y, name, transform=ax.transAxes, color=(NEW | RIVALS)[name], fontsize=8)
        text.set(weight="bold" if name in NEW else "normal", verticalalignment="center")


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    raw = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser("weak_error.py", description=__doc__, formatter_class=raw)
    found.add_argument("--output", type=Path, default=TARGET, help="the page; its figure lies beside it")
    found.add_argument(
        "--paths", type=int, default=PATHS, help=f"of a solver with memory (default {PATHS:,})"
    )
    found.add_argument("--jobs", type=int, default=2, help="solvers at a time (default 2)")
    return found


def main() -> int:
    """Measure, draw, write."""
    arguments, names = parser().parse_args(), solvers()
    gaussian = {name: gaussian_errors(name, BUDGETS) for name in names if is_affine(name)}
    measured = sorted((name for name in names if name not in NO_PATH), key=is_markov)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        jobs = {name: pool.submit(mixture_errors, name, BUDGETS, paths=arguments.paths) for name in measured}
        found = {name: job.result() for name, job in jobs.items()}
    mixture = {name: errors for name, (errors, _) in found.items()}
    bounds = {name: bound for name, (_, bound) in found.items()}
    problems = {"Variance of Gaussian data": gaussian, "Expectations on the mixture": mixture}
    page = document(problems, bounds)
    arguments.output.write_text(page, encoding="utf-8", newline="\n")
    with rc_context(RC):
        figure(problems).savefig(arguments.output.with_suffix(".png"), dpi=150)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
