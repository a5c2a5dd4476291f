"""How fast this machine is, told by products of matrices in numpy: a twentieth of a second, without torch."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from seedsbench.bench.machine import threads

SIZE = 64  # so small that no library of products gives it threads of its own
PRODUCTS = 256
ROUNDS = 9


def probe() -> float:
    """Seconds a product of float32 matrices (64, 64) @ (64, 64), as many threads as torch has making them.

    The median of nine rounds.
    """
    count = threads() or os.cpu_count() or 1
    stacks = [np.ones((PRODUCTS, SIZE, SIZE), np.float32) for _ in range(2 * count)]
    taken = []
    with ThreadPoolExecutor(count) as pool:
        for _ in range(ROUNDS + 2):  # the first two start the threads
            started = time.perf_counter()
            list(pool.map(lambda i: np.matmul(stacks[i], stacks[i][0], out=stacks[count + i]), range(count)))
            taken.append(time.perf_counter() - started)
    return sorted(taken[2:])[ROUNDS // 2] / (count * PRODUCTS)
