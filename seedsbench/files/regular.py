"""The one look at a path from outside before it is opened: is it an ordinary file that can be read?

Opening a pipe waits for ever, a device never ends, and a file of holes (`truncate -s 100G`) takes no room on
the disk but minutes to read.
"""

import os
import stat
from pathlib import Path

MAX_BYTES = 16 * 2**30
"""Of a file that is read as a whole, as weights are. The largest published ones have a fifth of that."""
_LARGE = 2**30
_LEAST_PART = 20  # of a large file's bytes, one in so many must really be there
_MOST_PARTS = 10_000


def check_regular(path: Path, *, max_bytes: int | None = None) -> int:
    """The size in bytes of an ordinary, readable file, links followed.

    Raises FileNotFoundError where there is none, and ValueError, in one line that begins with the path, for
    a folder, pipe, device or socket, a link in a circle, a file longer than max_bytes, or one of holes.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there") from None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: before Python 3.13, of a circle
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{str(path)!a:.300} cannot be read: {reason}") from error
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is {_kind(status.st_mode)}, no regular file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read: permission denied")
    if max_bytes is not None and size > max_bytes:
        raise ValueError(f"{path} has {size} bytes, over the limit of {max_bytes}")
    if size > _LARGE and (held := _held(path, size // _LEAST_PART)) < size // _LEAST_PART:
        raise ValueError(f"{path} has {size} bytes, of which {held} were ever written: copy it again")
    return size


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _held(path: Path, enough: int) -> int:
    """Bytes of a file that lie outside holes, counted until they are enough."""
    if not hasattr(os, "SEEK_DATA"):
        return enough
    held = at = 0
    with path.open("rb", buffering=0) as file:
        for _ in range(_MOST_PARTS):
            if held >= enough:
                break
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            held += at - start
    return held
