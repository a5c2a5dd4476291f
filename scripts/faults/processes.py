"""Commands as processes of their own, started many times a minute.

Importing torch and Hydra takes seconds. So one server has imported them and done nothing else; for each
command it forks, and the child goes on as `python -m seedsbench` would, to Python's own end of the process.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HANG = 60.0
"""Seconds after which a process counts as hanging, and is killed."""
_IMPORTS = (
    *("seedsbench.cli.main", "seedsbench.cli.sweep", "seedsbench.cli.check", "seedsbench.cli.dry_run"),
    *("seedsbench.report.main", "seedsbench.denoisers.checkpoints.formats", "seedsbench.metrics.reference"),
    *("matplotlib.pyplot", "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg"),
    *(
        "fontTools.subset",
        "scipy.linalg",
        "hydra.core.plugins",
        "hydra.main",
    ),
    *("scripts.faults.readers", "scripts.faults.fuzz", "torch.distributed"),
)
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}


@dataclass(frozen=True)
class Ended:
    """How a process ended: as subprocess says it (minus the signal's number), and what it had said.

    megabytes: of memory it took beyond what it had when it was forked.
    """

    code: int
    seconds: float
    out: str
    err: str
    hang: bool
    megabytes: float = 0.0

    @property
    def traceback(self) -> bool:
        """Whether it showed one."""
        return "Traceback (most recent call last)" in self.out + self.err


@dataclass
class Child:
    """A process that runs; out, err: files of what it says."""

    pid: int
    out: Path
    err: Path
    poll: Callable[[], tuple[int, float] | None]
    started: float = field(default_factory=time.monotonic)

    def wait(self, timeout: float = HANG) -> Ended:
        """How it ended; killed where it takes longer than timeout seconds."""
        hang = False
        while (status := self.poll()) is None:
            if not hang and time.monotonic() - self.started > timeout:
                hang = True
                self.kill(signal.SIGKILL)
            time.sleep(0.01)
        code, megabytes = status
        out, err = (path.read_text(errors="replace") for path in (self.out, self.err))
        return Ended(code, time.monotonic() - self.started, out, err, hang, megabytes)

    def kill(self, number: int) -> None:
        """Send a signal to it alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Server:
    """The process that forks; start() may be called from several threads."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "scripts.faults.processes", str(theirs.fileno())]
        self._said = tempfile.TemporaryDirectory()
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "start_new_session": True}
        environment = os.environ | _ENVIRONMENT
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()], **quiet
        )
        theirs.close()
        self._socket, self._lines = ours, ours.makefile("r")
        self._lock, self._n = threading.Lock(), 0
        self._pids: dict[int, int] = {}
        self._ended: dict[int, tuple[int, float]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self,
        words: list[str],
        folder: Path,
        *,
        fault: Mapping[str, Any] | None = None,
        call: str = "seedsbench.cli.main:main",
        environment: Mapping[str, str] | None = None,
        out: str = "",
        figures: bool = False,
    ) -> Child:
        """A command in a folder; call: the function that is it. figures: whether its report draws them."""
        with self._lock:
            self._n += 1
            number = self._n
        files = [Path(out or f"{self._said.name}/{number}.out"), Path(f"{self._said.name}/{number}.err")]
        request = {
            **{"number": number, "words": words, "folder": str(folder), "fault": dict(fault or {})},
            **{"call": call, "environment": dict(environment or {}), "files": list(map(str, files))},
            "figures": figures,
        }
        self._socket.sendall((json.dumps(request) + "\n").encode())
        while number not in self._pids:
            if self._process.poll() is not None:
                raise RuntimeError("the server has ended")
            time.sleep(0.002)
        shown = Path(os.devnull) if out else files[0]
        return Child(self._pids[number], shown, files[1], lambda: self._ended.get(number))

    def _listen(self) -> None:
        for line in self._lines:
            what, number, value, *more = json.loads(line)
            if what == "pid":
                self._pids[number] = value
            else:
                self._ended[number] = (value, more[0])

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._said.cleanup()


def fresh(words: list[str], folder: Path, *, module: str = "seedsbench") -> Child:
    """A command in a Python of its own, `python -m <module>`, with a process group of its own."""
    said = Path(tempfile.mkdtemp(dir=folder.parent))
    command = [sys.executable, "-m", *module.split(), *words]
    with (said / "out").open("wb") as out, (said / "err").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    def poll() -> tuple[int, float] | None:
        return None if (code := process.poll()) is None else (code, 0.0)

    return Child(process.pid, said / "out", said / "err", poll)


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request; returns it in the child. Ends the process when the campaign is gone."""
    waiting, running = b"", {}
    while True:
        data = b""
        if select.select([control], [], [], 0.01)[0]:
            with suppress(ConnectionError):
                data = control.recv(2**20)
            if not data:
                sys.exit(0)
            waiting += data
        *lines, waiting = waiting.split(b"\n")
        for line in lines:
            request = json.loads(line)
            if (pid := os.fork()) == 0:
                control.close()
                return request
            running[pid] = request["number"], _resident(pid)
            control.sendall(json.dumps(["pid", request["number"], pid]).encode() + b"\n")
        while running:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if not pid:
                break
            (number, before), most = running.pop(pid), used.ru_maxrss / 1024
            ended = ["end", number, os.waitstatus_to_exitcode(status), most - before]
            control.sendall(json.dumps(ended).encode() + b"\n")


def _become(request: Mapping[str, Any]) -> Callable[[], Any]:
    """Make this forked process the one that was asked for; returns what it has to run."""
    from scripts.faults import inject

    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for number, path in enumerate(request["files"], start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["seedsbench", *request["words"]]
    if not request["figures"]:
        _without_figures()
    inject.install(request["fault"], Path(request["folder"]))
    module, _, name = request["call"].partition(":")
    return getattr(importlib.import_module(module), name)


def _without_figures() -> None:
    """Half of a small study's time goes into drawing: most trials write an empty figure in its place."""
    from seedsbench.files.atomic import write_atomic
    from seedsbench.report import main as report

    def write_figures(df: Any, shown: Any, folder: Path, *, overlay: bool = False) -> list[Path]:
        write_atomic(folder / "pareto.png", b"")
        return [folder / "pareto.png"]

    report.write_figures = write_figures


def _resident(pid: int) -> float:
    """MB of memory that a process takes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0) / 1024


if __name__ == "__main__":
    for name in _IMPORTS:
        importlib.import_module(name)
    gc.freeze()  # the children's collectors need not look at all that, nor copy its pages
    run = _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
    run()
