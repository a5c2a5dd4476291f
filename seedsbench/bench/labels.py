"""Which class each sample has: what `labels` asks for, whether a model can honour it, and the classes.

labels: "balanced" (each class its share of the data), "random", "none", or a class number.
"""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from seedsbench.bench.cell import Labels
from seedsbench.diffusion.noise import LARGEST_DENOMINATOR, random_classes


def refusal(labels: Labels, n_classes: int | None) -> str | None:
    """Why a model of so many classes (None: not known) cannot take the labels; None if it can."""
    if labels in ("balanced", "none") or n_classes is None:
        return None
    if n_classes == 0:
        return f"labels={labels} on an unconditional model: use labels=none"
    known = labels == "random" or 0 <= int(labels) < n_classes
    return None if known else f"labels={labels}: the model has classes 0..{n_classes - 1}"


def unguidable(labels: Labels, n_classes: int | None) -> str | None:
    """Why samples with these labels, of a model of so many classes (None: not known), cannot be guided."""
    if n_classes == 0:
        return "needs a model with classes, this one is unconditional: use guidance=none"
    return "needs labels: use labels=balanced, random or a class number" if labels == "none" else None


def classes_of(
    indices: Tensor, labels: Labels, label_dim: int, seed: int, weights: Sequence[float] | None = None
) -> Tensor | None:
    """(B,) class of each sample, None for unconditional sampling. weights: `Denoiser.class_weights`.

    Raises ValueError for labels an unconditional model cannot honour (its "balanced" is "none": there
    is nothing to balance) and for a class out of range.
    """
    if labels == "none" or (labels == "balanced" and label_dim == 0):
        return None
    if (refused := refusal(labels, label_dim)) is not None:
        raise ValueError(refused)
    if labels == "balanced":
        return indices % label_dim if weights is None else balanced_classes(indices, weights)
    if labels == "random":
        return random_classes(indices, label_dim, seed=seed, weights=weights)
    return torch.full_like(indices, int(labels))


def balanced_classes(indices: Tensor, weights: Sequence[float]) -> Tensor:
    """(B,) int64: among samples 0 .. n - 1 every class has its share, for every n, to a sample or two.

    indices: (B,) int64 in [0, 2**32). weights: (K,) positive. Each class in turn, the most frequent first,
    takes its share of the samples that the classes before it have left, evenly spread; equal weights give
    index modulo K. A function of the index alone, in exact integers.
    """
    order = sorted(range(len(weights)), key=lambda k: -weights[k])
    left, classes = indices, torch.full_like(indices, order[-1])
    undecided = torch.ones_like(indices, dtype=torch.bool)
    for place, k in enumerate(order[:-1]):
        share = Fraction(weights[k] / sum(weights[j] for j in order[place:])).limit_denominator(
            LARGEST_DENOMINATOR
        )
        before, after = (-(-n * share.numerator // share.denominator) for n in (left, left + 1))
        taken = undecided & (after > before)
        classes = torch.where(taken, k, classes)
        undecided, left = undecided & ~taken, left - before
    return classes


def one_hot(classes: Tensor, n_classes: int) -> Tensor:
    """(B,) class numbers to (B, K) float32 rows."""
    return torch.nn.functional.one_hot(classes, n_classes).float()
