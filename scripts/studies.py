"""Cells of a command run as `seedsbench` runs them, for scripts that go on with their rows."""

import os
from datetime import datetime

from seedsbench.bench.stopping import stops_on_signals
from seedsbench.cli.check import check
from seedsbench.cli.command import parse, with_experiment
from seedsbench.cli.compose import compositions
from seedsbench.cli.sweep import run
from seedsbench.files.rows import Row, read_row


def rows_of(words: list[str], study: str) -> list[Row]:
    """Rows of a command, in its order; those that are not done yet are run. No report is written.

    words: those after `seedsbench`. study: where they name none. With plan=true the plan is printed, and
    there are no rows. Raises Usage for a wrong command, and Stopped when told to stop: what is done is kept.
    """
    command = with_experiment(parse(words))
    composed = compositions(command, study)
    if (text := check(composed, command)) is not None:
        print(text)
        return []
    with stops_on_signals():
        keys = run(composed, command, f"{datetime.now().isoformat()}-{os.getpid()}")
    rows = composed[0].cell.study_folder / "rows"
    return [read_row(rows / f"{key}.json") for key in keys]
