"""Public name of the exact denoisers: `seedsbench.analytic.GaussianMixture(means, weights, std)`."""

from seedsbench.denoisers.analytic import Gaussian, GaussianMixture
from seedsbench.denoisers.finite import FiniteData

__all__ = ["FiniteData", "Gaussian", "GaussianMixture"]
