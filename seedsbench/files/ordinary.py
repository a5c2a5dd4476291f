"""Ordinary files that anyone may have put there: opened without waiting, and read up to a bound."""

import os
from pathlib import Path


def read_ordinary(path: Path, *, max_bytes: int) -> bytes:
    """All bytes of an ordinary file that has at most max_bytes.

    Never waits: a pipe, a socket, a device or a folder is refused. Raises FileNotFoundError where there is
    none, and ValueError, in one line that does not name the file, for everything else.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not an ordinary file")
        # A pipe may have come in its place since, and some of the kernel's own files wait for news.
        with open(path, "rb", opener=_without_waiting) as file:
            data = file.read(max_bytes + 1) or b""
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"not readable ({error.strerror})") from error
    if len(data) > max_bytes:
        raise ValueError(f"longer than {max_bytes:,} bytes")
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
