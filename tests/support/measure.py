"""Orders measured, as the certificate measures them, and the golden mixture."""

import seedsbench
from seedsbench.certify.orders import drift_order, limit_drift_order, strong_order
from seedsbench.certify.problems import log_levels
from seedsbench.certify.weak import gaussian_moments, weak_orders
from tests.support.golden import mixture_parameters

__all__ = [
    "drift_order",
    "gaussian_moments",
    "limit_drift_order",
    "log_levels",
    "mixture",
    "strong_order",
    "weak_orders",
]


def mixture():
    return seedsbench.analytic.GaussianMixture(*mixture_parameters())
