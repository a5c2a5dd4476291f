"""Orders measured, as the certificate measures them, and the golden mixture with a run of it."""

import torch

import seedsbench
from seedsbench.certify.orders import drift_order, limit_drift_order
from seedsbench.certify.problems import log_levels
from seedsbench.certify.weak import Counted, gaussian_moments, weak_orders
from seedsbench.diffusion.noise import Recorded
from seedsbench.diffusion.process import expand
from tests.support.golden import mixture_parameters

__all__ = [
    "drift_order",
    "gaussian_moments",
    "limit_drift_order",
    "log_levels",
    "mixture",
    "n_draws",
    "plane_covariance",
    "weak_orders",
]

START = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(6, 2, 1, 1)


def mixture():
    return seedsbench.analytic.GaussianMixture(*mixture_parameters())


def run(solver, denoiser=None, latents=START, **options):
    """Samples of the mixture or of another denoiser, with all states."""
    return seedsbench.sample(denoiser or mixture(), latents, solver=solver, **options, return_trajectory=True)


def n_draws(solver, denoiser, levels):
    """How many normals a run in two dimensions draws."""
    start = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    counter = Counted(start.shape)
    seedsbench.sample(denoiser, start, solver=solver, sigmas=levels, final="stop", noise=counter)
    return counter.draws


def plane_covariance(solver, matrix, n):
    """Of the end of a linear SDE in the plane, whose denoiser is matrix x / (1 + sigma^2), exactly."""

    def denoiser(x, sigma, labels):
        return torch.einsum("ij,bjhw->bihw", matrix, x) / (1 + expand(sigma, x) ** 2)

    levels = log_levels(n, 5.0, 0.4)
    draws = n_draws(solver, denoiser, levels)
    impulses = torch.eye(2 * (draws + 1), dtype=torch.float64).reshape(draws + 1, 2, -1, 1, 1)
    latents, normals = (part.transpose(1, 2) for part in (impulses[:1], impulses[1:]))
    noise = Recorded(normals)
    run = seedsbench.sample(denoiser, latents[0], solver=solver, sigmas=levels, final="stop", noise=noise)
    coefficients = run.x.flatten(1)
    return coefficients.T @ coefficients


def never(x, sigma, labels):
    """The denoiser of runs that are refused before their first evaluation."""
    raise AssertionError("evaluated")
