"""What a solver's own arithmetic costs: time of a step without the network, as a ratio to `euler`.

    python scripts/benchmarks/solvers.py                  # a table on the terminal
    python scripts/benchmarks/solvers.py --quick          # fewer rounds
    python scripts/benchmarks/solvers.py --write          # ... and in results/benchmarks.md
    python scripts/benchmarks/solvers.py --device cuda

The denoiser returns one stored tensor and the noise another, so that what is timed is arithmetic and
bookkeeping. Every solver is timed between two runs of euler, in another order each round, and the median of
its ratios to their mean is given with the middle half of them: ratios within one run hold on a busy machine
too, times do not. euler is among the solvers: what it is off 1 is noise. On one thread of a CPU it is
processor time that counts. The script starts itself again with glibc told to keep freed memory: else page
faults, up or down by chance of the heap, are most of what is timed.
"""

import argparse
import os
import statistics
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

import seedsbench
from scripts.benchmarks.interleave import between, seconds
from scripts.benchmarks.publish import command, foretell, machine, options, publish
from seedsbench.certify.problems import fixed_steps, log_levels
from seedsbench.diffusion.noise import Philox
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Linear
from seedsbench.report.style import solver_rank
from seedsbench.report.table import markdown_table
from seedsbench.solvers.integrate import integrate

SHAPE = (64, 3, 32, 32)
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
"""For a process that is timed: the system's allocator gives no memory back between rounds."""
HEADING = "## Arithmetic of a step"
Found = dict[str, list[tuple[float, float]]]


class Stored:
    """A denoiser and a noise source that return what they hold."""

    def __init__(self, device: str) -> None:
        indices = torch.arange(SHAPE[0])
        self.value = Philox(indices, SHAPE[1:]).normal().to(device)
        self.latents = Philox(indices, SHAPE[1:], seed=1).normal().to(device)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.value[: len(x)]

    def normal(self) -> Tensor:
        return self.value

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        return self.value


def step_seconds(name: str, steps: int, stored: Stored, device: str) -> float:
    """Time of a step: a run of 2 n steps less one of n, so that what happens once is not counted."""
    solver = fixed_steps(seedsbench.solver(name))

    def run(n: int) -> None:
        process = Process(stored, Linear(), SHAPE[0])
        deque(integrate(process, solver, stored.latents, log_levels(n, 80.0, 0.002), stored, "stop"), 0)

    once, twice = (seconds(lambda n=n: run(n), device) for n in (steps, 2 * steps))
    return (twice - once) / steps


def measure(names: list[str], steps: int, rounds: int, device: str) -> Found:
    """Of each solver, in every round: its step over euler's just before and after, and its milliseconds."""
    found: Found = {name: [] for name in names}
    stored = Stored(device)

    def step(name: str) -> float:
        return step_seconds(name, steps, stored, device)

    started = time.perf_counter()
    for name in names:  # warms up
        step(name)
    foretell("all", 1.7 * rounds * (time.perf_counter() - started))
    for name, own, euler in between(names, step, lambda: step("euler"), rounds):
        found[name].append((own / euler, 1000 * own))
    return found


def half(values: list[float]) -> str:
    """The middle half of some values."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{low:.2f}-{high:.2f}"


def table(found: Found) -> list[str]:
    """Markdown lines, by family."""
    solvers = {name: seedsbench.solver(name) for name in found}
    lines = []
    for name in sorted(found, key=lambda n: solver_rank(n, solvers[n].family, solvers[n].order)):
        solver = solvers[name]
        ratios, own = (list(column) for column in zip(*found[name], strict=True))
        ratio = statistics.median(ratios)
        nfe = (solver.nfe(200) - solver.nfe(100)) / 100
        numbers = [f"{ratio:.2f}", half(ratios), f"{ratio / nfe:.2f}", f"{statistics.median(own):.2f}"]
        lines.append([name, solver.family, f"{nfe:g}", *numbers])
    header = ["solver", "family", "NFE/step", "step/euler", "middle half", "per NFE", "ms"]
    return markdown_table(header, lines)


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick="9 rounds")
    made.add_argument("solvers", nargs="*", metavar="SOLVER", help="config names; all if none is given")
    made.add_argument("--steps", type=int, default=10, help="of a run; one of twice as many beside it: 10")
    made.add_argument("--rounds", type=int, help="2 at least: 25 (--quick: 9)")
    made.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    made.add_argument("--threads", type=int, default=1, help="of a CPU: 1")
    return made


def ready_to_time(made: argparse.ArgumentParser) -> tuple[argparse.Namespace, int]:
    """The script's arguments and its number of rounds; the process has KEEP_MEMORY and --threads threads."""
    arguments = made.parse_args()
    if not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})
    rounds = arguments.rounds or (9 if arguments.quick else 25)
    if rounds < 2:
        made.error("--rounds must be 2 at least")
    torch.set_num_threads(arguments.threads)
    return arguments, rounds


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    made = parser()
    arguments, rounds = ready_to_time(made)
    device, threads = arguments.device, arguments.threads
    processor = device == "cpu" and threads == 1
    names = list(dict.fromkeys(["euler", *(arguments.solvers or seedsbench.solver_names())]))
    found = measure(names, arguments.steps, rounds, device)
    itself = [ratio for ratio, _ in found["euler"]]
    told = (
        f"`{command(made, arguments)}`: a step without the network at {SHAPE}, float64, {machine(device)}, "
        f"{threads} thread(s), {'processor' if processor else 'wall'} time, torch {torch.__version__}, as a "
        f"ratio to `euler` just before and after (median of {rounds} rounds, and their middle half; the last "
        "column is of this machine alone). Noise is a stored tensor. Adaptive solvers: one trial step. "
        f"**Noise of the measurement: euler is {statistics.median(itself):.2f} times itself, "
        f"{min(itself):.2f} to {max(itself):.2f} in single rounds.**"
    )
    publish("\n".join([HEADING, "", told, "", *table(found), ""]), write=arguments.write, device=device)


if __name__ == "__main__":
    main()
