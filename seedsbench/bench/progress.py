"""Two lines while a sweep runs: one for the sweep, one for the cell. Nothing where stderr is no terminal."""

import time
from typing import Any

from tqdm import tqdm

from seedsbench.bench.machine import duration


class SweepLine:
    """Cells done of how many, and when the rest will be, from the evaluations made so far.

    weights: evaluations each cell of the sweep may cost, in the order in which they run. Cells that were
    found done count as done, but not towards the speed.
    """

    def __init__(self, weights: list[int]) -> None:
        self._weights = weights
        self._done, self._failed = 0, 0
        self._seconds, self._computed = 0.0, 0
        self._started, self._spent, self._shown = time.perf_counter(), 0, 0.0
        self._bar = tqdm(
            total=len(weights), desc="sweep", bar_format="{desc}: {n_fmt}/{total_fmt} cells{postfix}",
            position=0, leave=False, disable=None if len(weights) > 1 else True,
        )  # fmt: skip

    def advance(self, evaluations: int) -> None:
        """Told of evaluations of the cell that runs, so that the time left is known before it ends."""
        self._spent += evaluations
        self._show()

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

    def _show(self) -> None:
        left = self.remaining()
        parts = [] if left is None else [f"{duration(left)} left"]
        parts += [f"{self._failed} failed"] if self._failed else []
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        if time.perf_counter() - self._shown >= 0.2:
            self._shown = time.perf_counter()
            self._bar.refresh()


class CellLine:
    """Samples done of how many, and evaluations a second, of the cell that runs.

    done: samples that an earlier run has left. nfe: evaluations of each.
    """

    def __init__(self, title: str, samples: int, done: int, nfe: int, sweep: SweepLine | None) -> None:
        self._samples, self._sweep, self._finished = samples, sweep, done
        self._bar = tqdm(
            total=samples * nfe, initial=done * nfe, desc=title, unit="NFE", unit_scale=True, leave=False,
            disable=None, position=1 if sweep is not None else 0,
            bar_format="{desc}: {percentage:3.0f}%{postfix}, {rate_fmt}",
        )  # fmt: skip
        self.finished(0)

    def advance(self, evaluations: int) -> None:
        """Evaluations made since the last call."""
        self._bar.update(evaluations)
        if self._sweep is not None:
            self._sweep.advance(evaluations)

    def finished(self, samples: int) -> None:
        """Samples that came out since the last call."""
        self._finished += samples
        self._bar.set_postfix_str(f"{self._finished}/{self._samples} samples", refresh=False)

    def __enter__(self) -> "CellLine":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
