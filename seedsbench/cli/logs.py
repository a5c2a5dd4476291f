"""Console logging that does not tear a progress bar."""

import logging

from tqdm import tqdm


class ConsoleHandler(logging.StreamHandler):
    """Writes records above any active tqdm bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=self.stream)
        except Exception:
            self.handleError(record)
