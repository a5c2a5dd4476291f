"""How many samples at a time: a number, one found by trying, and half of it when memory runs out.

None of this changes samples: they depend on their indices alone.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from seedsbench.bench.labels import one_hot
from seedsbench.denoisers.base import Denoiser

log = logging.getLogger(__name__)

CPU_SIZE = 256
CPU_VALUES = 2**25
"""Values in a batch on the CPU, at most: a float64 state is then 256 MB, and a solver holds several."""
MAX_SIZE = 4096
GAIN = 0.95
"""A batch of twice the size must take less than this share of the time a sample to be worth it."""
NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED", "not enough memory")
"""In messages of torch's allocator on the CPU, of CUDA itself, and of cuBLAS and cuDNN."""


@dataclass
class BatchSize:
    """Samples at a time: what was asked for, until memory says less."""

    now: int

    def halve(self, tried: int) -> bool:
        """Make it half of the `tried` samples that did not fit; False if that was one sample."""
        if tried < 2:
            return False
        self.now = math.ceil(tried / 2)
        log.warning("out of memory with %d samples at a time: going on with %d", tried, self.now)
        return True


@lru_cache(maxsize=32)
def shared_batch_size(asked: int | str, denoiser: Denoiser, device: str) -> BatchSize:
    """A number of samples, or the best for "auto"; one object for all cells of this process that ask alike.

    "auto" tries the network uncompiled: compiling it for each size would take hours.
    """
    if asked != "auto":
        return BatchSize(int(asked))
    if device.startswith("cuda"):
        with torch.inference_mode():
            return BatchSize(fastest(lambda size: _seconds(denoiser, size, device)))
    return BatchSize(max(1, min(CPU_SIZE, 2 ** int(math.log2(CPU_VALUES / math.prod(denoiser.image_shape))))))


def fastest(seconds: Callable[[int], float], most: int = MAX_SIZE) -> int:
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
    """What an evaluation of zeros takes, the mean of three."""
    from torch.utils.benchmark import Timer  # imports compilers, which few runs need

    classes = torch.zeros(size, dtype=torch.long, device=device)
    arguments = {
        "denoiser": denoiser,
        "x": torch.zeros(size, *denoiser.image_shape, device=device),
        "sigma": denoiser.round_sigma(torch.tensor(1.0, dtype=torch.float64)),
        "labels": one_hot(classes, denoiser.label_dim) if denoiser.label_dim else None,
    }
    return Timer("denoiser(x, sigma, labels)", globals=arguments).timeit(3).mean


def out_of_memory(error: Exception) -> bool:
    """Whether fewer samples may help: torch has a class for some of these errors, and words for the rest."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    )
