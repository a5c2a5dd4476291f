"""Several pieces of work at a time, each on one thread.

Matrix and convolution kernels may sum in another order on another number of threads. Pieces of a fixed shape
on one thread each give the same bits on any machine, and for small networks this is also faster than to
split each operation.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def side_by_side(work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """[work(item) for item in items], as many at a time as torch has threads."""
    return list(_workers(torch.get_num_threads()).map(work, items))


@lru_cache(maxsize=4)
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "seedsbench", initializer=torch.set_num_threads, initargs=(1,))
