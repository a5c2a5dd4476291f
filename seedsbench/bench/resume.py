"""Sums of a cell that is not finished, kept under `<study>/partial/<run_key>/` so that it can go on.

Each rank writes a file of its own now and then, whole or not at all. The next run of the cell, whatever its
number of ranks, begins by adding them up into one. A file says which blocks of samples it is of; no block
is ever counted twice, and a file that cannot be used costs only time. Arrays only: nothing in it is run.
"""

import hashlib
import io
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from seedsbench.bench.rows.store import ResultStore
from seedsbench.bench.scoring import Scorer
from seedsbench.files.atomic import own_folder, set_aside, write_atomic
from seedsbench.metrics.base import State

log = logging.getLogger(__name__)

FORMAT = 2
EARLIER = "earlier.npz"
"""The sums of earlier runs; those of each rank of the latest are in `rank-<i>.npz`."""
MUCH_NEW = 0.02
"""When this share of the samples is new, they are saved before the interval asked for is over."""
EARLY_AFTER = 1 / 30
"""Such an early saving waits for this share of the interval."""
MAX_COST = 0.02
"""The share of the time that saving may take."""


def packed(state: Mapping[str, np.ndarray], of: Mapping[str, Any]) -> bytes:
    """Arrays and what they are of as the bytes of an .npz file, which ends with the sha256 of all before."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {**state, "about": np.array(json.dumps(of))}
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    return data + hashlib.sha256(data).digest()


def unpacked(whole: bytes) -> tuple[State, dict[str, Any]]:
    """What packed() was given; ValueError for what it has not made, or not so."""
    data, written = whole[:-32], whole[-32:]
    if hashlib.sha256(data).digest() != written:
        raise ValueError("not as it was written")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        state = dict(file)
    return state, json.loads(str(state.pop("about")))


def about(run_key: str, samples: int, block: int, invocation: str) -> dict[str, Any]:
    """What a file of sums is of: files that say anything else are not used."""
    return {"format": FORMAT, "run_key": run_key, "samples": samples, "block": block, "by": invocation}


class Saver:
    """Writes the sums of one rank's share, every so many seconds, or sooner if much is new.

    every: seconds; 0 saves at each chance, inf never. samples: of the share.
    """

    def __init__(
        self, store: ResultStore, of: Mapping[str, Any], rank: int, every: float, samples: int
    ) -> None:
        self._path = _folder(store, of["run_key"]) / f"rank-{rank}.npz"
        self._of, self._every, self._samples = of, every, samples
        self._n, self._took, self._last = 0, 0.0, time.monotonic()

    def offer(self, scorer: Scorer) -> None:
        """Save if it is time to."""
        waited, new = time.monotonic() - self._last, scorer.n_done - self._n
        early = new >= MUCH_NEW * self._samples and waited >= EARLY_AFTER * self._every
        affordable = not self._every or self._took <= MAX_COST * waited
        if new and affordable and (early or waited >= self._every):
            self.save(scorer)

    def save(self, scorer: Scorer) -> None:
        """Save now what is not saved yet."""
        if scorer.n_done > self._n and self._every < math.inf:
            started = time.monotonic()
            _written(self._path, packed(scorer.state(), self._of))
            self._n, self._last = scorer.n_done, time.monotonic()
            self._took = self._last - started


def restore(store: ResultStore, of: Mapping[str, Any], empty: Callable[[], Scorer], force: bool) -> Scorer:
    """What was saved of a cell, left as one file. empty: makes a scorer of the cell.

    Between unnamed studies the sums of a sibling serve too. force: only sums of this very invocation.
    What cannot be used is ignored, with one warning.
    """
    earlier, latest, used, ignored = empty(), empty(), 0, []
    for path in _files(store, of["run_key"]):
        try:
            if not path.is_file() or path.stat().st_size > earlier.max_bytes:
                raise ValueError("no file of sums")
            state, found = unpacked(path.read_bytes())
            for key in of.keys() - {"by"}:
                if found.get(key) != of[key]:
                    raise ValueError(f"its {key} is {found.get(key)}, not {of[key]}")
            if force and found.get("by") != of["by"]:
                continue
            if path.name == EARLIER:
                earlier.add(state)
            elif not earlier.overlaps(state):  # else they were added already, by a run that was cut off then
                latest.add(state, alongside=True)
            used += 1
        except Exception as error:  # whatever is wrong with it, the cell can do without
            ignored.append(f"{path} ({type(error).__name__}: {' '.join(str(error).split())})")
    if ignored:
        log.warning("partial sums that cannot be used, ignored: %s", ", ".join(ignored))
    folder = _folder(store, of["run_key"])
    if used:
        earlier.add(latest.state())
        if not _written(folder / EARLIER, packed(earlier.state(), of)):
            return earlier
    for path in folder.glob("rank-*.npz" if used else "*.npz"):
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            log.warning("%s is no file of sums: kept as %s", path, set_aside(path).name)
    return earlier


def forget(store: ResultStore, run_key: str) -> None:
    """Delete what was saved of a cell, here and where restore() may have found it."""
    for folder in store.shared(f"partial/{run_key}"):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
        else:  # rmtree would wait for a pipe
            with suppress(OSError):
                folder.unlink()
        with suppress(OSError):  # not empty: it holds the sums of other cells
            folder.parent.rmdir()


def _written(path: Path, data: bytes) -> bool:
    """Write sums, if it can be done: a full disk, or another job that ends the same cell, costs only time."""
    try:
        own_folder(path.parent)
        write_atomic(path, data)
    except OSError as error:
        log.warning("%s cannot be saved (%s): a run that is cut off now begins further back", path, error)
        return False
    return True


def _folder(store: ResultStore, run_key: str) -> Path:
    return store.study / "partial" / run_key


def _files(store: ResultStore, run_key: str) -> list[Path]:
    """The files of the first folder that has any, the one of earlier sums first (its name sorts so)."""
    found = (sorted(folder.glob("*.npz")) for folder in store.shared(f"partial/{run_key}"))
    return next(filter(None, found), [])
