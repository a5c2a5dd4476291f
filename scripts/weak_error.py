"""Weak error against NFE of every SDE solver that has a weak order: python scripts/weak_error.py

On the certificate's problems, both from noise levels uniform in log sigma, no final step: the variance of
Gaussian data (std 0.5, sigma 20 to 0.05) by exact propagation, and four expectations on the mixture's first
coordinate (sigma 5 to 0.4). These are by quadrature for a solver without memory; one with memory is compared
with itself at 512 steps along the same Brownian paths, and left out (-) where its error is less than three
standard errors. Prints the page, and writes results/weak-error.md and .png.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
NEW = {"seeds3_tilted": "#d55e00", "seeds3twice": "#0072b2", "seeds4": "#009e73"}
RIVALS = {"seeds3": "#333333", "er_sde": "#cc6677", "dpmpp_3m_sde": "#5b4fa2", "dpmpp_2m_sde": "#c99700"}
STD, HIGH, LOW = 0.5, 20.0, 0.05
REFERENCE = 512
"""Steps of the run that one with memory is compared with."""
NO_PATH = ("sa_solver",)
"""It switches its noise on and off at grid levels, so that runs on two grids follow two SDEs."""
PATHS, AT_ONCE, STREAM = 60_000, 20_000, 0x210
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


def mixture_errors(name: str, budgets: tuple[int, ...], *, paths: int = PATHS) -> dict[int, float]:
    """Norm of the errors of the four expectations, by evaluations."""
    steps = steps_at(name, budgets)
    if is_markov(name):
        exact = exact_expectations()
        return {n: float(np.linalg.norm(kolmogorov_expectations(name, k) - exact)) for n, k in steps.items()}
    few = {nfe: k for nfe, k in steps.items() if k <= REFERENCE // 4}
    found = common_noise_errors(name, list(few.values()), paths=paths)
    return {nfe: error for nfe, k in few.items() if (error := found[k]) is not None}


def common_noise_errors(name: str, counts: list[int], *, paths: int) -> dict[int, float | None]:
    """The same of a solver with memory; None where it is less than three standard errors."""
    parts: dict[int, list[np.ndarray]] = {n: [] for n in counts}
    for indices in torch.arange(paths).split(AT_ONCE):
        normals = Philox(indices, (1, 1, 1), stream=STREAM)
        latents = line_mixture().draw(indices, seed=1, stream=STREAM + 1) / START + normals.normal()
        path, reference = BrownianPath(normals, normals), np.zeros(0)
        for n in (REFERENCE, *sorted(counts, reverse=True)):
            levels = log_levels(n, START, END)
            run = seedsbench.sample(
                line_mixture(), latents, solver=name, sigmas=levels, final="stop", noise=path
            )
            value = observables(run.x.flatten().numpy())
            if n == REFERENCE:
                reference = value
            else:
                parts[n].append(value - reference)
    differences = {n: np.concatenate(part) for n, part in parts.items()}
    found = {n: (d.mean(0), d.std(0) / math.sqrt(paths)) for n, d in differences.items()}
    sizes = {n: [float(np.linalg.norm(part)) for part in pair] for n, pair in found.items()}
    return {n: size if size > 3 * error else None for n, (size, error) in sizes.items()}


def at_budget(errors: Mapping[int, float], budget: int) -> float:
    """The error at the most evaluations up to the budget and more than three quarters of it; nan if none."""
    within = [nfe for nfe in errors if 0.75 * budget < nfe <= budget]
    return errors[max(within)] if within else math.nan


def best_at(errors: Errors, budget: int) -> tuple[str, float]:
    """(solver, error) with the smallest error at the budget."""
    found = {name: at_budget(of, budget) for name, of in errors.items()}
    name = min((name for name in found if not math.isnan(found[name])), key=found.__getitem__)
    return name, found[name]


def meaning(errors: Errors, problem: str) -> str:
    """One paragraph: which solver is best at each budget, and how the new ones stand beside the others."""
    best = {budget: best_at(errors, budget)[0] for budget in BUDGETS}
    runs = [
        (name, [budget for budget, _ in group])
        for name, group in itertools.groupby(best.items(), key=lambda pair: pair[1])
    ]
    places = ", ".join(f"{name} at {_span(budgets)}" for name, budgets in runs)
    old = {name: of for name, of in errors.items() if name not in NEW}
    lines = [f"{problem}: the least error has {places}."]
    for name in NEW:
        ahead = [b for b in BUDGETS if at_budget(errors[name], b) < best_at(old, b)[1]]
        said = f"at NFE {', '.join(map(str, ahead))}" if ahead else "at none of these budgets"
        lines.append(f"`{name}` beats every solver of weak order 2 or less that is measured {said}.")
    last = {name: max(b for b in BUDGETS if not math.isnan(at_budget(of, b))) for name, of in old.items()}
    lost = [f"{name} above NFE {budget}" for name, budget in last.items() if budget < BUDGETS[-1]]
    if lost:
        lines.append(f"Not resolved, so not compared: {', '.join(lost)}.")
    return " ".join(lines)


def _span(budgets: list[int]) -> str:
    return f"NFE {budgets[0]}" + (f" to {budgets[-1]}" if len(budgets) > 1 else "")


def document(problems: Mapping[str, Errors]) -> str:
    """The page of the figure: what it shows, what it says, the numbers."""
    lines = ["# Weak error against NFE", "", *str(__doc__).splitlines()[2:], ""]
    lines += ["![Weak error against NFE, two problems](weak-error.png)", ""]
    for title, errors in problems.items():
        lines += [f"## {title}", "", meaning(errors, title), ""]
        order = sorted(errors, key=lambda name: (name not in NEW, name))
        rows = [[name, *(_number(at_budget(errors[name], b)) for b in BUDGETS)] for name in order]
        lines += [*markdown_table(["solver", *(f"NFE {b}" for b in BUDGETS)], rows), ""]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1e}"


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
    return found


def main() -> int:
    """Measure, draw, write."""
    arguments, names = parser().parse_args(), solvers()
    gaussian: dict[str, dict[int, float]] = {}
    mixture: dict[str, dict[int, float]] = {}
    for name in names:
        if is_affine(name):
            gaussian[name] = gaussian_errors(name, BUDGETS)
        if name not in NO_PATH:
            mixture[name] = mixture_errors(name, BUDGETS)
        print(name, flush=True)
    problems = {"Variance of Gaussian data": gaussian, "Expectations on the mixture": mixture}
    page = document(problems)
    arguments.output.write_text(page, encoding="utf-8", newline="\n")
    with rc_context(RC):
        figure(problems).savefig(arguments.output.with_suffix(".png"), dpi=150)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
