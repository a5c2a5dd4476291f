"""Orders measured: of the drift on the golden mixture, of the variance on Gaussian data (no Monte Carlo)."""

import itertools
import math

import numpy as np
import torch
from conftest import mixture_parameters

import seedsbench
from seedsbench.noise import Recorded, Silent


def log_levels(n_steps, high, low):
    """(n_steps + 1) levels uniform in log sigma, with the ends exactly as given."""
    levels = torch.exp(torch.linspace(math.log(high), math.log(low), n_steps + 1, dtype=torch.float64))
    levels[0], levels[-1] = high, low
    return levels


def mixture():
    return seedsbench.analytic.GaussianMixture(*mixture_parameters())


def drift_order(solver, schedule="linear", counts=(32, 64, 128), high=10.0, low=0.1):
    """log2 of the ratio of successive differences, noise off: needs no reference solution."""
    latents = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(8, 2, 1, 1)
    ends = []
    for n in counts:
        result = seedsbench.sample(
            mixture(),
            latents,
            solver=solver,
            sigmas=log_levels(n, high, low),
            schedule=schedule,
            final="stop",
            noise=Silent(latents.shape),
        )
        ends.append(result.x)
    first, second = ((b - a).norm() for a, b in itertools.pairwise(ends))
    return float(torch.log2(first / second))


def gaussian_moments(
    solver, n_steps, *, mean=0.3, std=0.5, high=20.0, low=0.05, schedule="linear", final="stop"
):
    """Mean and variance at `low` of a solver on N(mean, std^2) data, exactly.

    Every map is affine in the latent and in each normal drawn, so one run on a batch of unit impulses
    (all zero; the latent; each draw) yields all coefficients. The start has the exact law at `high`.
    """
    denoiser = seedsbench.analytic.Gaussian(mean, std, image_shape=(1, 1, 1))
    draws = max(1, 3 * (n_steps + 1))
    latents = torch.zeros(draws + 2, 1, 1, 1, dtype=torch.float64)
    latents[1] = 1.0
    z = torch.zeros(draws, draws + 2, 1, 1, 1, dtype=torch.float64)
    z[torch.arange(draws), torch.arange(draws) + 2] = 1.0
    levels = log_levels(n_steps, high, low)
    x = seedsbench.sample(
        denoiser, latents, solver=solver, sigmas=levels, schedule=schedule, final=final, noise=Recorded(z)
    ).x.flatten()
    offset, coefficients = x[0], x[1:] - x[0]
    # Latent variance that makes the state at `high` N(mean, std^2 + high^2): x = high * latent.
    start_variance = (std**2 + high**2) / high**2
    start_mean = mean / high
    moments = (
        float(offset + coefficients[0] * start_mean),
        float(coefficients[0] ** 2 * start_variance + (coefficients[1:] ** 2).sum()),
    )
    return np.array(moments)


def weak_orders(solver, n_steps=128, **options):
    """(order of the mean, order of the variance) between n_steps and 2 n_steps; nan where exact."""
    std, low, mean = options.get("std", 0.5), options.get("low", 0.05), options.get("mean", 0.3)
    exact = np.array([mean, std**2 + low**2])
    coarse, fine = (abs(gaussian_moments(solver, n, **options) - exact) for n in (n_steps, 2 * n_steps))
    return tuple(math.log2(c / f) if f > 1e-12 else math.nan for c, f in zip(coarse, fine, strict=True))
