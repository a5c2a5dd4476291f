"""Orders measured, as the certificate measures them, and the golden mixture with a run of it."""

import torch

import seedsbench
from seedsbench.certify.orders import drift_order, limit_drift_order
from seedsbench.certify.problems import log_levels
from seedsbench.certify.weak import gaussian_moments, weak_orders
from tests.support.golden import mixture_parameters

__all__ = ["drift_order", "gaussian_moments", "limit_drift_order", "log_levels", "mixture", "weak_orders"]

START = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(6, 2, 1, 1)


def mixture():
    return seedsbench.analytic.GaussianMixture(*mixture_parameters())


def run(solver, denoiser=None, latents=START, **options):
    """Samples of the mixture or of another denoiser, with all states."""
    return seedsbench.sample(denoiser or mixture(), latents, solver=solver, **options, return_trajectory=True)


def never(x, sigma, labels):
    """The denoiser of runs that are refused before their first evaluation."""
    raise AssertionError("evaluated")
