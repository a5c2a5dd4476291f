"""Several processes at one study: writers of the same cells, ranks that share a cell, joblib's workers."""

import os
import random
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from scripts.faults.processes import HANG, Child, fresh
from scripts.faults.trials import COMMAND, FAILED, KILLED, STOPPED, Bench, Kind, Outcome, ended_as

LONGER = tuple({"nfe=6,8": "nfe=50,60", "samples=300": "samples=6000"}.get(word, word) for word in COMMAND)
"""The same with cells that take a second or more."""
_ANY_STOP = {FAILED, *STOPPED[signal.SIGTERM], *STOPPED[signal.SIGINT]}


def writers(bench: Bench, case: tuple[int, str], rng: random.Random) -> Outcome:
    """So many processes run the same command at once; the first of them may be ended at a random moment."""
    many, fault = case
    folder = bench.folder()
    children = [bench.server.start(list(COMMAND), folder) for _ in range(many)]
    codes = {0}
    if fault:
        time.sleep(rng.uniform(0.3, 2.0))
        number = signal.SIGKILL if fault == "kill" else signal.SIGTERM
        children[0].kill(number)
        codes |= {KILLED} if fault == "kill" else set(STOPPED[number])
    outcome = Outcome()
    for child in children:
        outcome += ended_as(child.wait(2 * HANG), codes if child is children[0] else {0})
    return outcome + bench.judged(folder, ended=bool(fault)) + bench.again(folder)


def ranks(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """Two ranks; one of them is killed or told to stop at a random moment. The other must end, too."""
    folder = bench.folder()
    pair = [_rank(bench, folder, rank, _free_port_of(folder)) for rank in (0, 1)]
    codes = [{0}, {0}]
    if case:
        do, at = case.split()
        time.sleep(rng.uniform(0.1, 2.5))
        number = signal.SIGKILL if do == "kill" else signal.SIGTERM
        pair[int(at)].kill(number)
        codes = [{0, *_ANY_STOP}] * 2
        codes[int(at)] = {0, KILLED, *_ANY_STOP}
    ends = [child.wait() for child in pair]
    outcome = Outcome()
    for ended, allowed in zip(ends, codes, strict=True):
        outcome += ended_as(ended, allowed)
    if ends[0].code == 0:
        outcome += bench.judged(folder, ended=bool(case))
    return outcome + bench.again(folder)


def _rank(bench: Bench, folder: Path, rank: int, port: int) -> Child:
    environment = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    return bench.server.start(list(COMMAND), folder, environment=environment)


def _free_port_of(folder: Path) -> int:
    """A port that was free, the same one for each asker of a folder."""
    place = folder / "port"
    if not place.exists():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place.write_text(str(free.getsockname()[1]))
    return int(place.read_text())


def workers(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """joblib: a worker or the command itself is killed. No worker may live on for more than a minute.

    The command is killed once a cell has begun: what joblib starts is joblib's own until then.
    """
    folder = bench.folder()
    child = fresh([*LONGER, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], folder)
    until = time.monotonic() + HANG
    while not list(folder.glob("results/s/partial/*/*.npz")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 2))
    if case == "command":
        child.kill(signal.SIGKILL)
    elif found := [pid for pid in _group(child.pid) if "LokyProcess" in _words(pid)]:
        os.kill(rng.choice(found), signal.SIGKILL)
    ended = child.wait(2 * HANG)
    outcome = ended_as(ended, {0, KILLED if case == "command" else FAILED})
    until = time.monotonic() + HANG
    while (alive := _group(child.pid)) and time.monotonic() < until:
        time.sleep(0.2)
    note = f"alive: {[_words(pid) for pid in alive]}" if alive else ""
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    return outcome + Outcome(hangs=int(bool(alive)), note=note) + bench.again(folder, LONGER)


def _words(pid: int) -> str:
    """The command line of a process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _group(leader: int) -> list[int]:
    """Processes of a group that are neither gone nor zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def _pairs(bench: Bench) -> list[str]:
    return ["", *(f"{do} {at}" for do in ("kill", "stop") for at in (0, 1) for _ in range(3))]


def _writers(bench: Bench) -> list[tuple[int, str]]:
    return [(many, fault) for many in (2, 3) for fault in ("", "kill", "stop") for _ in range(3)]


KINDS = (
    Kind("concurrent writers, one of them ended", writers, _writers),
    Kind("two ranks, one of them ended", ranks, _pairs, quick=0),
    Kind("joblib's workers killed", workers, lambda _: ["worker", "command"] * 3, quick=0),
)
