"""Hydra's launchers as this command uses them: which extra brings which, what each needs, what it says.

Imports neither torch nor a launcher.
"""

import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from seedsbench.bench.stopping import Stopped, stops_on_sigterm

HERE = "basic"
"""The launcher that runs the cells one after another in this process."""
LOG = "seedsbench.log"
LOST = ("TerminatedWorkerError", "UncompletedJobError")
"""What joblib and submitit raise when a worker dies; each then gives up on the others too."""
_PLUGINS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "joblib"}


def missing_plugin(error: str) -> str | None:
    """The line for a configuration that Hydra cannot find because its launcher is not installed."""
    found = re.search(r"Could not (?:find|load) 'hydra/launcher/(\w+)'", error)
    if found is None:
        return None
    name = found.group(1)
    if name in _PLUGINS:
        return f'hydra/launcher={name} is not installed: pip install "seedsbench[{_PLUGINS[name]}]"'
    return f"unknown hydra/launcher {name!r}: one of slurm_1gpu, slurm_8gpu, {', '.join(_PLUGINS)}, {HERE}"


def check_launcher(name: str, config: Any, multirun: bool) -> None:
    """Raise ValueError where a launcher cannot do what is asked of it."""
    if name == HERE:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # each of the ranks that share a cell would start its own
        raise ValueError(f"hydra/launcher={name} cannot be used under torchrun: drop one of the two")
    if not multirun:
        raise ValueError(f"hydra/launcher={name} starts the cells of a sweep: add -m before the overrides")
    if elsewhere(config) and shutil.which("srun") is None:
        raise ValueError(
            f"hydra/launcher={name} needs Slurm, and srun is not on PATH: run this on a login node, or take "
            "hydra/launcher=joblib"
        )


def elsewhere(config: Any) -> bool:
    """Whether a launcher's configuration names one whose cells run on other machines than this."""
    return str(config.get("_target_", "")).endswith(".SlurmLauncher")


@contextmanager
def told(name: str, cells: int, study: Path) -> Iterator[None]:
    """While the cells run elsewhere: say where, and repeat what submitit's workers log as it comes.

    Raises Stopped as soon as SIGTERM comes: here are no steps to wait for.
    """
    logs = study / ".submitit" / "*" / "*_log.*"
    shown = name == "joblib"  # its workers write to this terminal themselves
    where = "" if shown else f"; whole logs: {logs}"
    print(f"{cells} cell{'s' * (cells != 1)} by hydra/launcher={name}{where}", file=sys.stderr)
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(study / LOG, ended), daemon=True)
    if not shown:
        follower.start()
    try:
        with stops_on_sigterm(partial(_stop, shown)):
            yield
    finally:
        ended.set()
        if not shown:
            follower.join()


def _stop(ends_workers: bool) -> None:
    if not ends_workers:
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
