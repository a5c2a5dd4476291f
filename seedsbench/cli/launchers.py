"""Hydra's launchers (joblib, and submitit for Slurm): which extra brings which, what each needs and says.

Imports no launcher.
"""

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from seedsbench.bench.ranks import end, joined
from seedsbench.bench.run import follow
from seedsbench.bench.stopping import Stopped, request_stop, stop_requested, stops_on_signals
from seedsbench.cli.logs import LOG_FILE

IN_PROCESS = "basic"
"""The launcher and the sweeper that run cells one after another in this process."""
_Result = TypeVar("_Result")
_STOP_GRACE = 30.0
"""Seconds that a worker without a parent has to save and end."""
_RUNNING: list[Path] = []
"""In a worker: the file that tells the job which runs now to stop."""
_SIGUSR2_GRACE = 2.0
"""Seconds within which SIGUSR2 may follow SIGTERM."""


def check_launcher(name: str, remote: bool, multirun: bool) -> None:
    """Raise ValueError where a launcher cannot do what is asked of it. remote: on other machines."""
    if name == IN_PROCESS:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # each of the ranks that share a cell would start its own
        raise ValueError(f"hydra/launcher={name} cannot be used under torchrun: drop one of the two")
    if not multirun:
        raise ValueError(f"hydra/launcher={name} starts the cells of a sweep: add -m before the overrides")
    if remote and shutil.which("srun") is None:
        raise ValueError(
            f"hydra/launcher={name} needs Slurm, and srun is not on PATH: run this on a login node, or take "
            "hydra/launcher=joblib"
        )


@contextmanager
def watch_workers(name: str, cells: int, study: Path, stop: Path) -> Iterator[None]:
    """While the cells run elsewhere: say where, and repeat what submitit's workers log as it comes.

    A signal to stop makes the file `stop`, which tells joblib's workers to save and end; submitit's jobs go
    on, and Stopped is raised at once.
    """
    logs = study / ".submitit" / "*" / "*_log.*"
    shown = name == "joblib"  # its workers write to this terminal themselves
    where = "" if shown else f"; whole logs: {logs}"
    print(f"{cells} cell{'s' * (cells != 1)} by hydra/launcher={name}{where}", file=sys.stderr)
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(study / LOG_FILE, ended), daemon=True)
    if not shown:
        follower.start()
    try:
        with stops_on_signals(stop.touch if shown else _leave_jobs):
            yield
    finally:
        stop.unlink(missing_ok=True)
        ended.set()
        if not shown:
            follower.join()


def _leave_jobs() -> None:
    print("seedsbench: the jobs that were submitted go on, and leave their rows", file=sys.stderr)
    raise Stopped


def _follow(log: Path, ended: threading.Event) -> None:
    """Print what is appended to a file from now on, until told to end."""
    place = log.stat().st_size if log.is_file() else 0
    while True:
        last = ended.wait(1.0)
        if log.is_file():
            with log.open(encoding="utf-8", errors="replace") as file:
                file.seek(place)
                sys.stdout.write(file.read())
                place = file.tell()
            sys.stdout.flush()
        if last:
            return


def as_worker(run: Callable[[], _Result], stop: Path, parent: int) -> _Result | None:
    """Run in a worker of joblib, the process `parent` or a child of it; None where it was told to stop.

    It is told by a signal, by the file `stop`, and by the end of its parent.
    """
    if os.getpid() != parent:  # its parent may be gone by now, and was then killed while this one started
        _watch(parent)
    _RUNNING.append(stop)
    try:
        with stops_on_signals():
            return None if stop.exists() else run()
    except Stopped:
        return None
    finally:
        _RUNNING.clear()


@cache
def _watch(parent: int) -> None:
    """From now on end when the parent does, at work or waiting for some; asked once in a process."""
    threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()


def _stop_with(parent: int) -> None:
    until = math.inf
    while os.getppid() == parent or (_RUNNING and time.monotonic() < until):
        orphan = os.getppid() != parent
        if (orphan or any(stop.exists() for stop in _RUNNING)) and not stop_requested():
            request_stop()
        if orphan:
            until = min(until, time.monotonic() + _STOP_GRACE)
        time.sleep(0.5)
    os._exit(128 + signal.SIGTERM)  # nobody is left to hear of a result; what is saved is on disk


def as_submitit_task(run: Callable[[], _Result]) -> _Result | None:
    """Run as one task of a submitit job: its tasks are the ranks of a cell, and SIGUSR2 sends it back.

    submitit queues a job again and ends it from the signal handler, wherever the cell is, and takes no notice
    of SIGTERM, which is all that some preemptions send; so at either the cell is asked to save and end
    first. Every task sees all GPUs of its node and takes that of its LOCAL_RANK.
    """
    from submitit import JobEnvironment  # type: ignore[import-not-found]
    from submitit.helpers import TorchDistributedEnvironment  # type: ignore[import-not-found]

    if JobEnvironment().num_tasks > 1 and "RANK" not in os.environ:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    ranks = joined()
    queue_again, received = signal.getsignal(signal.SIGUSR2), set[int]()

    def stop(number: int, _: Any) -> None:
        received.add(number)
        request_stop()

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        if ranks.rank:
            follow(ranks)
            return None
        score = run()
        end(ranks)
        return score
    except Stopped:
        if not stop_requested():  # another rank has died: not queued for that, again and again
            raise
        until = time.monotonic() + _SIGUSR2_GRACE
        while signal.SIGUSR2 not in received and time.monotonic() < until:
            time.sleep(0.05)
        if signal.SIGUSR2 in received and callable(queue_again):
            queue_again(signal.SIGUSR2, None)  # rank 0's ends the process
        raise
