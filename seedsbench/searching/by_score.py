"""Levels by the score itself: what a benchmark measures, made small on samples that it never tests on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from seedsbench.api import sample
from seedsbench.bench.labels import classes_of, one_hot
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.sampling import SamplingPlan
from seedsbench.bench.scoring import Scorer, extractor_input
from seedsbench.diffusion.noise import SEARCH, SEARCH_STEPS, Philox

BATCH = 64


@dataclass
class Score:
    """FID of a solver's samples by the levels it takes.

    problem: what it is scored on. plan: all but the levels. samples, seed: of the streams SEARCH and
    SEARCH_STEPS. evaluations: spent so far, over all samples. best: the lowest FID so far, with its levels.
    """

    problem: Problem
    plan: SamplingPlan
    samples: int
    seed: int
    evaluations: int = 0
    best: tuple[float, Tensor] = field(default=(math.inf, torch.empty(0)))

    def __call__(self, sigmas: Tensor) -> float:
        """FID with these levels, (n,) decreasing; infinite where the solver diverges."""
        scorer = Scorer(self.problem, self.samples, splits=1)
        try:
            for indices in torch.arange(self.samples).split(BATCH):
                scorer.update(indices, extractor_input(self.problem, self._images(indices, sigmas)))
        except ArithmeticError:
            return math.inf
        fid = scorer.compute()["fid"]
        assert fid is not None
        if fid < self.best[0]:
            self.best = fid, sigmas
        return fid

    def _images(self, indices: Tensor, sigmas: Tensor) -> Tensor:
        cell, denoiser = self.plan.cell, self.problem.denoiser
        classes = classes_of(indices, cell.labels, denoiser.label_dim, self.seed, denoiser.class_weights)
        latents, noise = (
            Philox(indices, denoiser.image_shape, seed=self.seed, stream=stream)
            for stream in (SEARCH, SEARCH_STEPS)
        )
        drawn = sample(
            self.plan.guidance.of(denoiser),
            latents.normal(),
            solver=self.plan.solver,
            schedule=self.plan.schedule,
            sigmas=sigmas,
            final=cell.final,
            noise=noise,
            labels=None if classes is None else one_hot(classes, denoiser.label_dim),
        )
        self.evaluations += int(drawn.nfe.sum())
        return self.problem.images(drawn.x)


def lowered(score: Score, starts: Sequence[Tensor], trials: int) -> Tensor:
    """Levels of a lower score than those to start from, (n,) decreasing each, in at most so many trials.

    Nelder and Mead's simplex (scipy's) over the logarithms of the gaps in log sigma, from the best of them:
    the first level stays, the others move freely and stay in order. Returns the best levels that were tried.
    """
    for start in starts:
        score(start)
    start = score.best[1]
    gaps = -start.log().diff().numpy()

    def levels(logs: np.ndarray) -> Tensor:
        falls = torch.from_numpy(np.exp(logs.clip(-12, 3))).cumsum(0)
        return torch.cat([start[:1], start[0] * (-falls).exp()])

    simplex = np.log(gaps) + 0.3 * np.eye(len(gaps) + 1, len(gaps), -1)
    options = {"maxfev": trials - len(starts), "initial_simplex": simplex, "fatol": 1e-4, "adaptive": True}
    minimize(lambda logs: score(levels(logs)), np.log(gaps), method="Nelder-Mead", options=options)
    return score.best[1]
