"""Public name of the exact denoisers: `seedsbench.analytic.GaussianMixture(means, weights, std)`."""

from seedsbench.denoisers.analytic import FiniteData, Gaussian, GaussianMixture

__all__ = ["FiniteData", "Gaussian", "GaussianMixture"]
