"""The command line: check everything, run the cells, then write the report.

    seedsbench -m solver=seeds1,seeds3,heun nfe=10,20,50

Exit codes: 0 all cells done or skipped, 1 some cell failed, 2 the command itself was wrong (one line
says what and what would work; nothing has been computed), 143 stopped by SIGTERM (the same command goes on).
"""

import os
import sys
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import seedsbench
from seedsbench.cli.command import Command, Usage, parse, use_config_dirs, with_experiment
from seedsbench.registry import build, conf_dir

if TYPE_CHECKING:
    from seedsbench.bench.cell import Cell

STOPPED = 128 + 15
"""The exit code after SIGTERM, as of a process that did not handle it."""


def main(argv: list[str] | None = None) -> None:
    """Entry point of `seedsbench`; exits the process. Under torchrun rank 0 does it all, the others help."""
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        if command.version:
            print(f"seedsbench {seedsbench.__version__}")
            return
        use_config_dirs(command)
        if command.informational:
            _answer()
            return
        code = _together(command) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else _run(command)
    except Usage as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"seedsbench: {error}", file=sys.stderr)
        code = 2
    raise SystemExit(code)


def _answer() -> None:
    """Have Hydra answer --help, --cfg and the like, from the command line as it is."""
    import hydra

    from seedsbench.cli.compose import register

    register()
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(lambda cfg: None)()


def _together(command: Command) -> int:
    """This process as one of the ranks that torchrun started."""
    from seedsbench.bench.ranks import end, joined
    from seedsbench.bench.run import follow
    from seedsbench.bench.stopping import Stopped, stops_on_sigterm

    ranks = joined()
    if ranks.rank:
        with stops_on_sigterm():
            try:
                follow(ranks)
            except Stopped:
                return STOPPED
            return 0
    try:
        code = _run(command)
    except Usage:
        end(ranks)
        raise
    if code != STOPPED:
        end(ranks)
    return code


def _run(command: Command) -> int:
    """Check the command, run its cells and write the report; the exit code. Raises Usage."""
    from seedsbench.bench.stopping import Stopped, stops_on_sigterm
    from seedsbench.cli.check import check
    from seedsbench.cli.compose import compositions
    from seedsbench.cli.sweep import WorkerLost, run

    now = datetime.now()
    invocation = f"{now.isoformat()}-{os.getpid()}"
    with stops_on_sigterm():
        command = with_experiment(command)
        composed = compositions(command, study=now.strftime("%Y-%m-%d_%H-%M-%S"))
        if (text := check(composed, command)) is not None:
            print(text)
            return 0
        lost = 0
        try:
            run(composed, command, invocation)
        except WorkerLost as error:
            print(f"seedsbench: {error}; the same command fills in what is missing", file=sys.stderr)
            lost = 1
        except Stopped:
            print("seedsbench: stopped; the same command goes on from what is done", file=sys.stderr)
            return STOPPED
        return _finish(composed[0].cell, invocation) or lost


def _finish(cell: "Cell", invocation: str) -> int:
    """Write the report of the study and say where it is; 1 if a cell of this invocation failed."""
    from seedsbench.report.main import finish_sweep
    from seedsbench.tracking.base import Tracker, harmless

    code = finish_sweep(cell.study_folder, invocation, published=cell.published)
    tracker: Tracker = build(cell.tracker)
    harmless("tracking the study", partial(tracker.finish_study, cell.study_folder))
    return code


if __name__ == "__main__":
    main()
