"""How far a solver's samples are from the known distribution, at a budget of evaluations.

Both distances are to the mixture itself, its moments and its distribution function, not to samples of it.
As many exact samples have a distance too: what no solver can be expected to beat.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.special import ndtr

from seedsbench import api
from seedsbench.certify.paths import CERTIFY
from seedsbench.certify.problems import AnySolver, as_solver, mixture
from seedsbench.diffusion.noise import latents
from seedsbench.metrics.fid import frechet_distance
from seedsbench.solvers.base import BudgetError

SAMPLES = 50_000
_ANGLES = [math.pi * (i + 0.5) / 16 for i in range(16)]  # of the half circle


@dataclass(frozen=True)
class Distance:
    """At one budget: mean evaluations counted, squared Frechet and sliced Wasserstein-2 distance."""

    nfe: float
    frechet: float
    wasserstein: float


def distance(solver: AnySolver, budget: int, *, samples: int = SAMPLES) -> Distance | None:
    """The default command's run on the mixture, EDM's grid from 80 to 0.002; None if no step fits."""
    try:
        start = latents(torch.arange(samples), (2, 1, 1), seed=0)
        run = api.sample(mixture(), start, solver=as_solver(solver), nfe=budget)
    except BudgetError:
        return None
    return Distance(float(run.nfe.double().mean()), *distances(run.x.flatten(1).numpy()))


def distances_of_exact_samples(*, samples: int = SAMPLES, draws: int = 8) -> tuple[float, float]:
    """Both distances of exact samples, the mean over independent draws."""
    found = [
        distances(mixture().draw(torch.arange(samples), seed=seed, stream=CERTIFY).flatten(1).numpy())
        for seed in range(draws)
    ]
    frechet, wasserstein = np.mean(found, axis=0)
    return float(frechet), float(wasserstein)


def distances(x: np.ndarray) -> tuple[float, float]:
    """(squared Frechet, sliced Wasserstein-2) of samples (n, 2) from the mixture."""
    mean, cov = mixture().moments()
    return frechet_distance(x.mean(0), np.cov(x.T), mean, cov), sliced_wasserstein(x)


def sliced_wasserstein(x: np.ndarray) -> float:
    """Root mean square, over 16 directions, of the W2 distance of projections.

    On the line W2 matches quantiles: the sorted samples with those of the mixture, exactly known.
    """
    squares = []
    for angle in _ANGLES:
        along = np.sort(x @ np.array([math.cos(angle), math.sin(angle)]))
        squares.append(float(np.mean((along - _quantiles(angle, len(x))) ** 2)))
    return math.sqrt(float(np.mean(squares)))


@cache
def _quantiles(angle: float, n: int) -> np.ndarray:
    """Quantiles at (i + 0.5)/n of the mixture projected on a direction, by inverting its distribution."""
    target = mixture()
    centres = target.means.numpy() @ np.array([math.cos(angle), math.sin(angle)])
    place = np.linspace(centres.min() - 8 * target.std, centres.max() + 8 * target.std, 200_001)
    weights = target.weights.numpy()
    below = sum(w * ndtr((place - m) / target.std) for m, w in zip(centres, weights, strict=True))
    return np.interp((np.arange(n) + 0.5) / n, below, place)
