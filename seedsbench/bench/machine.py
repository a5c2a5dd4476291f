"""Which machine this is, asking torch nothing that can be known without it; durations as people say them."""

import importlib.util
import os
import platform
import re
import sys
from functools import lru_cache
from pathlib import Path

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
    import torch

    return f"cuda:{local_rank % torch.cuda.device_count()}"


def make_current(device: str) -> None:
    """Have this thread mean this GPU by "cuda": else what names none opens a context on the first one too.

    Of ranks that share a machine each would do so, and the first GPU hold memory of all. device: as
    `device_of` says; one without a number is no choice, and the CPU is none either.
    """
    if device.startswith("cuda:"):
        import torch

        torch.cuda.set_device(device)


def has_cuda() -> bool:
    """Whether torch sees a CUDA device; while torch is not loaded, judged by its build and device files."""
    if "torch" in sys.modules or sys.platform != "linux":
        import torch

        return bool(torch.cuda.is_available())
    spec = importlib.util.find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else Path()
    text = version.read_text() if version.is_file() else ""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    for build, files in (("cuda", "nvidia[0-9]*"), ("hip", "kfd")):
        said = re.search(rf"^{build}.*=\s*(\S+)", text, re.MULTILINE)
        if said and said[1] != "None" and not hidden and any(Path("/dev").glob(files)):
            return True
    return False


def threads() -> int | None:
    """Threads torch computes with; None if only torch can tell, and it is not loaded."""
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() else None


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
