"""How a command ends: with an exit code and at most one line on stderr, whatever ended it."""

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from seedsbench.checks import in_one_line

PIPE_CLOSED, INTERRUPTED = 128 + 13, 128 + 2
"""Exit codes of a process that SIGPIPE or SIGINT ended."""


def exit_code(name: str, run: Callable[[], int]) -> int:
    """Run a command's body and return its exit code; name: of the command, for the line on stderr.

    A reader that closed the pipe (`| head`) is no error and says nothing; Ctrl-C and errors of the system, as
    a full disk, are one line, and so is an error of ours, with its place.
    """
    try:
        code = run()
        sys.stdout.flush()
        return code
    except SystemExit:
        with suppress(BrokenPipeError):  # of argparse's help
            sys.stdout.flush()
            raise
        code, said = PIPE_CLOSED, None
    except BaseException as error:  # GeneratorExit too, which a plug-in may raise
        code, said = _end(error)
    finally:
        atexit.register(_ignore_signals)  # the last that is registered is the first to be called
    with suppress(OSError, ValueError):  # so that Python's own flush at exit finds nothing to complain about
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if said is not None:
        with suppress(OSError):
            print(f"{name}: {said}", file=sys.stderr)
    return code


def _end(error: BaseException) -> tuple[int, str | None]:
    """The exit code that an error means, and what is said of it."""
    if was_interrupted(error):
        return INTERRUPTED, "interrupted"
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED, None
    if isinstance(error, OSError):
        return 1, in_one_line(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    ours = f" (an error of ours, at {place})" if isinstance(error, Exception) else ""
    return 1, f"{in_one_line(error)}{ours}"


def was_interrupted(error: BaseException | None) -> bool:
    """Whether it began with Ctrl-C: a library whose clean-up then fails raises something else instead."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error is not None
    return was_interrupted(error.__cause__ or error.__context__)


def _ignore_signals() -> None:
    """All is said and done: Ctrl-C while Python ends would add a traceback, and change the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
