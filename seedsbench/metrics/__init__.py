"""Scores of generated samples: streaming, mergeable, and the same bits whatever the batches were."""

from seedsbench.metrics.base import Features, FeatureTable, Metric
from seedsbench.metrics.fid import FID, frechet_distance
from seedsbench.metrics.inception_score import InceptionScore, inception_score
from seedsbench.metrics.kid import KernelDistance, gaussian_kernel, kernel_distance, polynomial_kernel
from seedsbench.metrics.moments import Moments, MomentSum
from seedsbench.metrics.precision_recall import PrecisionRecall, precision_recall

__all__ = [
    "FID",
    "FeatureTable",
    "Features",
    "InceptionScore",
    "KernelDistance",
    "Metric",
    "MomentSum",
    "Moments",
    "PrecisionRecall",
    "frechet_distance",
    "gaussian_kernel",
    "inception_score",
    "kernel_distance",
    "polynomial_kernel",
    "precision_recall",
]
