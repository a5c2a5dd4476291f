"""A search from a cell to the entries of a file that grid=searched takes."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from seedsbench import registry
from seedsbench.api import as_trained, noise_levels
from seedsbench.bench.cell import Cell
from seedsbench.bench.labels import classes_of, one_hot
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.problems.build import model_of, problem_of
from seedsbench.bench.sampling import SamplingPlan
from seedsbench.diffusion.grid import EDM
from seedsbench.searching.by_score import Score, lowered
from seedsbench.searching.methods import METHODS
from seedsbench.searching.teacher import taught

log = logging.getLogger(__name__)
BY_SCORE = "fid"
ALL_METHODS = [*METHODS, BY_SCORE]
STARTS = ("gits", "oss")
"""Whose levels a search by score starts from, beside those of the cell's own grid."""


@dataclass(frozen=True)
class Search:
    """How levels are searched.

    method: one of ALL_METHODS. steps: of the exact run. samples: whose exact paths are followed. scored,
    trials: samples of a trial and trials a budget, with method fid. seed: of all samples searched on.
    """

    method: str
    steps: int = 60
    samples: int = 64
    scored: int = 1000
    trials: int = 60
    seed: int = 0


def search(cell: Cell, budgets: Iterable[int], how: Search) -> dict[str, Any]:
    """The entries of the file: levels for each budget, how they were found, and what that cost.

    cell: network, schedule, solver and the rest; its grid gives the range. Raises ValueError where levels
    cannot be had, and BudgetError for a budget that fits no step.
    """
    scores = how.method == BY_SCORE
    model = problem_of(cell, "cpu") if scores else model_of(cell, "cpu")
    solver, schedule, guidance = map(registry.build, (cell.solver, cell.schedule, cell.guidance))
    guided = guidance.of(model.denoiser)
    schedule, own = as_trained(guided, schedule, registry.build(cell.grid))
    low, high = own.range(guided.sigma_min, guided.sigma_max)
    indices = torch.arange(how.samples)
    classes = classes_of(indices, cell.labels, guided.label_dim, how.seed, guided.class_weights)
    labels = None if classes is None else one_hot(classes, guided.label_dim)
    heun, fine = registry.build(registry.configured("solver", "heun")), EDM(sigma_min=low, sigma_max=high)
    teacher = taught(guided, labels, indices, solver=heun, grid=fine, n_steps=how.steps, seed=how.seed)
    log.info("%d exact paths over %d levels", how.samples, len(teacher.sigmas))
    grids, evaluations = [], teacher.evaluations
    for budget in sorted(set(budgets)):
        n_levels = solver.steps_for(budget, cell.final) + 1
        with torch.inference_mode():
            tried = [
                METHODS[name](teacher, n_levels, solver, schedule.through(low, high))
                for name in (STARTS if scores else (how.method,))
            ]
        spent = sum(one.evaluations for one in tried)
        found = tried[0].sigmas
        if scores:
            assert isinstance(model, Problem)
            plan = SamplingPlan(solver, schedule, found, cell, (), guidance)
            score = Score(model, plan, how.scored, how.seed)
            default = noise_levels(guided, schedule, own, n_levels - 1, zero_snr=solver.zero_snr)[0]
            found = lowered(score, [default, *(one.sigmas for one in tried)], how.trials)
            spent += score.evaluations
        log.info("nfe %d: %s", budget, " ".join(f"{sigma:.4g}" for sigma in found.tolist()))
        grids.append(found.tolist())
        evaluations += spent
    return {
        "method": how.method,
        "solver": cell.choices["solver"],
        "model": f"{cell.choices['model']}/{cell.choices['regime']}",
        "evaluations": evaluations,
        "grids": grids,
    }
