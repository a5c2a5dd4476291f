"""Commands that are cut off: killed, told to stop, out of space, without permission, nobody to read them."""

import random
import signal
import subprocess
import time
from typing import Any

from scripts.faults.processes import Ended, fresh
from scripts.faults.trials import COMMAND, FAILED, KILLED, REFUSED, STOPPED, Bench, Kind, Outcome, ended_as

SECONDS = 1.6
"""About what a command takes from its fork on a busy machine."""


def kill(bench: Bench, case: int, rng: random.Random) -> Outcome:
    """kill -9 at a random moment; each tenth of a fresh Python, which begins with its imports."""
    folder = bench.folder()
    if case % 10 == 9:
        child, delay = fresh(list(COMMAND), folder), rng.uniform(0, 8)
    else:
        child, delay = bench.server.start(list(COMMAND), folder), rng.uniform(0, SECONDS)
    time.sleep(delay)
    child.kill(signal.SIGKILL)
    return bench.suffered(folder, child.wait(), {KILLED})


def crash(bench: Bench, case: int, rng: random.Random) -> Outcome:
    """kill -9 at the case-th change of a file."""
    folder = bench.folder()
    ended = bench.run(folder, fault={"do": "kill", "at": case})
    return bench.suffered(folder, ended, {KILLED})


def stop(bench: Bench, case: tuple[str, int], rng: random.Random) -> Outcome:
    """SIGTERM or SIGINT: at a change of a file, or at a random moment."""
    do, at = case
    folder, number = bench.folder(), signal.SIGTERM if do == "stop" else signal.SIGINT
    if at:
        ended = bench.run(folder, fault={"do": do, "at": at})
    else:
        child = bench.server.start(list(COMMAND), folder)
        time.sleep(rng.uniform(0.1, SECONDS))
        child.kill(number)
        ended = child.wait()
    return bench.suffered(folder, ended, STOPPED[number])


def disk(bench: Bench, case: dict[str, Any], rng: random.Random) -> Outcome:
    """No space from a change of a file on, files of a limited length, or one change that fails."""
    folder = bench.folder()
    return bench.suffered(folder, bench.run(folder, fault=case), {FAILED, REFUSED})


def small_disk(bench: Bench, case: int, rng: random.Random) -> Outcome:
    """A file system of so many kB, where one may be mounted."""
    folder = bench.folder()
    place = folder / "results"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={case}k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        return Outcome(skipped=1, note="no file system may be mounted here")
    try:
        ended = bench.run(folder, figures=True)
        outcome = ended_as(ended, {0, FAILED, REFUSED})
        subprocess.run(["mount", "-o", "remount,size=50m", str(place)], check=True)
        return outcome + bench.again(folder)
    finally:
        subprocess.run(["umount", str(place)], check=False)


def nobody_reads(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """Standard output is a full device."""
    folder = bench.folder()
    ended = bench.run(folder, COMMAND, out=case)
    return bench.suffered(folder, ended, {FAILED})


def permissions(bench: Bench, case: tuple[str, int], rng: random.Random) -> Outcome:
    """Folders that may not be written: one from the start, or all from a change of a file on."""
    name, at = case
    folder = bench.finished() if name else bench.folder()
    if name:
        for path in folder.glob("results/s/rows/*.json"):
            path.unlink()
        place = folder / "results" / name
        place.mkdir(exist_ok=True)
        place.chmod(0o500)
    fault = {"unprivileged": True} | ({"do": "deny", "at": at} if at else {})
    try:
        ended: Ended = bench.run(folder, fault=fault)
    finally:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
    return bench.suffered(folder, ended, {FAILED, REFUSED})


def _points(bench: Bench, many: int) -> list[int]:
    """So many of the changes of files, spread evenly."""
    total = bench.changes()
    return sorted({1 + i * (total - 1) // (many - 1) for i in range(many)})


def _disks(bench: Bench) -> list[dict[str, Any]]:
    limits = [0, 1, 100, 1000, 2000, 3000, 4000, 8000, 16000, 64000]
    full = [{"do": "full", "at": at} for at in _points(bench, 25)]
    errors = [{"do": "error", "at": at} for at in _points(bench, 25)]
    return [*full, *({"limit": limit} for limit in limits), *errors]


def _stops(bench: Bench) -> list[tuple[str, int]]:
    points = [*_points(bench, 12), *[0] * 8]
    return [(do, at) for at in points for do in ("stop", "interrupt")]


def _denied(bench: Bench) -> list[tuple[str, int]]:
    places = [("", at) for at in _points(bench, 12)]
    return [*places, *((name, 0) for name in (".", "s", "s/rows", "s/samples", "s/partial", "s/figures"))]


KINDS = (
    Kind("kill -9 at a random moment", kill, lambda _: list(range(40)), quick=0),
    Kind("kill -9 at each change of a file", crash, lambda b: list(range(1, b.changes() + 1))),
    Kind("SIGTERM, SIGINT", stop, _stops),
    Kind("disk full, limited or failing", disk, _disks),
    Kind("a small file system", small_disk, lambda _: [8, 16, 24, 32, 48, 64, 128, 256], quick=0),
    Kind("standard output full", nobody_reads, lambda _: ["/dev/full"] * 3, quick=0),
    Kind("lost permissions", permissions, _denied),
)
