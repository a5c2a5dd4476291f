"""The processes that share a cell, as torchrun or srun started them; each has a number, its rank.

Rank 0 reads the command, runs Hydra and writes rows; the others are sent each cell by it, draw their share,
and hand it over in one gather. A rank that is killed breaks its connections: those that wait for it then
stop, and whoever started them ends the rest.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

import torch.distributed as dist

from seedsbench.bench.stopping import Stopped

PATIENCE = timedelta(days=30)
"""How long a rank waits for another that lives."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the cell. local_rank: among those of its machine; None for one alone."""

    rank: int = 0
    world_size: int = 1
    local_rank: int | None = None


ALONE = Ranks()


@lru_cache(maxsize=1)
def joined() -> Ranks:
    """The ranks of this process, from the environment that torchrun sets; ALONE without it."""
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(name in os.environ for name in needed) or int(os.environ["WORLD_SIZE"]) < 2:
        return ALONE
    # Sums are merged on the CPU, whatever device they are of: gloo serves all, two ranks on one GPU too.
    dist.init_process_group("gloo", timeout=PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", dist.get_rank())))


def broadcast(message: Any = None) -> Any:
    """Rank 0's message, on every rank. Raises Stopped if a rank is gone."""
    box = [message]
    with _lost_is_stopped():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(ranks: Ranks, part: Any) -> list[Any]:
    """What every rank has, by rank, on rank 0; nothing on the others. Raises Stopped if a rank is gone."""
    if ranks.world_size == 1:
        return [part]
    parts = [None] * ranks.world_size if ranks.rank == 0 else None
    with _lost_is_stopped():
        dist.gather_object(part, parts, dst=0)
    return parts or []


def end(ranks: Ranks) -> None:
    """Rank 0: no cell follows. Returns when the others, if there are any, have heard it or are gone."""
    if ranks.world_size == 1:
        return
    with suppress(Stopped):
        broadcast()
        gathered(ranks, None)


def cells(ranks: Ranks) -> Iterator[Any]:
    """Other ranks: the cells that rank 0 broadcasts, until the end."""
    while (cell := broadcast()) is not None:
        yield cell
    with suppress(Stopped):
        gathered(ranks, None)


@contextmanager
def _lost_is_stopped() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's, for a closed connection
        raise Stopped from error
