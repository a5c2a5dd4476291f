"""Public names of exact denoisers, `seedsbench.analytic.GaussianMixture(means, weights, std)`, and a jump."""

from seedsbench.denoisers.analytic import FiniteData, Gaussian, GaussianMixture
from seedsbench.denoisers.teleport import GaussianTeleport

__all__ = ["FiniteData", "Gaussian", "GaussianMixture", "GaussianTeleport"]
