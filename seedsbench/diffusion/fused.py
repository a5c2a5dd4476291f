"""The same normals by one kernel a draw: on a GPU the integer rounds and Box-Muller are two hundred small
operations, whose launches cost more than their arithmetic.

torch.compile makes the kernel, of a form of the computation in which every value stands alone. It is told
not to contract multiply and add, so that no bit changes; this is tried out once, and where bits do change
(an older torch), or torch cannot compile (no Triton), the operations run one by one as before.
"""

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from seedsbench.diffusion.philox import WORD, box_muller, philox4x32, philox_normal

log = logging.getLogger(__name__)

Kernel = Callable[[Tensor, int, Tensor], Tensor]


def normals(indices: Tensor, n_values: int, *, seed: int, stream: int, draw: int) -> Tensor:
    """`philox_normal`, and on a GPU by one kernel where torch can make it: the same numbers."""
    kernel = fused(indices.device) if indices.is_cuda else None
    if kernel is None:
        return philox_normal(indices, n_values, seed=seed, stream=stream, draw=draw)
    return _drawn(kernel, indices, n_values, seed, stream, draw)


@lru_cache(maxsize=16)
def fused(device: torch.device) -> Kernel | None:
    """`each_value` compiled for a device, or None where that fails or changes a bit."""
    indices = torch.arange(5, 16, device=device)
    try:
        kernel = compiled()
        tried = _drawn(kernel, indices, 1021, 2**40 + 3, 2, 5)
    except Exception as error:  # whatever is missing: it is not needed
        log.debug("normals are not compiled on %s: %s", device, " ".join(str(error).split())[:200])
        return None
    if not torch.equal(tried, philox_normal(indices, 1021, seed=2**40 + 3, stream=2, draw=5)):
        log.debug("normals compiled on %s differ in their last bits: not used", device)
        return None
    return kernel


def compiled() -> Kernel:
    """`each_value` as torch.compile makes it, at the first call; shapes stay variables."""
    return torch.compile(each_value, dynamic=True, options={"emulate_precision_casts": True})


def each_value(row: Tensor, blocks: int, names: Tensor) -> Tensor:
    """(B, 4 blocks) normals of the samples `row` (B, 1), each worked out alone from its own counter.

    names: (4,) int64, the draw, the stream and the key's two words.
    """
    column = torch.arange(4 * blocks, device=row.device)[None, :]
    quarter, position = column // blocks, column % blocks
    draw, stream, *key = names.unbind()
    c0, c1, c2, c3 = philox4x32((position, draw, stream, row), (key[0], key[1]))
    odd = quarter % 2 == 1
    cos, sin = box_muller(torch.where(odd, c1, c0), torch.where(odd, c3, c2))
    return torch.where(quarter < 2, cos, sin)


def _drawn(kernel: Kernel, indices: Tensor, n_values: int, seed: int, stream: int, draw: int) -> Tensor:
    names = torch.tensor([draw, stream, seed & WORD, seed >> 32], pin_memory=indices.is_cuda)
    row = indices.to(torch.int64)[:, None]
    return kernel(row, -(-n_values // 4), names.to(row.device, non_blocking=True))[:, :n_values].contiguous()
