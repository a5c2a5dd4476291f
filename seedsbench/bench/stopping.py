"""Being told to stop: SIGTERM, or whoever calls request_stop(), ends a cell between two solver steps.

What is asked for is only noted, as a signal handler may run in the middle of anything; the loops look
between steps, save what is done, and raise Stopped.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_REQUESTED = threading.Event()


class Stopped(BaseException):
    """The run ends now, its partial sums saved. Like KeyboardInterrupt, no failure of a cell."""


def request_stop(*_: Any) -> None:
    """Ask for the run to save and end soon; a signal handler may call it, from any thread."""
    _REQUESTED.set()


def stop_requested() -> bool:
    """Whether someone asked."""
    return _REQUESTED.is_set()


@contextmanager
def stops_on_sigterm(also: Callable[[], object] = lambda: None) -> Iterator[None]:
    """While this holds, SIGTERM asks for a stop and calls `also`. Changes nothing off the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(*_: Any) -> None:
        request_stop()
        also()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _REQUESTED.clear()
