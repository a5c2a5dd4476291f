"""Which class each sample has, where the data hold some classes more often than others."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from seedsbench.diffusion.noise import EXACT


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
        share = Fraction(weights[k] / sum(weights[j] for j in order[place:])).limit_denominator(EXACT)
        before, after = (-(-n * share.numerator // share.denominator) for n in (left, left + 1))
        taken = undecided & (after > before)
        classes = torch.where(taken, k, classes)
        undecided, left = undecided & ~taken, left - before
    return classes
