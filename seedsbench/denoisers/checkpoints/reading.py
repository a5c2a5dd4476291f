"""What all readers of checkpoints share: their error, checks of a file, a `torch.load` that runs no code."""

import os
import stat
from pathlib import Path
from typing import Any

import torch

MAX_FILE_BYTES = 32 * 2**30


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, in one line: what was wrong, the value, what would work."""


def shown(value: Any, limit: int = 100) -> str:
    """Text from a file, safe to print: ASCII on one line, cut to `limit` characters."""
    text = str(value).encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def one_line(error: Exception) -> str:
    """The start of an error's text, safe to print."""
    return shown(" ".join(str(error).split()), 200)


def checked_file(path: str | Path, max_bytes: int = MAX_FILE_BYTES) -> Path:
    """The path of a readable file of 1 to max_bytes bytes; raises FileNotFoundError or CheckpointError."""
    path = Path(path).expanduser()
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there: give the path of a checkpoint") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{shown(path)} cannot be read: {one_line(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path} is no regular file: give the path of a checkpoint file")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path} cannot be read: permission denied")
    if status.st_size == 0:
        raise CheckpointError(f"{path} is empty: copy or download it again")
    if status.st_size > max_bytes:
        raise CheckpointError(f"{path} has {status.st_size} bytes, over the limit of {max_bytes}")
    return path


def read_torch(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers: a weights-only load, onto the CPU.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged or holds other things.
    """
    path = checked_file(path, max_bytes)
    try:
        # Not mapped: only then does torch compare the size that a storage declares with what the file holds.
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # torch promises no particular ones for damaged files
        said = " ".join(f"{type(error).__name__}: {error}".split())
        for before in ("from a trusted source.", "WeightsUnpickler error:"):  # the fault, without its advice
            said = said.rpartition(before)[2]
        for after in ("Please use", "Check the documentation", "(Could this error message"):
            said = said.partition(after)[0]
        raise CheckpointError(
            f"{path} is damaged, or holds more than weights (torch.load: {shown(said.strip(' .:'), 200)}). "
            "It was not run: copy or download it again, or if you trust it, load it with the code that wrote "
            "it and torch.save its state_dict() alone"
        ) from error
