"""Several pieces of work at a time, each on one thread.

Matrix and convolution kernels may sum in another order on another number of threads. Pieces of a fixed shape
on one thread each give the same bits on any machine, and for small networks this is also faster than to
split each operation.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


_THIS_THREAD = threading.local()


def side_by_side(work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """[work(item) for item in items], as many at a time as torch has threads; work may call this too.

    Gradients are recorded, or not, as for the caller: each thread has such modes of its own.
    """
    if hasattr(_THIS_THREAD, "is_worker"):  # which must not wait for another to be free
        return [work(item) for item in items]
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def in_mode(item: Item) -> Made:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(item)

    return list(_workers(torch.get_num_threads()).map(in_mode, items))


@lru_cache(maxsize=4)
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "seedsbench", initializer=_begin)


def _begin() -> None:
    _THIS_THREAD.is_worker = True
    torch.set_num_threads(1)
