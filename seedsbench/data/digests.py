"""Identities by content: what two machines agree on without having the same paths."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any


def digest(*parts: Any) -> str:
    """16 hex digits of the JSON, or of the bytes, of the parts."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return sha.hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, 64 hex digits; remembered while its size and time stay the same."""
    stat = Path(path).stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, time: int) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            sha.update(chunk)
    return sha.hexdigest()
