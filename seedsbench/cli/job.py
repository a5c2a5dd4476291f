"""One Hydra job: what runs in this process for each cell of a sweep or, pickled, in a launcher's workers.

A worker knows nothing of the command that started it but what is pickled with the job, so the job brings
it along: the folder that relative paths mean, where the user's own modules lie, and whose rows these are.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seedsbench.bench.cell import study_folder
from seedsbench.tracking.base import Tracker, harmless

if TYPE_CHECKING:
    from seedsbench.bench.progress import SweepLine

SWEEP: "list[SweepLine]" = []
"""The line of the sweep this process runs; a launcher's workers have none."""
BOTH = 2.0
"""Seconds within which SIGUSR2 may follow SIGTERM."""
ELSEWHERE = ("study=", "results_dir=", "seed=", "repeats=", "published=", "force=", "offline=", "debug=")


@dataclass(frozen=True)
class Job:
    """`repeats` cells; calling it returns their mean FID, for optimising sweepers, or None if one failed.

    invocation names the command, cwd is the folder it was given in, modules are folders for sys.path, conf
    is SEEDSBENCH_CONF.
    """

    invocation: str
    cwd: str
    modules: tuple[str, ...]
    conf: str

    def __call__(self, cfg: DictConfig) -> float | None:
        os.chdir(self.cwd)
        sys.path.extend(folder for folder in self.modules if folder not in sys.path)
        os.environ["SEEDSBENCH_CONF"] = self.conf
        run = partial(_run, cfg, self.invocation)
        return _as_submitit_task(run) if "SUBMITIT_EXECUTOR" in os.environ else run()


def _run(cfg: DictConfig, invocation: str) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    from seedsbench.bench.run import run_cell
    from seedsbench.registry import build

    hydra_config = HydraConfig.get()
    folders = [s.path for s in hydra_config.runtime.config_sources if s.provider == "command-line"]
    flags = [part for folder in folders for part in ("--config-dir", folder)]
    overrides = [o for o in hydra_config.overrides.task if not o.startswith(ELSEWHERE)]
    study = study_folder(cfg)
    tracker: Tracker = build(cfg.tracker)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    scores: list[float] = []
    for seed in range(cfg.seed, cfg.seed + cfg.repeats):
        command = shlex.join(["seedsbench", *flags, *overrides, f"seed={seed}"])
        sweep = SWEEP[-1] if SWEEP else None
        row = run_cell(cfg, seed, command=command, invocation=invocation, sweep=sweep)
        if sweep is not None:
            sweep.cell_done(row, computed=row.get("invocation") == invocation)
        harmless("tracking", partial(tracker.log_row, study, row, resolved))
        if row["status"] == "done":
            scores.append(row["fid"])
    return sum(scores) / len(scores) if len(scores) == cfg.repeats else None


def _as_submitit_task(run: Callable[[], float | None]) -> float | None:
    """Run as one task of a submitit job: its tasks are the ranks of a cell, and SIGUSR2 sends it back.

    submitit queues a job again and ends it from the signal handler, wherever the cell is, and takes no notice
    of SIGTERM, which is all that some preemptions send; so at either the cell is asked to save and end
    first. Every task sees all GPUs of its node and takes that of its LOCAL_RANK.
    """
    from submitit import JobEnvironment  # type: ignore[import-not-found]
    from submitit.helpers import TorchDistributedEnvironment  # type: ignore[import-not-found]

    from seedsbench.bench.ranks import end, joined
    from seedsbench.bench.run import follow
    from seedsbench.bench.stopping import Stopped, request_stop, stop_requested

    if JobEnvironment().num_tasks > 1 and "RANK" not in os.environ:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    ranks = joined()
    queue_again, received = signal.getsignal(signal.SIGUSR2), set[int]()

    def stop(number: int, _: Any) -> None:
        received.add(number)
        request_stop()

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        if ranks.rank:
            follow(ranks)
            return None
        score = run()
        end(ranks)
        return score
    except Stopped:
        if not stop_requested():  # another rank has died: not queued for that, again and again
            raise
        until = time.monotonic() + BOTH
        while signal.SIGUSR2 not in received and time.monotonic() < until:
            time.sleep(0.05)
        if signal.SIGUSR2 in received and callable(queue_again):
            queue_again(signal.SIGUSR2, None)  # rank 0's ends the process
        raise
