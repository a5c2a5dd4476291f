"""What a solver's own arithmetic costs: time of a step without the network, as a ratio to `euler`.

    python scripts/bench_solvers.py                  # a table on the terminal
    python scripts/bench_solvers.py --write          # ... and in results/benchmarks.md
    python scripts/bench_solvers.py --device cuda

The denoiser returns one stored tensor and the noise another, so that what is timed is arithmetic and
bookkeeping. Every solver is timed in turn with euler, round after round, and the medians are compared:
ratios within one run hold on a busy machine too, times do not. The script starts itself again with glibc
told to keep freed memory: else page faults, up or down by chance of the heap, are most of what is timed.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from sections import publish
from torch import Tensor
from tqdm import tqdm

import seedsbench
from seedsbench.certify.problems import fixed_steps, log_levels
from seedsbench.diffusion.integrate import integrate
from seedsbench.diffusion.noise import Philox
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Linear
from seedsbench.report.style import family_of, solver_rank
from seedsbench.report.table import markdown_table

SHAPE = (64, 3, 32, 32)
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
HEADING = "## Arithmetic of a step"


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


def seconds(name: str, steps: int, stored: Stored) -> float:
    """Wall time of a step: a run of 2 n steps less one of n, so that what happens once is not counted."""
    solver = fixed_steps(seedsbench.solver(name))
    times = []
    for n in (steps, 2 * steps):
        levels = log_levels(n, 80.0, 0.002)
        process = Process(stored, Linear(), SHAPE[0])
        start = time.perf_counter()
        for _ in integrate(process, solver, stored.latents, levels, stored, "stop"):
            pass
        if stored.value.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / steps


def measure(names: list[str], steps: int, rounds: int, device: str) -> dict[str, tuple[float, float]]:
    """Of each solver: median ratio of a step to euler's of the same round, and median milliseconds."""
    stored = Stored(device)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in tqdm(range(rounds + 1), unit="round", disable=None):
        for name in names:
            euler, own = seconds("euler", steps, stored), seconds(name, steps, stored)
            if turn:  # the first round warms up
                found[name].append((own / euler, 1000 * own))
    return {
        name: (statistics.median(r for r, _ in values), statistics.median(m for _, m in values))
        for name, values in found.items()
    }


def table(found: dict[str, tuple[float, float]]) -> list[str]:
    """Markdown lines, by family."""
    families = {name: seedsbench.solver(name).family for name in found}
    lines = []
    for name in sorted(found, key=lambda n: solver_rank(n, families[n])):
        solver = seedsbench.solver(name)
        ratio, own = found[name]
        nfe = (solver.nfe(200) - solver.nfe(100)) / 100
        per = f"{ratio / nfe:.2f}"
        lines.append([name, family_of(name, families[name]), f"{nfe:g}", f"{ratio:.2f}", per, f"{own:.2f}"])
    return markdown_table(["solver", "family", "NFE/step", "step/euler", "per NFE", "ms"], lines)


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("solvers", nargs="*", help="config names; all if none is given")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write results/benchmarks.md")
    arguments = parser.parse_args()
    if not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})
    torch.set_num_threads(arguments.threads)
    names = arguments.solvers or seedsbench.solver_names()
    lines = table(measure(names, arguments.steps, arguments.rounds, arguments.device))
    machine = torch.cuda.get_device_name() if arguments.device != "cpu" else platform.machine()
    told = (
        f"`python scripts/{Path(__file__).name} --write`: a step without the network at {SHAPE}, float64, "
        f"{machine}, {arguments.threads} thread(s), torch {torch.__version__}, as a ratio to `euler` in "
        f"the same run (median of {arguments.rounds}; the last column is of this machine alone). Noise is a "
        "stored tensor. Adaptive solvers: one trial step."
    )
    section = "\n".join([HEADING, "", told, "", *lines, ""])
    publish(section, write=arguments.write)


if __name__ == "__main__":
    main()
