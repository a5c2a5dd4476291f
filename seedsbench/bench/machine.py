"""Which machine this is, and durations as people say them."""

import hashlib
import os
import platform
from functools import lru_cache


@lru_cache(maxsize=1)
def machine() -> str:
    """8 hex digits that tell this machine from others, without naming it."""
    return hashlib.sha256(f"{platform.node()}/{platform.machine()}/{os.cpu_count()}".encode()).hexdigest()[:8]


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
