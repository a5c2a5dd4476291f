"""Faults inside one process: at its k-th change of a file it is killed, told to stop, or out of space.

What counts as a change is what Python's audit events tell of the files below a folder, and fsync, which has
no event. Only processes that the campaign starts are changed, each for the length of one trial.
"""

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.symlink")
_NEEDS_SPACE = ("open", "os.mkdir", "fsync")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def install(fault: Mapping[str, Any], folder: Path) -> None:
    """Have this process suffer a fault.

    fault: `at`, the number of the change that it comes with, from 1, and `do`: kill, stop, interrupt, full
    (no space from then on), error (of that one change), deny (the folders may no longer be written), or count
    (one byte to the file `to` at each); `named`: only changes of paths with this text in them count. Else
    `limit`: bytes that a file may have; `unprivileged`: without the rights of root.
    """
    if fault.get("unprivileged"):
        give_up_privileges()
    if "limit" in fault:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["limit"], fault["limit"]))
    if "do" in fault:
        _Changes(dict(fault), folder).watch()


def give_up_privileges() -> None:
    """Obey file permissions as an ordinary user does, if this is root on Linux: it keeps its name only."""
    if os.geteuid():
        return
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "cannot give up the privileges of root")


class _Changes:
    """Counts the changes of files and does what is asked for at one of them."""

    def __init__(self, fault: dict[str, Any], folder: Path) -> None:
        self._at, self._do, self._folder = fault.get("at", 0), fault["do"], str(folder)
        self._to = os.open(fault["to"], os.O_WRONLY | os.O_CREAT) if self._do == "count" else -1
        self._named = fault.get("named", "")
        self._n, self._busy = 0, False

    def watch(self) -> None:
        """From now on; there is no end to it but that of the process."""
        sync = os.fsync

        def fsync(file: Any) -> None:
            if not self._named:
                self._change("fsync")
            sync(file)

        os.fsync = fsync
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._busy or not (event in _EVENTS or (event == "open" and isinstance(args[2], int))):
            return
        if event == "open" and not args[2] & _WRITES:
            return
        given = args[:2] if event in ("os.rename", "os.symlink") else args[:1]
        paths = [os.fsdecode(arg) for arg in given if isinstance(arg, str | bytes | os.PathLike)]
        ours = [path for path in paths if not path.startswith("/") or path.startswith(self._folder)]
        if ours and self._named in ours[-1]:
            self._change(event)

    def _change(self, event: str) -> None:
        self._n += 1
        if self._do == "count":
            os.write(self._to, b".")
        elif self._do == "full":
            if self._n >= self._at and event in _NEEDS_SPACE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif self._n == self._at:
            self._busy = True
            self._now()
            self._busy = False

    def _now(self) -> None:
        if self._do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._do == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._do == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        elif self._do == "error":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        elif self._do == "deny":
            for path, _, _ in os.walk(self._folder, topdown=False):
                os.chmod(path, 0o500)
