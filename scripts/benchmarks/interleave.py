"""How the benchmarks compare: each candidate between two measurements of what it is compared with."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from tqdm import tqdm

Made = TypeVar("Made")


def between(
    names: Sequence[str], measure: Callable[[str], Made], base: Callable[[], float], rounds: int
) -> Iterator[tuple[str, Made, float]]:
    """Of each name, round after round: what it gave, and the mean of base() just before and just after it.

    So a machine that slowly speeds up or slows down changes no ratio. Every round starts with another
    name and goes the other way round than the one before, so that no place in it is anyone's own.
    """
    for turn in tqdm(range(rounds), unit="round", disable=None):
        before = base()
        for name in in_turn(names, turn):
            made = measure(name)
            after = base()
            yield name, made, (before + after) / 2
            before = after


def in_turn(names: Sequence[str], turn: int) -> list[str]:
    """The names in the order of a round: rotated by one for every two of them, every other one backwards."""
    start = turn // 2 % max(1, len(names))
    order = [*names[start:], *names[:start]]
    return order[::-1] if turn % 2 else order


def seconds(call: Callable[[], object], device: str) -> float:
    """Time of a call: of the processor where one thread of a CPU does the work, else by the clock."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and, in brackets, the ends."""
    ends = f"{min(values):.{digits}f}-{max(values):.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({ends})"
