"""Which machine and device this is; durations as people say them."""

import os
import platform
from functools import lru_cache

import torch

from seedsbench.files.digests import digest


@lru_cache(maxsize=1)
def machine() -> str:
    """8 hex digits that tell this machine from others, without naming it."""
    return digest(f"{platform.node()}/{platform.machine()}/{os.cpu_count()}".encode())[:8]


def device_of(name: str, local_rank: int | None = None) -> str:
    """ "auto" is CUDA where there is one; asking for CUDA where there is none is an error.

    Of several ranks on a machine (local_rank: which) each has a GPU of its own, as long as there are enough.
    """
    if name.startswith("cuda") and not has_cuda():
        raise ValueError(f"device={name}, but torch sees no CUDA device here: use device=cpu or auto")
    if name not in ("auto", "cuda"):
        return name
    if not has_cuda():
        return "cpu"
    if local_rank is None:
        return "cuda"
    return f"cuda:{local_rank % torch.cuda.device_count()}"


def make_current(device: str) -> None:
    """Have this thread mean this GPU by "cuda": else what names none opens a context on the first one too.

    Of ranks that share a machine each would do so, and the first GPU hold memory of all. device: as
    `device_of` says; one without a number is no choice, and the CPU is none either.
    """
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(4), duration(75), duration(7260)
    ('4 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
