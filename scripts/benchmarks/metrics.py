"""What the metrics cost at Inception's 2048 features, beside torch-fidelity on the same cores.

    python scripts/benchmarks/metrics.py                  # a table on the terminal
    python scripts/benchmarks/metrics.py --write          # ... and in results/benchmarks.md

Both are timed in turn, round after round, and the medians compared: ratios hold on a busy machine, times do
not. Statistics are of random features with a decaying spectrum; no weights are needed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor
from tqdm import tqdm

from scripts.benchmarks.publish import command, machine, options, publish
from seedsbench.exact.philox import philox_normal
from seedsbench.metrics import Moments, MomentSum, frechet_distance
from seedsbench.metrics.extraction import LARGE_NETWORK_BLOCK as BLOCK
from seedsbench.metrics.inception import INCEPTION_BOUND as BOUND
from seedsbench.metrics.inception import INCEPTION_FEATURES as FEATURES
from seedsbench.report.table import markdown_table

HEADING = "## Metrics at 2048 features"


def features(n: int, seed: int) -> Tensor:
    """(n, 2048) float64 with standard deviations from 1 down to 1e-3."""
    spread = torch.logspace(0, -3, FEATURES, dtype=torch.float64)
    return philox_normal(torch.arange(n), FEATURES, seed=seed, stream=0, draw=0) * spread


def moments(rows: Tensor) -> Moments:
    """Mean and covariance by one matrix product."""
    return Moments(len(rows), rows.mean(0).numpy(), rows.T.cov().numpy())


def torch_fidelity_distance() -> Callable[[Moments, Moments], float]:
    """torch-fidelity's own function of two statistics (its eigvals of the product)."""
    metric = import_module("torch_fidelity.metric_fid")

    def distance(a: Moments, b: Moments) -> float:
        first, second = ({"mu": m.mu, "sigma": m.sigma} for m in (a, b))
        return metric.fid_statistics_to_metric(first, second, False)["frechet_inception_distance"]

    return distance


def own_distance(a: Moments, b: Moments) -> float:
    """Ours, on the same arguments."""
    return frechet_distance(a.mu, a.sigma, b.mu, b.sigma)


def timed(function: Callable[[Moments, Moments], float], a: Moments, b: Moments) -> tuple[float, float]:
    """Seconds and value."""
    start = time.perf_counter()
    value = function(a, b)
    return time.perf_counter() - start, value


def compare(name: str, a: Moments, b: Moments, rounds: int) -> list[str]:
    """One line of the table: medians, their ratio, and how far the values differ."""
    theirs = torch_fidelity_distance()
    own, other, apart = [], [], 0.0
    for _ in tqdm(range(rounds), desc=name, unit="round", disable=None):
        (mine, value), (their, wanted) = timed(own_distance, a, b), timed(theirs, a, b)
        own.append(mine)
        other.append(their)
        apart = max(apart, abs(value / wanted - 1))
    ratio = statistics.median(mine / their for mine, their in zip(own, other, strict=True))
    times = [f"{statistics.median(values):.2f}" for values in (own, other)]
    return [f"Frechet distance, {name}", *times, f"{ratio:.3f}", f"{apart:.0e}"]


def accumulate(rows: Tensor) -> list[str]:
    """Seconds to sum the moments of 50,000 rows that come a block at a time."""
    sums = MomentSum(FEATURES, 50_000, BOUND)
    start = time.perf_counter()
    for block in rows.split(BLOCK):
        sums.update(block)
    seconds = (time.perf_counter() - start) / len(rows) * 50_000
    return [f"moments of 50,000, {BLOCK} at a time", f"{seconds:.0f}", "-", "-", "-"]


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__)
    made.add_argument("--rounds", type=int, default=3, help="of both in turn: 3")
    made.add_argument("--threads", type=int, default=2, help="of torch-fidelity, ours uses one: 2")
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    made = parser()
    arguments = made.parse_args()
    torch.set_num_threads(arguments.threads)
    many = features(2500, 1)
    full, second = moments(many), moments(features(2500, 2))
    lines = [
        compare("full rank", full, second, arguments.rounds),
        *(
            compare(f"{n} samples against full rank", moments(features(n, 3)), full, arguments.rounds)
            for n in (500, 2000)
        ),
        accumulate(many[:1024]),
    ]
    head = ["what", "seconds", "torch-fidelity", "ratio", "relative difference"]
    told = (
        f"`{command(made, arguments)}`: {machine()}, {arguments.threads} threads (ours uses one), torch "
        f"{torch.__version__}, torch-fidelity {metadata.version('torch-fidelity')}; medians of "
        f"{arguments.rounds} rounds in turn. Ratios hold on a busy machine, seconds do not."
    )
    section = "\n".join([HEADING, "", told, "", *markdown_table(head, lines), ""])
    publish(section, write=arguments.write)


if __name__ == "__main__":
    main()
