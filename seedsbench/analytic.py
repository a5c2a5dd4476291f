"""Public name of the exact denoisers: `seedsbench.analytic.GaussianMixture(means, weights, std)`."""

from seedsbench.denoisers.analytic import Gaussian, GaussianMixture
from seedsbench.denoisers.finite_data import FiniteData

__all__ = ["FiniteData", "Gaussian", "GaussianMixture"]
