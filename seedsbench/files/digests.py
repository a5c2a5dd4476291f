"""Identities by content: what two machines agree on without having the same paths."""

import hashlib
import json
from pathlib import Path
from typing import Any

from seedsbench.files.regular import check_regular


def digest(*parts: Any) -> str:
    """16 hex digits of the sha256 of the JSON, or of the bytes, of the parts."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return sha.hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, 64 hex digits; raises as `check_regular` for what is no ordinary file."""
    check_regular(Path(path))
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            sha.update(chunk)
    return sha.hexdigest()


def folder_sha256(folder: Path) -> str:
    """64 hex digits of the names and contents of all files in a folder, hidden ones apart."""
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            sha.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return sha.hexdigest()
