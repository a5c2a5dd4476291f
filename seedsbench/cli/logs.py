"""Where messages go: to the terminal, without tearing a progress bar, and to the study's own file."""

import logging
import sys
from pathlib import Path

from tqdm import tqdm

LOG_FILE = "seedsbench.log"


class ConsoleHandler(logging.StreamHandler):
    """Writes records above any active tqdm bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=self.stream)
        except Exception:
            self.handleError(record)


def log_to(study: Path) -> None:
    """Send seedsbench's messages to stdout and `<study>/seedsbench.log`, in place of an earlier study's."""
    log = logging.getLogger("seedsbench")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    for handler in (ConsoleHandler(sys.stdout), logging.FileHandler(study / LOG_FILE, delay=True)):
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
