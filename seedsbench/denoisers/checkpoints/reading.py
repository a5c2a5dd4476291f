"""What all readers of checkpoints share: their error, the file in memory, safe `torch.load`, content ids."""

import mmap
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from seedsbench.denoisers.checkpoints.pickle_machine import run
from seedsbench.denoisers.checkpoints.pickle_policy import Budget, Damaged, Global, Policy, Refused, shown
from seedsbench.denoisers.checkpoints.torch_blob import DTYPES, FORMAT, MAGIC
from seedsbench.files.digests import file_sha256

MAX_FILE_BYTES = 32 * 2**30
MAX_PICKLE_BYTES = 256 * 2**20
"""Of the pickle beside the numbers in a torch file, which describes them."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, in one line: what was wrong, the value, what would work."""


def refusal(path: Path, error: Refused, instead: str) -> CheckpointError:
    """The error for a refused file. instead: what those who trust it can save where it may be run."""
    if isinstance(error, Damaged):
        advice = "Copy or download it again"
    else:
        advice = (
            "The file was not run. If you trust it, load it with the code that wrote it, on a machine "
            f"that may run that, and {instead}"
        )
    return CheckpointError(f"{path} is not read: {error}. {advice}")


def file_id(path: str | Path) -> str:
    """First 16 hex digits of the sha256 of a file: two files with one id are the same.

    Raises FileNotFoundError, and CheckpointError for what is no file.
    """
    path = Path(path).expanduser()
    _check_file(path, MAX_FILE_BYTES)
    return file_sha256(path)[:16]


def mapped(path: Path, max_bytes: int = MAX_FILE_BYTES) -> memoryview:
    """The bytes of a file, paged in as they are read. Raises as `file_id`.

    The map lasts as long as a slice of it; like any map, it needs the file to keep its length meanwhile.
    """
    _check_file(path, max_bytes)
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {shown(error, 200)}") from error


def _check_file(path: Path, max_bytes: int) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there: give the path of a checkpoint") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{shown(path)} cannot be read: {shown(error, 200)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path} is no regular file: give the path of a checkpoint file")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path} cannot be read: permission denied")
    if status.st_size == 0:
        raise CheckpointError(f"{path} is empty: copy or download it again")
    if status.st_size > max_bytes:
        raise CheckpointError(f"{path} has {status.st_size} bytes, over the limit of {max_bytes}")


# --- files of torch.save --------------------------------------------------------------------------

CALLABLE = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    "torch.device",
}
STORAGES = {f"torch.{name}" for name in DTYPES}
ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, LookupError, struct.error)
WEIGHT_NAMES = CALLABLE | STORAGES | {str(dtype) for dtype in DTYPES.values()}


class _Declarations(Policy):
    """Builds nothing: collects what storages a torch pickle declares, and refuses foreign globals."""

    def __init__(self) -> None:
        self.nbytes: dict[str, int] = {}

    def find(self, name: Global) -> Any:
        if "." in name.name or str(name) not in WEIGHT_NAMES:
            raise Refused(f"it names the global {name}, which no file of weights needs")
        return name

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(function, Global) or str(function) not in CALLABLE:
            return super().call(function, args)
        return {} if function.name == "OrderedDict" else function

    def build(self, target: Any, state: Any) -> None:
        # state_dict() hangs its version numbers onto the OrderedDict in this way
        if type(target) is not dict or type(state) is not dict:
            super().build(target, state)

    def persistent(self, reference: Any) -> Any:
        match reference:
            case ("storage", Global() as kind, str(key), str(), int(numel), *rest) if (
                str(kind) in STORAGES and numel >= 0 and rest in ([], [None])
            ):
                nbytes = numel * DTYPES[kind.name].itemsize
                if self.nbytes.setdefault(key, nbytes) != nbytes:
                    raise Refused(f"it declares storage {shown(key)} twice, with different sizes")
                return kind
        return super().persistent(reference)


def read_torch(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers: a weights-only load, onto the CPU.

    The pickle is first interpreted without building anything, so that a file which names other globals,
    or declares more numbers than it holds, is refused before memory is taken. Tensors of new (zip)
    files are mapped, private to this process, and paged in when used; those of old ones are read.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged or holds other things.
    """
    path = Path(path).expanduser()
    data = mapped(path, max_bytes)
    zipped = bytes(data[:4]) == b"PK\x03\x04"
    try:
        (_check_zip if zipped else _check_legacy)(path, data)
    except Refused as error:
        raise refusal(path, error, "torch.save its state_dict() alone") from error
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch promises no particular ones for damaged files
        said = shown(" ".join(str(error).split()), 200)
        raise CheckpointError(f"{path} is not read: torch.load (weights only) says: {said}") from error


def _check_zip(path: Path, data: memoryview) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(entries) != len(archive.infolist()) or len(pickles) != 1:
                raise Refused("it is a zip file, but not as torch.save writes them")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise Refused("it holds compressed entries, which torch.save does not write")
            # Entries can overlap, so that a small file declares a large one.
            if sum(entry.file_size for entry in entries.values()) > len(data):
                raise Refused(f"its entries declare more than the {len(data)} bytes of the file")
            if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
                raise Refused(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
            text = memoryview(archive.read(pickles[0]))
    except Refused:
        raise
    except ZIP_ERRORS as error:
        raise Damaged(f"it is a damaged zip file: {shown(error)}") from error
    declared = _Declarations()
    run(text, declared, Budget.of(text))
    folder = pickles[0].removesuffix("data.pkl")
    for key, nbytes in declared.nbytes.items():
        entry = entries.get(f"{folder}data/{key}")
        if entry is None or entry.file_size != nbytes:
            there = "none" if entry is None else entry.file_size
            raise Damaged(f"it declares {nbytes} bytes for storage {shown(key)} and holds {there}")


def _check_legacy(path: Path, data: memoryview) -> None:
    """torch.save before 1.6: pickles (magic, version, system, object, keys); then lengths and numbers."""
    declared, budget, at, values = _Declarations(), Budget.of(data), 0, []
    for _ in range(5):
        value, at = run(data, declared, budget, at)
        values.append(value)
    if values[0] != MAGIC or values[1] != FORMAT:
        raise Refused("it is a pickle, but not as torch.save writes them")
    wanted = sum(declared.nbytes.values()) + 8 * len(declared.nbytes)
    if wanted != len(data) - at:
        raise Damaged(f"it declares {wanted} bytes of storages and holds {len(data) - at}")
