"""The processes that share a cell: what torchrun started, told apart by rank, in step through its store.

Rank 0 leads: it alone reads the command, runs Hydra and writes rows; the others are told each cell by it.
Whoever waits for another's share polls, so that a signal is heard at once; only `merged` blocks, until the
sums are there or the other is gone. torchrun sends SIGTERM to all ranks when one dies: each then says that it
was told to stop, and the one that cannot say so is the one that died. Where nobody sends it, as under Slurm,
the ranks that wait notice one that shows no sign of life any more.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist

from seedsbench.bench.row_facts import reason_of
from seedsbench.bench.stopping import Stopped, stop_requested

GRACE = 5.0
"""Seconds that a rank may take to say that it was told to stop; torchrun kills after 30."""
BEAT = 2.0
"""Seconds between two signs of life of a rank, ..."""
SILENCE = 30.0
"""... and without one after which it is dead to those that wait for it."""
LOOK = 0.2
"""Seconds between two looks at whether another rank has failed."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the cell. local_rank: among those of its machine; store: what they share.

    Both are None for a process alone.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int | None = None
    store: Any = None


ALONE = Ranks()


class OtherFailed(Exception):
    """Another rank could not do its share, so that this one's is of no use."""


@lru_cache(maxsize=1)
def joined() -> Ranks:
    """The ranks of this process, from the environment that torchrun sets; ALONE without it."""
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(name in os.environ for name in needed) or int(os.environ["WORLD_SIZE"]) < 2:
        return ALONE
    from torch.distributed.distributed_c10d import PrefixStore  # not in every build of torch
    from torch.distributed.rendezvous import rendezvous

    store, rank, world_size = next(rendezvous("env://"))
    # Sums are merged on the CPU, whatever device they are of: gloo serves all, two ranks on one GPU too.
    dist.init_process_group("gloo", store=PrefixStore("gloo", store), rank=rank, world_size=world_size)
    local = int(os.environ.get("LOCAL_RANK", rank))
    ranks = Ranks(rank, world_size, local, PrefixStore("seedsbench", store))
    threading.Thread(target=beat, args=(ranks,), daemon=True).start()
    return ranks


def beat(ranks: Ranks) -> None:
    """Give signs of life, until the store is gone."""
    with suppress(RuntimeError):
        while True:
            ranks.store.add(f"beats/{ranks.rank}", 1)
            time.sleep(BEAT)


# --- what rank 0 tells the others -----------------------------------------------------------------


def tell(ranks: Ranks, message: Callable[[], dict[str, Any] | None]) -> int:
    """Rank 0: announce a cell, or the end with None, if there are others to hear it; returns its number.

    After the end it waits a little for the others to hear of it, as the store may go with this process.
    """
    if ranks.store is None:
        return 0
    number, content = ranks.store.add("messages", 1), message()
    ranks.store.set(f"{number}/message", json.dumps(content))
    if content is None and not stop_requested():
        ranks.store.set("ended/0", "")
        _without(ranks, "ended")
    return number


def messages(ranks: Ranks) -> Iterator[tuple[int, dict[str, Any]]]:
    """Other ranks: the cells that rank 0 announces, with their numbers, until the end."""
    number = 1
    while (message := json.loads(waited(ranks, f"{number}/message"))) is not None:
        yield number, message
        number += 1
    ranks.store.set(f"ended/{ranks.rank}", "")


def let_go(ranks: Ranks, number: int, task: dict[str, Any] | None) -> None:
    """Rank 0: start the shares of an announced cell; with None the cell is not run, unless it was started."""
    if ranks.store is not None:
        ranks.store.compare_set(f"{number}/task", "", json.dumps(task))


def task_of(ranks: Ranks, number: int) -> dict[str, Any] | None:
    """Other ranks: what let_go() says of the cell."""
    return json.loads(waited(ranks, f"{number}/task"))


# --- doing a share each ---------------------------------------------------------------------------


def in_step(ranks: Ranks, number: int, work: Callable[[], None]) -> bool:
    """Do this rank's share, wait for the others': whether all were done.

    An error of one rank ends the others' shares soon (see `watch`). Rank 0 then raises ValueError with the
    rank and its error; a process alone lets its error out as it is.
    """
    if ranks.store is None:
        work()
        return True
    failure = None
    try:
        work()
    except OtherFailed:
        pass
    except Exception as error:
        failure = error
        ranks.store.set(f"{number}/failed", "")
    ranks.store.set(f"{number}/report/{ranks.rank}", "" if failure is None else reason_of(failure))
    if ranks.rank:
        return waited(ranks, f"{number}/verdict") == b"good"
    said = [waited(ranks, f"{number}/report/{rank}").decode() for rank in range(ranks.world_size)]
    failed = [f"rank {rank}: {error}" for rank, error in enumerate(said) if error]
    ranks.store.set(f"{number}/verdict", "bad" if failed else "good")
    if failed:
        raise ValueError(failed[0]) from failure
    return True


def watch(ranks: Ranks, number: int) -> Callable[[], None]:
    """For loops to call often: raises Stopped when asked to stop, OtherFailed after another rank's error."""
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        if stop_requested():
            raise Stopped
        if ranks.store is not None and time.monotonic() - looked >= LOOK:
            looked = time.monotonic()
            if _is_there(ranks, "stop"):
                raise Stopped
            if _is_there(ranks, f"{number}/failed"):
                raise OtherFailed("another rank failed")

    return look


def merged(ranks: Ranks, send: Callable[[], bytes], receive: Callable[[bytes], None]) -> None:
    """Bring what every rank has to rank 0 along a tree, in log2(world_size) rounds.

    send(): this rank's sums, with all it received. receive(): adds another rank's. Raises Stopped if a
    rank is lost meanwhile.
    """
    step = 1
    try:
        while step < ranks.world_size:
            if ranks.rank % (2 * step):
                data = torch.frombuffer(bytearray(send()), dtype=torch.uint8)
                dist.send(torch.tensor([len(data)]), ranks.rank - step)
                dist.send(data, ranks.rank - step)
                return
            if ranks.rank + step < ranks.world_size:
                length = torch.zeros(1, dtype=torch.int64)
                dist.recv(length, ranks.rank + step)
                data = torch.empty(int(length), dtype=torch.uint8)
                dist.recv(data, ranks.rank + step)
                receive(data.numpy().tobytes())
            step *= 2
    except RuntimeError as error:  # gloo's, for a closed connection
        raise Stopped from error


# --- the end --------------------------------------------------------------------------------------


def say_stopped(ranks: Ranks) -> None:
    """Let the others know that this rank was told to stop, and so is alive."""
    if ranks.store is not None:
        ranks.store.set(f"stopped/{ranks.rank}", "")


def lost(ranks: Ranks) -> list[int]:
    """After Stopped: the ranks that do not say that they were told to stop, for they are dead."""
    if ranks.store is None:
        return []
    try:
        say_stopped(ranks)
        return _without(ranks, "stopped")
    except RuntimeError:  # the store went with the process that held it, which is rank 0 or torchrun
        return [0] if ranks.rank else []


def blamed(ranks: Ranks, row: dict[str, Any]) -> dict[str, Any] | None:
    """After Stopped: the failed row that names the ranks that died, on the one rank that is to write it."""
    missing = lost(ranks)
    if not missing or ranks.rank != min(set(range(ranks.world_size)) - set(missing)):
        return None
    who = " and ".join(f"rank {rank}" for rank in missing)
    reason = f"{who} died (killed, or out of memory?); the same command goes on from what was saved"
    return {**row, "status": "failed", "reason": reason}


def waited(ranks: Ranks, key: str) -> bytes:
    """The value of a key of the store, once it is there; raises Stopped when asked to, or a rank is dead."""
    pause, listen = 0.001, _listening(ranks)
    while not _is_there(ranks, key):
        if stop_requested() or _is_there(ranks, "stop"):
            raise Stopped
        listen()
        time.sleep(pause)
        pause = min(1.5 * pause, 0.1)
    return ranks.store.get(key)


def _without(ranks: Ranks, word: str) -> list[int]:
    """The ranks that have not said `word` within the time of grace."""
    missing, until = list(range(ranks.world_size)), time.monotonic() + GRACE
    while missing and time.monotonic() < until:
        missing = [rank for rank in missing if not ranks.store.check([f"{word}/{rank}"])]
        time.sleep(0.02)
    return missing


def _listening(ranks: Ranks) -> Callable[[], None]:
    """For a loop that waits: asks all ranks to stop when one has given no sign of life for long."""
    heard, silent, looked = [0] * ranks.world_size, [0.0] * ranks.world_size, time.monotonic()

    def listen() -> None:
        nonlocal looked
        waited_for = time.monotonic() - looked
        if waited_for < BEAT:
            return
        looked += waited_for
        for rank in range(ranks.world_size):
            beats = ranks.store.add(f"beats/{rank}", 0)
            # A process that was suspended has itself heard nothing meanwhile.
            silent[rank] = 0.0 if beats != heard[rank] else silent[rank] + min(waited_for, 2 * BEAT)
            heard[rank] = beats
            if silent[rank] > SILENCE:
                ranks.store.set("stop", "")

    return listen


def _is_there(ranks: Ranks, key: str) -> bool:
    try:
        return ranks.store.check([key])
    except RuntimeError as error:
        raise Stopped from error
