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
    """The torch device that `device=` means here: "auto" is CUDA where there is one.

    Each of several ranks on a machine (local_rank: which) has a GPU of its own, as long as there are enough.
    Raises ValueError for CUDA where there is none.
    """
    if name.startswith("cuda") and not has_cuda():
        raise ValueError(f"device={name}, but torch sees no CUDA device here: use device=cpu or auto")
    if name not in ("auto", "cuda"):
        return name
    if not has_cuda():
        return "cpu"
    return "cuda" if local_rank is None else f"cuda:{local_rank % torch.cuda.device_count()}"


def make_current(device: str) -> None:
    """Make a numbered GPU ("cuda:1") this thread's current one: else each rank opens a context on 0 too."""
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def duration(seconds: float) -> str:
    """Seconds as people say them: 4 s, 1 min 15 s, 2 h 1 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
