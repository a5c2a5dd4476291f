"""The second embedded set: 1,797 handwritten digits of 8x8 pixels, with networks and features of its own."""

from functools import cache
from typing import Annotated

from torch import Tensor

from seedsbench.bench.labels import one_hot
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.problems.embedded import embedded_problem
from seedsbench.checks import Range
from seedsbench.data.digits import DIGITS, digits
from seedsbench.data.glyphs import FLOOR
from seedsbench.denoisers.analytic import FiniteData


def digits_problem(
    regime: str, device: str = "cpu", training: Annotated[int, Range(0, 10**6)] = 0
) -> Problem:
    """The embedded 8x8 set, a network a regime and training, its own 64-d feature network.

    The reference is of all 1,797 pictures. There are no others, so that the floor's sets are bootstrap draws
    from these same ones, with replacement: what a sampler would score that had learnt them by heart.
    """
    labels = digits()[1]
    shares = tuple((labels.bincount().double() / len(labels)).tolist())
    return embedded_problem(DIGITS, regime, training, _drawn, device, shares)


@cache
def _pictures() -> FiniteData:
    return FiniteData(*digits())


def _drawn(indices: Tensor, classes: Tensor | None, seed: int) -> Tensor:
    labels = None if classes is None else one_hot(classes, len(DIGITS.classes))
    return _pictures().draw(indices, seed=seed, stream=FLOOR, labels=labels)
