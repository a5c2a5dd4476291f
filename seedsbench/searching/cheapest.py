"""The cheapest way through the levels of a teacher in a given number of steps: dynamic programming."""

import torch
from torch import Tensor


def cheapest(cost: Tensor, n_levels: int, growth: float = 1.0) -> list[int]:
    """Indices of n_levels levels, the first one 0, of the least cost from there to the data.

    cost: (m, m + 1), of the step from level i to level j > i, and to the data (column m). growth: what is
    left costs so many times what it would alone, step by step.
    Raises ValueError where there are fewer levels than asked for.
    """
    m = len(cost)
    if n_levels > m:
        raise ValueError(f"{n_levels} levels of the {m} that the teacher has: give it more steps")
    steps = cost[:, :m].masked_fill(torch.ones(m, m).tril().bool(), torch.inf)
    left, choices = cost[:, m], []
    for _ in range(n_levels - 1):
        left, chosen = (steps + growth * left).min(dim=1)
        choices.append(chosen)
    path = [0]
    for chosen in reversed(choices):
        path.append(int(chosen[path[-1]]))
    return path
