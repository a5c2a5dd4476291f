"""Being told to stop: SIGTERM, Ctrl-C, or whoever calls request_stop(), ends a cell at its next evaluation.

What is asked for is only noted, as a signal handler may run in the middle of anything; the loops look
before each evaluation, save what is done, and raise Stopped.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_REQUESTS: list[int] = []  # the numbers of the signals that asked


class Stopped(BaseException):
    """The run ends now, its partial sums saved. Like KeyboardInterrupt, no failure of a cell.

    code: what the process should exit with, 128 and the number of the signal that asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.code = 128 + (_REQUESTS[0] if _REQUESTS else signal.SIGTERM)


def request_stop(number: int = signal.SIGTERM, *_: Any) -> None:
    """Ask for the run to save and end soon; a signal handler may call it, from any thread."""
    _REQUESTS.append(number)


def stop_requested() -> bool:
    """Whether someone asked."""
    return bool(_REQUESTS)


@contextmanager
def stops_on_signals(also: Callable[[], object] = lambda: None) -> Iterator[None]:
    """While this holds, SIGTERM and SIGINT ask for a stop and call `also`; a second SIGINT ends at once.

    Changes nothing off the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: Any) -> None:
        if number == signal.SIGINT and number in _REQUESTS:
            raise KeyboardInterrupt
        request_stop(number)
        also()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _REQUESTS.clear()
