"""Inception score, exp E[KL(p(y|x) || p(y))] (Salimans et al. 2016), with splits by sample index.

Probabilities are summed as integer multiples of 2^-bits, which is exact in any order: the score does
not depend on batches, order or ranks. The error this causes is below 1e-9. The work is done by numpy
on the CPU: on a contiguous array its exp gives one value the same bits at every position.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import xlogy
from torch import Tensor

from seedsbench.metrics.base import State, as_matrix, check_indices

_BITS = 40
_LOWEST = -60.0  # exp(-60) < 2^-86: such a class counts as impossible, before and after rounding


def inception_score(logits: ArrayLike | Tensor, splits: int = 10) -> tuple[float, float]:
    """Mean and population standard deviation of the score over `splits` consecutive parts.

    logits: (N, K) unnormalised, N >= splits; part i holds rows i*N//splits to (i+1)*N//splits.
    Scores lie in [1, K]. ValueError for too few rows or non-finite logits.
    """
    matrix = as_matrix(logits, "logits")
    metric = InceptionScore(*matrix.shape, splits=splits)
    metric.update(matrix, matrix, torch.arange(len(matrix)))
    scores = metric.compute()
    return scores["is_mean"], scores["is_std"]


class InceptionScore:
    """Streaming `inception_score` of n_total samples with n_classes logits each."""

    def __init__(self, n_total: int, n_classes: int, splits: int = 10) -> None:
        if splits < 1 or n_total < splits:
            advice = f"use 1 to {n_total} splits or more samples"
            raise ValueError(f"{n_total} samples cannot fill {splits} splits: {advice}")
        self.n_total, self.n_classes, self.splits = n_total, n_classes, splits
        # Sums stay below n_total * log(n_classes) * 2^bits < 2^63.
        self.bits = min(_BITS, 58 - math.ceil(math.log2(n_total)))
        self.ends = np.array([(i + 1) * n_total // splits for i in range(splits)])
        self.counts = np.zeros(splits, dtype=np.int64)
        self.probabilities = np.zeros((splits, n_classes), dtype=np.int64)
        self.negentropy = np.zeros(splits, dtype=np.int64)

    def update(self, features: Tensor, logits: Tensor | None, indices: Tensor) -> None:
        """Add logits (B, K) of the samples with these indices in [0, n_total); features are not used."""
        if logits is None:
            raise ValueError("the Inception score needs class logits, and this extractor gives none")
        values = as_matrix(logits, "logits").numpy()
        if values.shape != (len(indices), self.n_classes):
            expected = (len(indices), self.n_classes)
            raise ValueError(f"logits have shape {values.shape}; expected {expected}")
        check_indices(indices, self.n_total)
        split = np.searchsorted(self.ends, indices.cpu().numpy(), side="right")
        p, p_log_p = _rounded_terms(values, self.bits)
        np.add.at(self.counts, split, 1)
        np.add.at(self.probabilities, split, p)
        np.add.at(self.negentropy, split, p_log_p)

    def state(self) -> State:
        """Sums over each split, as integers: counts and negentropy (splits,), probabilities (splits, K)."""
        return {"counts": self.counts, "probabilities": self.probabilities, "negentropy": self.negentropy}

    def add(self, state: Mapping[str, np.ndarray]) -> None:
        """Add the state() of a score with the same n_total, n_classes and splits."""
        for name, sums in self.state().items():
            sums += state[name]

    def compute(self) -> dict[str, float]:
        """{"is_mean", "is_std"}; ValueError unless every sample was seen once."""
        sizes = np.diff(self.ends, prepend=0)
        if not np.array_equal(self.counts, sizes):
            found = f"{self.counts.tolist()} samples instead of {sizes.tolist()}"
            raise ValueError(f"splits hold {found}: every sample must be scored once")
        unit = self.counts * 2.0**self.bits
        marginal = self.probabilities / unit[:, None]
        scores = np.exp(self.negentropy / unit - xlogy(marginal, marginal).sum(axis=1))
        return {"is_mean": float(scores.mean()), "is_std": float(scores.std())}


def _rounded_terms(logits: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """p (B, K) and sum_k p log p (B,), both as int64 multiples of 2^-bits; logits (B, K) float64."""
    shifted = np.maximum(logits - logits.max(axis=1, keepdims=True), _LOWEST)
    # Rounded before they are summed: a sum over classes in floating point has an order, too.
    weight = np.rint(np.exp(shifted) * 2.0**_BITS).astype(np.int64)
    total = weight.sum(axis=1)
    p = weight / total[:, None]
    log_total = np.array([math.log(t) for t in total * 2.0**-_BITS])
    scale = 2.0**bits
    p_shifted = np.rint(p * shifted * scale).astype(np.int64).sum(axis=1)
    return np.rint(p * scale).astype(np.int64), p_shifted - np.rint(log_total * scale).astype(np.int64)
