"""What a cell gains from more ranks: measured with one and two here, and a cost model for many GPUs.

    python scripts/bench_scaling.py                  # tables on the terminal
    python scripts/bench_scaling.py --quick          # the same in less than 5 minutes
    python scripts/bench_scaling.py --write          # ... and in results/benchmarks.md

One cell of the embedded model is run by torchrun with one and with two ranks in turn, a thread each, and the
medians are compared; both must give the same scores. Then the parts of the cost are timed one by one: a
network evaluation and the features of a sample (from the cell's row), merging Inception-size sums between two
ranks, the scores, writing and reading a row. The model adds them up for another network and other numbers of
GPUs. What a GPU takes for an evaluation and for features is an assumption, given by --net-ms and
--features-ms: put in what was measured on yours.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from sections import publish
from tqdm import tqdm

from seedsbench.bench import ranks
from seedsbench.bench.partial import packed, unpacked
from seedsbench.bench.store import ResultStore
from seedsbench.diffusion.philox import philox_normal
from seedsbench.metrics import MomentSum, frechet_distance
from seedsbench.metrics.inception import BLOCK, BOUND, FEATURES
from seedsbench.report.rows import read_rows
from seedsbench.report.table import markdown_table

HEADING = "## Many devices"
ROOT = Path(__file__).resolve().parents[1]
ROWS = 300
GPUS = (1, 8, 64, 1024)
N, NFE = 50_000, 35
"""The cell that the model is asked about: EDM's CIFAR-10 protocol."""


@dataclass(frozen=True)
class Costs:
    """Seconds of: a sample's evaluation, its features, a round of merging, the scores, a row written, read.

    merge_bytes: what a rank sends.
    """

    network: float
    features: float
    merge: float
    merge_bytes: int
    scores: float
    write: float
    read: float

    def cell(self, gpus: int) -> dict[str, float]:
        """Seconds of the parts of one N x NFE cell over so many GPUs."""
        blocks = math.ceil(math.ceil(N / BLOCK) / gpus)  # of the rank that has most
        return {
            "network": blocks * BLOCK * NFE * self.network,
            "features": blocks * BLOCK * self.features,
            "merging": math.ceil(math.log2(gpus)) * self.merge,
            "scores": self.scores,
            "store": self.write,
        }


def torchrun(world_size: int, *arguments: str, cwd: Path) -> None:
    """Run a module or script under torchrun, a thread for each rank; its output is shown if it fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(
        [*command, f"--nproc_per_node={world_size}", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")


def cell(world_size: int, samples: int, nfe: int) -> dict[str, Any]:
    """The row of one cell on so many ranks, and `command`, the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["solver=heun", f"nfe={nfe}", f"samples={samples}", "device=cpu", "study=s"]
        started = time.perf_counter()
        torchrun(world_size, "-m", "seedsbench", *options, cwd=Path(folder))
        taken = time.perf_counter() - started
        (path,) = Path(folder).glob("results/s/rows/*.json")
        return {**json.loads(path.read_text()), "command": taken}


def in_cell(row: dict[str, Any]) -> float:
    """Seconds of all that ranks share, and of what they do to share it."""
    return row["seconds_sampling"] + row["seconds_features"] + row["seconds_scoring"]


def measure_ranks(samples: int, nfe: int, rounds: int) -> dict[int, list[dict[str, Any]]]:
    """Rows of `rounds` cells on one and on two ranks, run in turn."""
    rows: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in tqdm(range(rounds), unit="round", disable=None):
        for world_size, found in rows.items():
            found.append(cell(world_size, samples, nfe))
    scores = {(row["fid"], row["is_mean"], row["nfe"]) for found in rows.values() for row in found}
    assert len(scores) == 1, f"one and two ranks differ: {scores}"
    return rows


def merge_here(out: Path) -> None:
    """Under torchrun: seconds of merging Inception's sums of two ranks, and their bytes, to a file."""
    joined = ranks.joined()
    sums = MomentSum(FEATURES, N, BOUND)
    taken = []
    for _ in range(6):
        torch.distributed.barrier()
        started = time.perf_counter()
        ranks.merged(joined, partial(_send, sums), partial(_receive, sums))
        taken.append(time.perf_counter() - started)
    if joined.rank == 0:
        out.write_text(json.dumps([statistics.median(taken[1:]), len(_send(sums))]))


def _send(sums: MomentSum) -> bytes:
    return packed(sums.state(), {})


def _receive(sums: MomentSum, data: bytes) -> None:
    sums.add(unpacked(data)[0])


def measure_costs(row: dict[str, Any], network: float, features: float) -> Costs:
    """The costs of the model; network and features in seconds, the rest timed here."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "merge.json"
        torchrun(2, str(Path(__file__).resolve()), "--merge", str(out), cwd=ROOT)
        merge, size = json.loads(out.read_text())
        store = ResultStore(Path(folder) / "study")
        started = time.perf_counter()
        for i in range(ROWS):
            store.write({**row, "run_key": f"{i:016x}"})
        written = time.perf_counter()
        read_rows(store.study)
        read = time.perf_counter() - written
    rows = philox_normal(torch.arange(2 * FEATURES), FEATURES, seed=0, stream=0, draw=0)
    sums = MomentSum(FEATURES, N, BOUND)
    sums.update(rows)
    started_scores = time.perf_counter()
    moments = sums.moments()
    frechet_distance(moments.mu, moments.sigma, np.zeros(FEATURES), np.eye(FEATURES))
    scores = time.perf_counter() - started_scores
    return Costs(network, features, merge, size, scores, (written - started) / ROWS, read / ROWS)


def rank_table(rows: dict[int, list[dict[str, Any]]]) -> list[str]:
    """Markdown lines: what one and two ranks took, and the efficiency."""
    cells = {n: statistics.median(map(in_cell, found)) for n, found in rows.items()}
    lines = []
    for n, found in rows.items():
        images = statistics.median(row["images_per_second"] for row in found)
        whole = statistics.median(row["command"] for row in found)
        efficiency = cells[1] / n / cells[n]
        lines.append([str(n), f"{cells[n]:.2f}", f"{images:.1f}", f"{whole:.1f}", f"{efficiency:.3f}"])
    return markdown_table(["ranks", "cell s", "images/s", "command s", "efficiency"], lines)


def model_table(costs: Costs) -> list[str]:
    """Markdown lines: one cell over many GPUs, and many cells with a GPU each."""
    alone = sum(costs.cell(1).values())
    lines = []
    for gpus in GPUS:
        parts = costs.cell(gpus)
        whole = sum(parts.values())
        rest = {name: value for name, value in parts.items() if name != "network"}
        most = max(rest, key=lambda name: rest[name])
        rows = gpus / alone  # a second, of cells with a GPU each
        own = [str(gpus), f"{whole:.1f}", f"{alone / gpus / whole:.2f}", f"{most} {rest[most]:.1f} s"]
        lines.append([*own, f"{rows:.3f}", f"{100 * rows * costs.write:.2f} %"])
    header = ["GPUs", "one cell s", "efficiency", "largest rest", "cells/s, one GPU each", "one writer busy"]
    return markdown_table(header, lines)


def section(rows: dict[int, list[dict[str, Any]]], costs: Costs, arguments: argparse.Namespace) -> str:
    """The part of results/benchmarks.md."""
    one = rows[1][0]
    flags = " --quick" if arguments.quick else ""
    measured = (
        f"`python scripts/{Path(__file__).name}{flags} --write`: {one['samples']} samples of `glyphs`, heun, "
        f"nfe={one['nfe_budget']}, {platform.machine()}, {os.cpu_count()} cores, a thread a rank, torch "
        f"{torch.__version__}, medians of {len(rows[1])}. The scores of one and two ranks are the same to "
        "the bit. `cell` is sampling, features and scoring with merging; `command` also starts Python and "
        "torch, computes the floor, and writes the report."
    )
    network = one["seconds_sampling"] / one["samples"] / one["nfe"]
    features = one["seconds_features"] / one["samples"]
    fitted = (
        f"Costs here: {1e6 * network:.0f} us a network evaluation, {1e6 * features:.0f} us a sample's "
        f"features; merging two ranks' Inception sums ({costs.merge_bytes / 1e6:.0f} MB) {costs.merge:.2f} s "
        f"a round; FID at {FEATURES} features {costs.scores:.1f} s; a row {1000 * costs.write:.1f} ms to "
        f"write, {1000 * costs.read:.2f} ms to read ({100_000 * costs.read:.0f} s for 100,000)."
    )
    asked = (
        f"The model, for {N:,} samples at {NFE} evaluations, Inception features in blocks of {BLOCK}. "
        f"Assumed of a GPU: {arguments.net_ms:g} ms an evaluation, {arguments.features_ms:g} ms a sample's "
        "features; all else as timed here."
    )
    first = costs.cell(GPUS[-1])
    serial = max(("merging", "scores", "store"), key=lambda name: first[name])
    verdict = (
        f"First to saturate inside a cell: {serial}, {first[serial]:.1f} s on rank 0 whatever the number of "
        f"GPUs, {100 * first[serial] / sum(first.values()):.0f} % of a cell over {GPUS[-1]:,}; so give a "
        "cell no more GPUs than it needs and run several at a time. Over cells, writing rows is no limit; "
        "the report reads all rows once."
    )
    parts = [HEADING, measured, *_spaced(rank_table(rows)), fitted, asked, *_spaced(model_table(costs))]
    return "\n\n".join([*parts, verdict]) + "\n"


def _spaced(table: list[str]) -> list[str]:
    return ["\n".join(table)]


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller cell, fewer rounds")
    parser.add_argument("--net-ms", type=float, default=0.5, help="assumed of a GPU: ms an evaluation")
    parser.add_argument("--features-ms", type=float, default=0.5, help="assumed of a GPU: ms a sample")
    parser.add_argument("--write", action="store_true", help="write results/benchmarks.md")
    parser.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.merge is not None:
        merge_here(arguments.merge)
        return
    samples, nfe, rounds = (1024, 15, 2) if arguments.quick else (4096, 35, 5)
    rows = measure_ranks(samples, nfe, rounds)
    costs = measure_costs(rows[1][0], arguments.net_ms / 1000, arguments.features_ms / 1000)
    text = section(rows, costs, arguments)
    publish(text, write=arguments.write)


if __name__ == "__main__":
    main()
