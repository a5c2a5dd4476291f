"""Work on one thread, and many blocks of it side by side, so that the number of threads changes no bit.

Matrix and convolution kernels may sum in another order on another number of threads (and torchrun gives a
rank fewer than a plain process has). Blocks of a fixed shape on one thread each give the same bits on any
machine, and for small networks this is also faster than to split each operation.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch

_Block = TypeVar("_Block")
_Made = TypeVar("_Made")
_THIS_THREAD = threading.local()


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's kernels on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def map_blocks(work: Callable[[_Block], _Made], blocks: Iterable[_Block]) -> list[_Made]:
    """[work(block) for block in blocks], each on one thread, as many at a time as torch has threads.

    work may call this too. Gradients are recorded, or not, as for the caller.
    """
    if hasattr(_THIS_THREAD, "is_worker"):  # which must not wait for another to be free
        return [work(block) for block in blocks]
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def in_mode(block: _Block) -> _Made:  # each thread has such modes of its own
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(block)

    return list(_workers(torch.get_num_threads()).map(in_mode, blocks))


@lru_cache(maxsize=4)
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "seedsbench", initializer=_begin)


def _begin() -> None:
    _THIS_THREAD.is_worker = True
    torch.set_num_threads(1)
