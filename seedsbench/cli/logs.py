"""Where messages go: to the terminal, without tearing a progress bar, and to the study's own file."""

import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from seedsbench.bench.stopping import request_stop
from seedsbench.files.atomic import set_aside

LOG_FILE = "seedsbench.log"


class ConsoleHandler(logging.StreamHandler):
    """Writes records above any active tqdm bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(record.getMessage(), file=self.stream)
            self.stream.flush()  # so that a reader who has gone is noticed now
        except BrokenPipeError:  # as of `| head`: nobody reads on
            request_stop(signal.SIGPIPE)
        except (OSError, ValueError):
            pass


class StudyHandler(logging.FileHandler):
    """Writes records, and the tracebacks of errors, as long as there is room on the disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def log_to(study: Path) -> None:
    """Send seedsbench's messages to stdout, and with tracebacks to `<study>/seedsbench.log`.

    An earlier study's log gets no more. What is no file of the study's own in its place is set aside.
    """
    log = logging.getLogger("seedsbench")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    place = study / LOG_FILE
    if place.is_symlink() or (place.exists() and not place.is_file()):  # a pipe would be waited for
        with suppress(OSError):
            set_aside(place)
    console, file = ConsoleHandler(sys.stdout), StudyHandler(place, delay=True)
    console.setLevel(logging.INFO)
    file.setFormatter(logging.Formatter("%(message)s"))
    for handler in (console, file):
        log.addHandler(handler)
    log.setLevel(logging.DEBUG)
