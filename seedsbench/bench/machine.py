"""Which machine, device and source this is; durations as people say them."""

import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path

import torch

import seedsbench
from seedsbench.files.digests import digest

_GIT = ("git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


@lru_cache(maxsize=1)
def machine() -> str:
    """8 hex digits that tell this machine from others, without naming it."""
    return digest(f"{platform.node()}/{platform.machine()}/{os.cpu_count()}".encode())[:8]


def device_model(device: str) -> str:
    """The model of a device's GPU, or of the processor: "NVIDIA H200", "AMD EPYC 9554 64-Core Processor"."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return _processor()


@lru_cache(maxsize=1)
def _processor() -> str:
    """As Linux tells it; elsewhere, and where it does not, what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, told), platform.processor() or platform.machine())


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The git commit of this package, "-dirty" where files differ from it; None where it is no checkout."""
    return commit_of(Path(seedsbench.__file__).parents[1])


def commit_of(folder: Path) -> str | None:
    """The same of any folder, which must be a checkout itself: one that merely lies in another's is none."""
    if not (folder / ".git").exists():
        return None
    try:
        told = subprocess.run(_GIT, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


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
