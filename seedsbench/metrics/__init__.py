"""Scores of generated samples: streaming, mergeable, and the same bits whatever the batches were."""

from seedsbench.metrics.base import FeatureTable
from seedsbench.metrics.fid import FID, frechet_distance
from seedsbench.metrics.inception_score import InceptionScore, inception_score
from seedsbench.metrics.kid import kernel_distance
from seedsbench.metrics.moments import Moments, MomentSum
from seedsbench.metrics.precision_recall import precision_recall

__all__ = [
    "FID",
    "FeatureTable",
    "InceptionScore",
    "MomentSum",
    "Moments",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "precision_recall",
]
