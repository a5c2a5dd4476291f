"""What our schedulers for diffusers cost: time of a `step`, as a ratio to DPMSolverMultistepScheduler's.

    python scripts/benchmarks/scheduler.py                  # a table on the terminal
    python scripts/benchmarks/scheduler.py --quick          # fewer rounds
    python scripts/benchmarks/scheduler.py --write          # ... and in results/benchmarks.md

The latents of Stable Diffusion for four images, (4, 4, 64, 64) float32, on a CPU; the network's output is a
stored tensor. `dpmpp_2m` is the same method as diffusers', in float64; the target is a ratio of at most 2. A
`step` is one evaluation of the network: a solver of two evaluations a step takes two of these. Stochastic
solvers spend most of it on counter-based noise. Every scheduler is timed between two runs of diffusers', in
another order each round; dpm is diffusers' own again: what it is off 1 is noise. The script starts itself
again with glibc told to keep freed memory, as solvers.py does.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from scripts.benchmarks.interleave import between, seconds, spread
from scripts.benchmarks.publish import command, foretell, machine, options, publish
from scripts.benchmarks.solvers import ready_to_time
from seedsbench.diffusion.noise import Philox
from seedsbench.report.table import markdown_table

SHAPE = (4, 4, 64, 64)
HEADING = "## Schedulers for diffusers"
BASE = "dpm"
NAMES = ("dpmpp_2m", "unipc", "heun", "seeds1", "seeds2", "seeds3")


def made_of(name: str) -> Any:
    """diffusers' scheduler for "dpm", else ours of this solver."""
    import diffusers  # pyright: ignore[reportMissingImports]

    from seedsbench.integrations.diffusers import SolverScheduler

    library: Any = diffusers
    return library.DPMSolverMultistepScheduler() if name == BASE else SolverScheduler(solver=name)


def step_seconds(scheduler: Any, n: int) -> float:
    """Time of a `step` in a run over n noise levels, set_timesteps not counted."""
    indices = torch.arange(SHAPE[0])
    output = Philox(indices, SHAPE[1:]).normal().float()
    start = Philox(indices, SHAPE[1:], seed=1).normal().float()
    scheduler.set_timesteps(n)
    timesteps = list(scheduler.timesteps)

    def run() -> None:
        x = start
        for t in timesteps:
            x = scheduler.step(output, t, x).prev_sample

    return seconds(run, "cpu") / len(timesteps)


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick="9 rounds")
    made.add_argument("solvers", nargs="*", metavar="SOLVER", help=f"config names: {' '.join(NAMES)}")
    made.add_argument("--steps", type=int, default=20, help="noise levels of a run: 20")
    made.add_argument("--rounds", type=int, help="2 at least: 25 (--quick: 9)")
    made.add_argument("--threads", type=int, default=1, help="of the CPU: 1")
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    made = parser()
    arguments, rounds = ready_to_time(made)
    schedulers = {name: made_of(name) for name in dict.fromkeys([BASE, *(arguments.solvers or NAMES)])}
    base = made_of(BASE)

    def step(name: str) -> float:
        return step_seconds(schedulers[name], arguments.steps)

    started = time.perf_counter()
    for name in schedulers:  # warms up
        step(name)
    foretell("all", 2 * rounds * (time.perf_counter() - started))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in schedulers}
    beside_it = partial(step_seconds, base, arguments.steps)
    for name, own, beside in between(list(schedulers), step, beside_it, rounds):
        found[name].append((own / beside, 1e6 * own))
    lines = []
    for name, pairs in found.items():
        ratios, own = (list(column) for column in zip(*pairs, strict=True))
        shown = "DPMSolverMultistepScheduler" if name == BASE else name
        lines.append([shown, str(schedulers[name].order), spread(ratios, 2), f"{statistics.median(own):.0f}"])
    told = (
        f"`{command(made, arguments)}`: a `step` at {SHAPE}, float32, {machine('cpu')}, {arguments.threads} "
        f"thread(s), torch {torch.__version__}, as a ratio to diffusers' `DPMSolverMultistepScheduler.step` "
        f"just before and after (median and ends of {rounds} rounds; microseconds: of this machine alone). "
        "A stochastic solver spends most of it on counter-based noise. Target: `dpmpp_2m` at most 2."
    )
    header = ["scheduler", "order", "ratio", "microseconds"]
    publish("\n".join([HEADING, "", told, "", *markdown_table(header, lines), ""]), write=arguments.write)


if __name__ == "__main__":
    main()
