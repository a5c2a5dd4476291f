"""What is told while cells run: bars on a terminal, else a line in the log now and then, and the trackers.

A sweep of several cells has two bars, one of the sweep above one of the cell; a single cell has its own.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from seedsbench.bench.machine import duration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellProgress:
    """How far a cell is. key: its run_key. done: samples that are scored, of `samples`.

    seconds_left: until its samples are drawn; None while no speed is known.
    """

    key: str
    title: str
    done: int
    samples: int
    seconds_left: float | None


@dataclass(frozen=True)
class Listener:
    """Who is told of a cell after `every` seconds, and then every so many; never of a shorter one."""

    every: float
    tell: Callable[[CellProgress], None]


class SweepLine:
    """Cells done of how many, and when the rest will be, from the evaluations made so far.

    weights: evaluations each cell of the sweep may cost, in the order in which they run. Cells that were
    found done count as done, but not towards the speed. log_progress: seconds between the lines of the log,
    where stderr is no terminal; infinity for none.
    """

    def __init__(self, weights: Sequence[int], log_progress: float = math.inf) -> None:
        self._weights = weights
        self._done, self._failed = 0, 0
        self._seconds, self._computed = 0.0, 0
        self._started, self._spent, self._shown = time.perf_counter(), 0, 0.0
        self._log_every = math.inf if sys.stderr.isatty() else log_progress
        self._logged = self._started
        self.shown = len(weights) > 1
        self._bar = tqdm(
            total=len(weights), desc="sweep", bar_format="{desc}: {n_fmt}/{total_fmt} cells{postfix}",
            position=0, leave=False, disable=None if self.shown else True,
        )  # fmt: skip

    def advance(self, evaluations: int, title: str = "", share: float = 0.0) -> None:
        """Told of evaluations of the cell that runs, so that the time left is known before it ends.

        title, share: of that cell, for the log; how much of it is done, from 0 to 1.
        """
        self._spent += evaluations
        self._show()
        if (now := time.perf_counter()) - self._logged >= self._log_every:
            self._logged = now
            left = self.remaining()
            ending = "" if left is None else f", {duration(left)} left"
            log.info("%s: %.0f%%; %s%s", title, 100 * share, self._cells_told(), ending)

    def cell_done(self, row: dict[str, Any], computed: bool) -> None:
        """A cell has its row; computed says whether it was made now or found done."""
        now = time.perf_counter()
        if computed:
            self._seconds += now - self._started
            self._computed += self._weights[min(self._done, len(self._weights) - 1)]
        self._done += 1
        self._failed += row["status"] == "failed"
        self._started, self._spent = now, 0
        self._bar.update(1)
        self._show()

    def remaining(self) -> float | None:
        """Seconds until the last cell is done; None while no speed is known."""
        spent = self._computed + self._spent
        taken = self._seconds + time.perf_counter() - self._started
        if not spent:
            return None
        left = sum(self._weights[self._done :]) - self._spent
        return max(left, 0) * taken / spent

    def close(self) -> None:
        """Take the line away."""
        self._bar.close()

    def _cells_told(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done}/{len(self._weights)} cells done{failed}"

    def _show(self) -> None:
        left = self.remaining()
        parts = [] if left is None else [f"{duration(left)} left"]
        parts += [f"{self._failed} failed"] if self._failed else []
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        if time.perf_counter() - self._shown >= 0.2:
            self._shown = time.perf_counter()
            self._bar.refresh()


@dataclass(frozen=True)
class Telling:
    """Who is told while a cell runs: the line of its sweep, and a listener."""

    sweep: SweepLine | None = None
    listener: Listener | None = None


class CellLine:
    """The bar of the cell that runs: samples done of how many, and the time left.

    key: its run_key. done: samples that an earlier run has left. nfe: evaluations of each.
    """

    def __init__(
        self, title: str, key: str, samples: int, done: int, nfe: int, telling: Telling | None = None
    ) -> None:
        self._title, self._key, self._samples, self._nfe = title, key, samples, nfe
        self._done = self._at_first = done
        self._spent, self._told = 0, time.perf_counter()
        self._started = self._told
        self._telling = telling or Telling()
        sweep = self._telling.sweep
        self._bar = tqdm(
            total=samples * nfe, initial=done * nfe, desc=title, unit="NFE", unit_scale=True, leave=False,
            disable=None, position=1 if sweep is not None and sweep.shown else 0,
            bar_format="{desc}: {percentage:3.0f}%{postfix}, {rate_fmt}, {remaining} left",
        )  # fmt: skip
        self.finished(0)

    def advance(self, evaluations: int) -> None:
        """Evaluations made since the last call."""
        self._spent += evaluations
        self._bar.update(evaluations)
        if self._telling.sweep is not None:
            share = self._at_first / self._samples + self._spent / (self._samples * self._nfe)
            self._telling.sweep.advance(evaluations, self._title, min(share, 1.0))

    def finished(self, samples: int) -> None:
        """Samples that came out, and were scored, since the last call."""
        self._done += samples
        self._bar.set_postfix_str(f"{self._done}/{self._samples} samples", refresh=False)
        listener, now = self._telling.listener, time.perf_counter()
        if listener is not None and now - self._told >= listener.every:
            self._told = now
            listener.tell(self._progress(now))

    def _progress(self, now: float) -> CellProgress:
        new = self._done - self._at_first
        left = (self._samples - self._done) * (now - self._started) / new if new else None
        return CellProgress(self._key, self._title, self._done, self._samples, left)

    def __enter__(self) -> "CellLine":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
