"""What all readers of checkpoints share: their error, checks of a file, torch files without code."""

from pathlib import Path
from typing import Any

from seedsbench.files.regular import MAX_BYTES, check_regular
from seedsbench.files.torch_files import load_tensors

MAX_HEADER_BYTES = 16 * 2**20
"""Of a .safetensors file; 20 000 tensors need 2 MB."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, in one line: what was wrong, the value, what would work."""


def shown(value: Any, limit: int = 100) -> str:
    """Text from a file, safe to print: ASCII on one line, cut to `limit` characters."""
    text = str(value).encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def one_line(error: object) -> str:
    """The start of the text of an error or a value, safe to print."""
    return shown(" ".join(str(error).split()), 200)


def checked_file(path: str | Path, max_bytes: int = MAX_BYTES) -> Path:
    """The path of an ordinary, readable file of 1 to max_bytes bytes.

    Raises FileNotFoundError or CheckpointError.
    """
    path = Path(path).expanduser()
    try:
        size = check_regular(path, max_bytes=max_bytes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}: give the path of a checkpoint") from None
    except ValueError as error:
        raise CheckpointError(f"{error}: give the path of a checkpoint file") from error
    if size == 0:
        raise CheckpointError(f"{path} is empty: copy or download it again")
    return path


def checked_safetensors(path: str | Path) -> Path:
    """`checked_file`, with a header that is no longer than any in use. The library checks what it says."""
    path = checked_file(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MAX_HEADER_BYTES < length < path.stat().st_size:  # of others the library says what is wrong
        raise CheckpointError(f"{path}: its header has {length} bytes, over the limit of {MAX_HEADER_BYTES}")
    return path


def read_torch(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers: a weights-only load, onto the CPU.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged or holds other things.
    """
    path = checked_file(path, max_bytes)
    try:
        return load_tensors(path, max_bytes=max_bytes)
    except Exception as error:  # torch promises no particular ones for damaged files
        said = " ".join(f"{type(error).__name__}: {error}".split())
        for before in ("from a trusted source.", "WeightsUnpickler error:"):  # the fault, without its advice
            said = said.rpartition(before)[2]
        for after in ("Please use", "Check the documentation", "(Could this error message"):
            said = said.partition(after)[0]
        raise CheckpointError(
            f"{path} is damaged, or holds more than weights ({shown(said.strip(' .:'), 200)}). "
            "It was not run: copy or download it again, or if you trust it, load it with the code that wrote "
            "it and torch.save its state_dict() alone"
        ) from error
