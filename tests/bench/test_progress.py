"""What is told while cells run: bars on a terminal, lines in the log elsewhere, listeners."""

import io
import logging
import math

import pytest

from seedsbench.bench import progress
from seedsbench.bench.progress import CellLine, Listener, SweepLine, Telling
from tests.support.cells import compose, run_cell


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: clock[0]."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_where_stderr_is_no_terminal_a_line_a_minute_says_how_far_it_is(clock, caplog):
    caplog.set_level(logging.INFO, "seedsbench")
    sweep = SweepLine([100, 100], log_progress=60.0)
    clock[0] = 50.0
    sweep.cell_done({"status": "done"}, computed=True)
    with CellLine("a cell", "key", 10, 0, 10, Telling(sweep)) as line:
        for now in (55.0, 70.0, 75.0, 129.0, 131.0):
            clock[0] = now
            line.advance(10)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "a cell: 20%; 1/2 cells done, 47 s left",
        "a cell: 50%; 1/2 cells done, 44 s left",
    ]


@pytest.mark.parametrize(("stream", "every"), [(Terminal, 1e-9), (io.StringIO, math.inf)])
def test_a_terminal_has_bars_instead_and_infinity_means_no_lines(monkeypatch, caplog, stream, every):
    caplog.set_level(logging.INFO, "seedsbench")
    monkeypatch.setattr("sys.stderr", stream())
    sweep = SweepLine([100], log_progress=every)
    with CellLine("a cell", "key", 10, 0, 10, Telling(sweep)) as line:
        line.advance(50)
    assert not caplog.records


def test_a_single_cell_has_one_bar_with_the_time_left_and_leaves_nothing_behind(monkeypatch, tmp_path):
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    cell = compose("solver=euler", "nfe=5", "samples=200", f"results_dir='{tmp_path}'", "batch_size=20")
    sweep = SweepLine([1000])
    run_cell(cell, command="", invocation="", telling=Telling(sweep))
    sweep.close()
    text = shown.getvalue()
    assert "gaussian_mixture/edm euler nfe=5 seed=0:   0%" in text
    assert " left" in text
    assert "sweep:" not in text
    assert "\n" not in text, "a line of its own would leave what comes next in some column"
    assert text.endswith("\r"), "what comes next starts in the first column"


def test_a_listener_is_told_now_and_then_of_samples_done_and_time_left(clock):
    heard = []
    listener = Listener(30.0, heard.append)
    with CellLine("a cell", "key", 1000, 200, 10, Telling(listener=listener)) as line:
        for now in (10.0, 20.0, 30.0, 40.0, 80.0):
            clock[0] = now
            line.finished(100)
    assert [(one.key, one.title, one.done, one.samples) for one in heard] == [
        ("key", "a cell", 500, 1000),
        ("key", "a cell", 700, 1000),
    ]
    assert [one.seconds_left for one in heard] == pytest.approx([500 / 300 * 30, 300 / 500 * 80])
