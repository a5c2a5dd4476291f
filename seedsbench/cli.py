"""The command line: check everything, hand the sweep to Hydra, then write the report.

    seedsbench -m solver=seeds1,seeds3,heun nfe=10,20,50

Exit codes: 0 all cells done or skipped, 1 some cell failed, 2 the command itself was wrong (one line
says what and what would work; nothing has been computed), 143 stopped by SIGTERM (the same command goes on).
"""

import os
import shlex
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from omegaconf import DictConfig, OmegaConf

import seedsbench
from seedsbench.preflight import Checked, Usage, parse, preflight, with_experiment
from seedsbench.registry import conf_dir
from seedsbench.tracking import Tracker, harmless

if TYPE_CHECKING:
    from seedsbench.bench.progress import SweepLine

STUDY = "SEEDSBENCH_STUDY"
INVOCATION = "SEEDSBENCH_INVOCATION"
STOPPED = 128 + 15
"""The exit code after SIGTERM, as of a process that did not handle it."""
_SWEEP: "list[SweepLine]" = []
"""The line of the sweep this process runs; a launcher's workers have none."""


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
    from seedsbench.bench.follow import follow
    from seedsbench.bench.ranks import joined, say_stopped, tell
    from seedsbench.bench.stopping import Stopped, stops_on_sigterm

    ranks = joined()
    with stops_on_sigterm(partial(say_stopped, ranks)):
        if ranks.rank == 0:
            try:
                _main(arguments)
            finally:
                tell(ranks, lambda: None)
            return
        try:
            _importable(parse(arguments).config_dirs)
            follow(ranks)
        except Usage:  # rank 0 says it
            return
        except Stopped:
            raise SystemExit(STOPPED) from None


def _main(arguments: list[str]) -> None:
    now = datetime.now()
    os.environ.setdefault(STUDY, now.strftime("%Y-%m-%d_%H-%M-%S"))
    os.environ.setdefault(INVOCATION, f"{now.isoformat()}-{os.getpid()}")
    if "--version" in arguments:
        print(f"seedsbench {seedsbench.__version__}")
        return
    try:
        options = parse(arguments)
        _importable(options.config_dirs)
        options = with_experiment(options)
        sys.argv = ["seedsbench", *options.flags, *options.overrides]
        if options.informational:
            _hydra()
            return
        checked = preflight(options)
    except Usage as error:
        print(f"seedsbench: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if checked.plan:
        print(checked.plan)
        return
    _run(checked)


def _run(checked: Checked) -> NoReturn:
    from seedsbench.bench.progress import SweepLine
    from seedsbench.bench.stopping import Stopped

    _SWEEP.append(SweepLine(checked.weights))
    _compose_each_cell_once()
    try:
        _hydra()
    except Stopped:
        print("seedsbench: stopped; the same command goes on from what is done", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    finally:
        _SWEEP.pop().close()
    raise SystemExit(_finish(checked))


def _compose_each_cell_once() -> None:
    """Hydra's own sweeper composes all cells beforehand, to see that it can: preflight has seen to that."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    BasicSweeper.validate_batch_is_legal = lambda self, batch: None


def _importable(config_dirs: list[str]) -> None:
    """Let YAMLs of --config-dir name modules beside them, or in the current directory."""
    for folder in (*config_dirs, "."):
        path = str(Path(folder).resolve())
        if path not in sys.path:
            sys.path.append(path)
    known = [p for p in os.environ.get("SEEDSBENCH_CONF", "").split(os.pathsep) if p]
    added = [str(Path(folder).resolve()) for folder in config_dirs]
    os.environ["SEEDSBENCH_CONF"] = os.pathsep.join(dict.fromkeys([*known, *added]))


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _hydra(cfg: DictConfig) -> float | None:
    """One Hydra job: `repeats` cells. Returns their mean FID, for optimising sweepers; None if one failed."""
    from hydra.core.hydra_config import HydraConfig

    from seedsbench.bench.cell import run_cell
    from seedsbench.registry import build

    hydra_config = HydraConfig.get()
    folders = [s.path for s in hydra_config.runtime.config_sources if s.provider == "command-line"]
    flags = [part for folder in folders for part in ("--config-dir", folder)]
    elsewhere = ("study=", "results_dir=", "seed=", "repeats=", "published=", "force=", "offline=", "debug=")
    overrides = [o for o in hydra_config.overrides.task if not o.startswith(elsewhere)]
    study = Path(cfg.results_dir) / cfg.study
    tracker: Tracker = build(cfg.tracker)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    scores: list[float] = []
    for seed in range(cfg.seed, cfg.seed + cfg.repeats):
        command = shlex.join(["seedsbench", *flags, *overrides, f"seed={seed}"])
        invocation, sweep = os.environ[INVOCATION], _SWEEP[-1] if _SWEEP else None
        row = run_cell(cfg, seed, command=command, invocation=invocation, sweep=sweep)
        if sweep is not None:
            sweep.cell_done(row, computed=row.get("invocation") == invocation)
        harmless("tracking", partial(tracker.log_row, study, row, resolved))
        if row["status"] == "done":
            scores.append(row["fid"])
    return sum(scores) / len(scores) if len(scores) == cfg.repeats else None


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
