"""Files that are there whole or not at all: written beside their place, synced and renamed."""

import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.(?P<host>[\w-]+)\.(?P<pid>\d+)\.\w+\.tmp")
ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a temporary file of another machine counts as left behind."""


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())


def temporary_prefix() -> str:
    """How names of this process's temporary files begin: `sweep` can tell whose they were."""
    return f".{_host()}.{os.getpid()}."


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A temporary file in the same folder to be written; it takes `path`'s place if no error is raised.

    sync: wait until it is on the disk. Without (for many small files) a power cut may leave an empty one.
    A link, a pipe or a device there is replaced and not followed; a folder there is set aside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(), suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's is for its owner alone
        if path.is_dir() and not path.is_symlink():
            set_aside(path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write `data` to `path`."""
    with replacing(path, sync=sync) as temporary:
        temporary.write_bytes(data)


def point_to(folder: Path, name: str) -> None:
    """Have `name` beside a folder point to it: a link, or where none can be made a file with its name.

    A folder that has this name is left as it is. What cannot be written is no error.
    """
    place = folder.with_name(name)
    if place.is_dir() and not place.is_symlink():
        return
    with suppress(OSError):
        temporary = folder.with_name(f"{temporary_prefix()}{name}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.symlink(folder.name, temporary)
        except (OSError, NotImplementedError):
            write_atomic(place, f"{folder.name}\n".encode())
        else:
            os.replace(temporary, place)


def own_folder(path: Path) -> Path:
    """`path`, a folder after this: anything else there, a link to a folder too, is set aside.

    Nothing that is written into it can so land elsewhere.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        set_aside(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def set_aside(path: Path) -> Path:
    """Rename what stands at `path` to a free name beside it, `<name>.unreadable[-n]`, which is returned."""
    n, aside = 1, path.with_name(f"{path.name}.unreadable")
    while aside.exists() or aside.is_symlink():
        n += 1
        aside = path.with_name(f"{path.name}.unreadable-{n}")
    os.replace(path, aside)
    return aside


def sweep(folder: Path, *, below: bool = True) -> None:
    """Delete temporary files and folders in a folder that no living process can still be writing.

    below: those in the folders in it, too.
    """
    for path in (folder.rglob if below else folder.glob)(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        with suppress(OSError):  # another process sweeps too
            if found is None or not _abandoned(path, found["host"], int(found["pid"])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _abandoned(path: Path, host: str, pid: int) -> bool:
    if host != _host():
        return time.time() - path.lstat().st_mtime > ABANDONED_AFTER
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
