"""The command line: check everything, run the cells, then write the report.

    seedsbench -m solver=seeds1,seeds3,heun nfe=10,20,50

Exit codes: 0 all cells done or skipped, 1 some cell failed or none is done, 2 the command itself was wrong
(one line says what and what would work; nothing has been computed); where a signal stopped it, 128 and its
number: 130 Ctrl-C, 141 a closed pipe, 143 SIGTERM (the same command goes on).
"""

import io
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import seedsbench
from seedsbench.checks import in_one_line
from seedsbench.cli.command import Command, Usage, parse, use_config_dirs, with_experiment
from seedsbench.cli.help import help_text
from seedsbench.files.atomic import point_to
from seedsbench.files.console import PIPE_CLOSED, exit_code, was_interrupted
from seedsbench.registry import build, conf_dir

if TYPE_CHECKING:
    from seedsbench.bench.cell import Cell
    from seedsbench.cli.compose import Composed

LATEST = "latest"
"""What points to the newest study of a results folder."""
DEBUG = "debug=true"
"""The override with which errors are raised, with their tracebacks."""


def main(argv: list[str] | None = None) -> None:
    """Entry point of `seedsbench`; exits the process. Under torchrun rank 0 does it all, the others help."""
    arguments = sys.argv[1:] if argv is None else argv
    if DEBUG in arguments:
        raise SystemExit(_main(arguments))
    raise SystemExit(exit_code("seedsbench", partial(_main, arguments)))


def _main(arguments: list[str]) -> int:
    try:
        command = parse(arguments)
        if command.version:
            print(f"seedsbench {seedsbench.__version__}")
            return 0
        use_config_dirs(command)
        if command.help:
            print(help_text(command.overrides))
            return 0
        if command.informational:
            _answer()
            return 0
        return _together(command) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else _run(command)
    except Usage as error:
        if was_interrupted(error):
            raise
        if os.environ.get("RANK", "0") == "0":
            print(f"seedsbench: {error}", file=sys.stderr)
        return 2


def _answer() -> None:
    """Have Hydra answer --cfg, --info and the like, from the command line as it is."""
    import hydra

    from seedsbench.cli.compose import register

    register()
    said = io.StringIO()  # Hydra takes a closed pipe for an error of its own
    try:
        with redirect_stdout(said):
            answer = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
            answer(lambda cfg: None)()
    finally:
        print(said.getvalue(), end="")


def _together(command: Command) -> int:
    """This process as one of the ranks that torchrun started."""
    from seedsbench.bench.ranks import end, joined
    from seedsbench.bench.run import follow
    from seedsbench.bench.stopping import Stopped, stops_on_signals

    ranks = joined()
    if ranks.rank:
        try:
            with stops_on_signals():
                follow(ranks)
        except Stopped as stopped:
            return stopped.code
        return 0
    try:
        code = _run(command)
    except Usage:
        end(ranks)
        raise
    if code < 128:
        end(ranks)
    return code


def _run(command: Command) -> int:
    """Check the command, run its cells and write the report; the exit code. Raises Usage."""
    return run_command(command).code


@dataclass(frozen=True)
class Ran:
    """What became of a command: its exit code, study, and keys of rows (none of plan and dry_run)."""

    code: int
    study: Path
    keys: list[str]


def run_command(command: Command) -> Ran:
    """Check a command, run its cells and write the report. Raises Usage: nothing has been computed then."""
    from seedsbench.bench.stopping import Stopped, stops_on_signals
    from seedsbench.cli.sweep import WorkerLost, run

    now = datetime.now()
    invocation = f"{now.isoformat()}-{os.getpid()}"
    composed, command, text = _checked(command, study=now.strftime("%Y-%m-%d_%H-%M-%S"))
    study = composed[0].cell.study_folder
    if text is not None:
        print(text)
        return Ran(0, study, [])
    point_to(study, LATEST)
    keys, lost = [], 0
    try:
        with stops_on_signals():
            keys = run(composed, command, invocation)
    except (WorkerLost, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        said = in_one_line(error).removeprefix("WorkerLost: ")
        print(f"seedsbench: {said}; the same command fills in what is missing", file=sys.stderr)
        lost = 1
    except Stopped as stopped:
        if stopped.code != PIPE_CLOSED:
            print("seedsbench: stopped; the same command goes on from what is done", file=sys.stderr)
        return Ran(stopped.code, study, [])
    return Ran(_finish(composed[0].cell, invocation, keys) or lost, study, keys)


def _checked(command: Command, study: str) -> tuple[list["Composed"], Command, str | None]:
    """The cells of a command, checked; the command, its experiment spelt out; the text of plan and dry_run.

    Raises Usage for whatever is wrong with a command: nothing has been computed then.
    """
    from seedsbench.cli.check import check
    from seedsbench.cli.compose import compositions
    from seedsbench.cli.dry_run import bring

    try:
        command = with_experiment(command)
        composed = compositions(command, study)
        if (text := check(composed, command)) is None and not composed[0].remote:
            bring([one.cell for one in composed])
        return composed, command, text
    except Usage:
        raise
    except ValueError as error:  # ours are written to be read
        raise Usage(in_one_line(error)) from error
    except Exception as error:
        if DEBUG in command.overrides:
            raise
        raise Usage(f"{in_one_line(error)} ({DEBUG} shows where)") from error


def _finish(cell: "Cell", invocation: str, keys: list[str]) -> int:
    """Write the report of the study and say where it is.

    1 if a cell of this invocation failed, if none of it is done, or if rows of it, given by keys, are gone.
    """
    from seedsbench.report.main import finish_sweep
    from seedsbench.tracking.base import Tracker, harmless

    code = finish_sweep(cell.study_folder, invocation, keys, published=cell.published)
    tracker: Tracker = build(cell.tracker)
    harmless("tracking the study", partial(tracker.finish_study, cell.study_folder))
    return code


if __name__ == "__main__":
    main()
