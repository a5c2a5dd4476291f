"""The command line: check everything, hand the sweep to Hydra, then write the report.

    seedsbench -m solver=seeds1,seeds3,heun nfe=10,20,50

Exit codes: 0 all cells done or skipped, 1 some cell failed, 2 the command itself was wrong (one line
says what and what would work; nothing has been computed), 143 stopped by SIGTERM (the same command goes on).
"""

import copy
import os
import sys
import traceback
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import hydra

import seedsbench
from seedsbench.cli.check import Checked, Usage, parse, preflight, with_experiment
from seedsbench.cli.job import SWEEP, Job
from seedsbench.cli.launchers import HERE, LOST, told
from seedsbench.registry import conf_dir
from seedsbench.tracking.base import Tracker, harmless

STUDY = "SEEDSBENCH_STUDY"
INVOCATION = "SEEDSBENCH_INVOCATION"
STOPPED = 128 + 15
"""The exit code after SIGTERM, as of a process that did not handle it."""


def main(argv: list[str] | None = None) -> None:
    """Entry point of `seedsbench`; exits the process. Under torchrun rank 0 does it all, the others help."""
    from seedsbench.bench.stopping import stops_on_sigterm

    arguments = sys.argv[1:] if argv is None else argv
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _together(arguments)
        return
    with stops_on_sigterm():
        _main(arguments)


def _together(arguments: list[str]) -> None:
    """This process as one of the ranks that torchrun started."""
    from seedsbench.bench.ranks import end, joined
    from seedsbench.bench.run import follow
    from seedsbench.bench.stopping import Stopped, stops_on_sigterm

    ranks = joined()
    with stops_on_sigterm():
        if ranks.rank:
            with suppress(Usage):  # rank 0 says it
                _importable(parse(arguments).config_dirs)
            try:
                follow(ranks)
            except Stopped:
                raise SystemExit(STOPPED) from None
            return
        code: object = 0
        try:
            _main(arguments)
        except SystemExit as ended:
            code = ended.code
        if code != STOPPED:
            end(ranks)
        raise SystemExit(code)


def _main(arguments: list[str]) -> None:
    now = datetime.now()
    os.environ.setdefault(STUDY, now.strftime("%Y-%m-%d_%H-%M-%S"))
    os.environ.setdefault(INVOCATION, f"{now.isoformat()}-{os.getpid()}")
    if "--version" in arguments:
        print(f"seedsbench {seedsbench.__version__}")
        return
    _copy_configurations_lightly()
    try:
        options = parse(arguments)
        modules = _importable(options.config_dirs)
        options = with_experiment(options)
        sys.argv = ["seedsbench", *options.flags, *options.overrides]
        if options.informational:
            _hydra(modules)
            return
        checked = preflight(options)
    except Usage as error:
        print(f"seedsbench: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if checked.plan:
        print(checked.plan)
        return
    from seedsbench.bench.stopping import Stopped

    try:
        code = _sweep(checked, modules)
    except Stopped:
        print("seedsbench: stopped; the same command goes on from what is done", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    raise SystemExit(_finish(checked) or code)


def _copy_configurations_lightly() -> None:
    """Hydra copies what all plugins have to give the copy other sources, for --help a hundred times.

    A shallow copy takes other sources just as well, and its own stay the original's.
    """
    from hydra._internal.config_repository import ConfigRepository

    ConfigRepository.__deepcopy__ = lambda self, memo: copy.copy(self)  # type: ignore[attr-defined]


def _compose_each_cell_once() -> None:
    """Hydra's own sweeper composes all cells beforehand, to see that it can: preflight has seen to that."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    BasicSweeper.validate_batch_is_legal = lambda self, batch: None


def _sweep(checked: Checked, modules: tuple[str, ...]) -> int:
    """Run the cells; 1 if a launcher lost a worker: its row is then missing, and maybe those of others."""
    _compose_each_cell_once()
    if checked.launcher == HERE:
        from seedsbench.bench.progress import SweepLine

        SWEEP.append(SweepLine(checked.weights))
        try:
            _hydra(modules)
        finally:
            SWEEP.pop().close()
        return 0
    name = checked.study.name.replace("'", r"\'")
    sys.argv.append(f"study='{name}'")  # workers may lack our environment
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what the launcher raises
    try:
        with told(checked.launcher, len(checked.weights), checked.study):
            _hydra(modules)
    except Exception as error:
        if type(error).__name__ not in LOST:
            traceback.print_exc()
        print("seedsbench: a worker was lost; the same command fills in what is missing", file=sys.stderr)
        return 1
    return 0


def _importable(config_dirs: list[str]) -> tuple[str, ...]:
    """Let YAMLs of --config-dir name modules beside them, or in the current directory; returns them."""
    folders = tuple(str(Path(folder).resolve()) for folder in (*config_dirs, "."))
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    known = [p for p in os.environ.get("SEEDSBENCH_CONF", "").split(os.pathsep) if p]
    os.environ["SEEDSBENCH_CONF"] = os.pathsep.join(dict.fromkeys([*known, *folders[:-1]]))
    return folders


def _hydra(modules: tuple[str, ...]) -> None:
    """Run the command's cells through Hydra, here or wherever its launcher takes them."""
    job = Job(os.environ[INVOCATION], str(Path.cwd()), modules, os.environ["SEEDSBENCH_CONF"])
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()


def _finish(checked: Checked) -> int:
    """Write the report of the study and say where it is; 1 if a cell of this invocation failed."""
    from seedsbench.registry import build
    from seedsbench.report.main import finish_sweep

    code = finish_sweep(checked.study, os.environ[INVOCATION], published=checked.published)
    tracker: Tracker = build(checked.tracker)
    harmless("tracking the study", partial(tracker.finish_study, checked.study))
    return code


if __name__ == "__main__":
    main()
