"""The embedded default: 10 procedural shapes, networks for each regime, and features of their own."""

from typing import Annotated

from torch import Tensor

from seedsbench.bench.problems.base import Problem
from seedsbench.bench.problems.embedded import embedded_problem
from seedsbench.checks import Range
from seedsbench.data.glyphs import FLOOR, GLYPHS, glyphs
from seedsbench.diffusion.noise import random_classes


def glyphs_problem(
    regime: str, device: str = "cpu", training: Annotated[int, Range(0, 10**6)] = 0
) -> Problem:
    """The embedded 16x16 set, a network a regime and training, its own 64-d feature network."""
    return embedded_problem(GLYPHS, regime, training, _real_glyphs, device)


def _real_glyphs(indices: Tensor, classes: Tensor | None, seed: int) -> Tensor:
    if classes is None:
        classes = random_classes(indices, 10, seed=seed)
    return glyphs(indices, classes, seed=seed, stream=FLOOR)
