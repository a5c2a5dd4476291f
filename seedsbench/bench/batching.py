"""How many samples at a time: a number, one found by trying, and half of it when memory runs out.

None of this changes samples: they depend on their indices alone.
"""

import logging
import math
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch

from seedsbench.bench.labels import one_hot
from seedsbench.bench.precision import out_of_memory, tensor_cores
from seedsbench.denoisers.base import Denoiser

log = logging.getLogger(__name__)

CPU_SIZE = 256
CPU_VALUES = 2**25
"""Values in a batch on the CPU, at most: a float64 state is then 256 MB, and a solver holds several."""
MOST = 4096
GAIN = 0.95
"""A batch of twice the size must take less than this share of the time a sample to be worth it."""

_FOUND: WeakKeyDictionary[Denoiser, dict[int | str, int]] = WeakKeyDictionary()


class BatchSize:
    """Samples at a time for one denoiser: what was asked for, a number or "auto", until memory says less.

    tf32: whether the denoiser runs in it. What was learnt about one holds for all later objects in this
    process. "auto" tries networks as they are, for to compile one for every size would take hours.
    """

    def __init__(self, asked: int | str, denoiser: Denoiser, device: str, *, tf32: bool = False) -> None:
        self._asked = asked
        self._known = _FOUND.setdefault(denoiser, {})
        if asked not in self._known:
            self._known[asked] = _auto(denoiser, device, tf32) if asked == "auto" else int(asked)

    @property
    def now(self) -> int:
        """The size in force."""
        return self._known[self._asked]

    def halve(self, tried: int) -> bool:
        """Make it half of the `tried` samples that did not fit; False if that was one sample."""
        if tried < 2:
            return False
        self._known[self._asked] = math.ceil(tried / 2)
        log.warning("out of memory with %d samples at a time: going on with %d", tried, self.now)
        return True


def _auto(denoiser: Denoiser, device: str, tf32: bool) -> int:
    values = math.prod(denoiser.image_shape)
    if device.startswith("cuda"):
        with torch.inference_mode(), tensor_cores(tf32):
            return fastest(lambda size: _seconds(denoiser, size, device))
    return max(1, min(CPU_SIZE, 2 ** int(math.log2(CPU_VALUES / values))))


def fastest(seconds: Callable[[int], float], most: int = MOST) -> int:
    """The power of two from which doubling the batch no longer pays, or no longer fits.

    seconds: what an evaluation of so many samples takes; for too many it runs out of memory.
    """
    best, rate = 1, math.inf
    for size in (2**power for power in range(most.bit_length())):
        try:
            found = seconds(size) / size
        except Exception as error:
            if not out_of_memory(error):
                raise
            break
        if found > GAIN * rate:
            break
        best, rate = size, found
    return best


def _seconds(denoiser: Denoiser, size: int, device: str) -> float:
    """An evaluation of zeros: the best of three after one to warm up."""
    x = torch.zeros(size, *denoiser.image_shape, device=device)
    sigma = denoiser.round_sigma(torch.tensor(1.0, dtype=torch.float64))
    classes = torch.zeros(size, dtype=torch.long, device=device)
    labels = one_hot(classes, denoiser.label_dim) if denoiser.label_dim else None
    taken = []
    for _ in range(4):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        denoiser(x, sigma, labels)
        torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return min(taken[1:])
