"""What a cell gains from more ranks: measured with one and two here, and a cost model for many GPUs.

    python scripts/benchmarks/scaling.py                  # tables on the terminal; it says how long it takes
    python scripts/benchmarks/scaling.py --quick          # ... within five minutes on two cores
    python scripts/benchmarks/scaling.py --write          # ... and in results/benchmarks.md

One cell of the embedded model is run by torchrun with one and with two ranks in turn, a thread each, in
another order each round; the efficiency is of the two cells of a round, and both must give the same scores.
Then the cost model gets its numbers. Fitted to this machine: an evaluation, the features of a sample and the
scores (from the rows of one rank), rank 0's taking in of another rank's sums at the cell's 64 features and at
Inception's 2048, the scores at 2048, writing and reading a row. What the model says of two ranks here is
printed beside what was measured: that is its test. For many GPUs it is asked about another network and
extractor: what a GPU takes for an evaluation and for features is then an assumption, given by --net-ms and
--features-ms: put in what was measured on yours.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from scripts.benchmarks.interleave import spread
from scripts.benchmarks.publish import command, foretell, machine, options, publish
from seedsbench.bench.rows.store import ResultStore
from seedsbench.exact.philox import philox_normal
from seedsbench.metrics import MomentSum, frechet_distance
from seedsbench.metrics.extraction import BLOCK as GLYPHS_BLOCK
from seedsbench.metrics.extraction import LARGE_NETWORK_BLOCK as BLOCK
from seedsbench.metrics.inception import INCEPTION_BOUND as BOUND
from seedsbench.metrics.inception import INCEPTION_FEATURES as FEATURES
from seedsbench.report.rows import read_rows
from seedsbench.report.table import markdown_table

HEADING = "## Many devices"
ROOT = Path(__file__).resolve().parents[2]
ROWS = 300
GPUS = (1, 8, 64, 1024)
GLYPHS = 64
"""Features of the embedded extractor."""
N, NFE = 50_000, 35
"""The cell that the model is asked about: EDM's CIFAR-10 protocol."""


@dataclass(frozen=True)
class Costs:
    """Seconds of: a sample's evaluation, its features, merging one rank's sums, the scores, a row
    written, read. merge_bytes: what a rank sends.
    """

    network: float
    features: float
    merge: float
    merge_bytes: int
    scores: float
    write: float
    read: float

    def cell(self, gpus: int, n: int = N, nfe: float = NFE, block: int = BLOCK) -> dict[str, float]:
        """Seconds of the parts of one n x nfe cell over so many GPUs, in blocks of so many samples."""
        blocks = math.ceil(math.ceil(n / block) / gpus)  # of the rank that has most
        samples = min(n, blocks * block)
        return {
            "network": samples * nfe * self.network,
            "features": samples * self.features,
            "merging": (gpus - 1) * self.merge,
            "scores": self.scores,
            "store": self.write,
        }


def torchrun(world_size: int, *arguments: str, cwd: Path) -> None:
    """Run a module or script under torchrun, a thread for each rank; its output is shown if it fails."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(
        [*words, f"--nproc_per_node={world_size}", *arguments],
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


def in_command(row: dict[str, Any]) -> float:
    """Seconds of the whole command."""
    return row["command"]


def measure_ranks(samples: int, nfe: int, rounds: int) -> dict[int, list[dict[str, Any]]]:
    """Rows of `rounds` cells on one and on two ranks, run in turn."""
    rows: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    cell(1, 256, 5)  # files are read from disk for the first time
    for turn in tqdm(range(rounds), unit="round", disable=None):
        for world_size in (1, 2) if turn % 2 == 0 else (2, 1):
            rows[world_size].append(cell(world_size, samples, nfe))
            if turn == 0 and len(rows[1]) == 1 and not rows[2]:
                foretell("ranks", 1.6 * rounds * rows[1][0]["command"])
    scores = {(row["fid"], row["is_mean"], row["nfe"]) for found in rows.values() for row in found}
    assert len(scores) == 1, f"one and two ranks differ: {scores}"
    return rows


def merge_here(out: Path, features: int) -> None:
    """Under torchrun: seconds of taking in another rank's sums of so many features, and their bytes."""
    dist.init_process_group("gloo")
    first = dist.get_rank() == 0
    sums = MomentSum(features, N, BOUND)
    taken = []
    for _ in range(6):
        dist.barrier()
        started = time.perf_counter()
        parts: list[Any] | None = [None, None] if first else None
        dist.gather_object(sums.state(), parts, dst=0)
        if parts:
            sums.add(parts[1])
        taken.append(time.perf_counter() - started)
    if first:
        size = sum(array.nbytes for array in sums.state().values())
        out.write_text(json.dumps([statistics.median(taken[1:]), size]))


def merging(features: int, folder: Path) -> tuple[float, int]:
    """Seconds of taking in one rank's sums here, and the bytes that it sends."""
    out = folder / "merge.json"
    torchrun(2, str(Path(__file__).resolve()), f"--features={features}", "--merge", str(out), cwd=ROOT)
    seconds, size = json.loads(out.read_text())
    return seconds, size


def measure_costs(rows: list[dict[str, Any]]) -> tuple[Costs, Costs]:
    """The costs of the model here: of the cells of one rank, and the same at Inception's features."""

    def median(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(of, rows))

    n, nfe = rows[0]["samples"], rows[0]["nfe"]
    network = median(lambda row: row["seconds_sampling"]) / n / nfe
    features = median(lambda row: row["seconds_features"]) / n
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        small, large = merging(GLYPHS, folder), merging(FEATURES, folder)
        store = ResultStore(folder / "study")
        started = time.perf_counter()
        for i in range(ROWS):
            store.write({**rows[0], "run_key": f"{i:016x}"})
        written = time.perf_counter()
        read_rows(store.study)
        read = (time.perf_counter() - written) / ROWS
    write = (written - started) / ROWS
    sums = MomentSum(FEATURES, N, BOUND)
    sums.update(philox_normal(torch.arange(2 * FEATURES), FEATURES, seed=0, stream=0, draw=0))
    started = time.perf_counter()
    moments = sums.moments()
    frechet_distance(moments.mu, moments.sigma, np.zeros(FEATURES), np.eye(FEATURES))
    scores = time.perf_counter() - started
    here = Costs(network, features, *small, median(lambda row: row["seconds_scoring"]), write, read)
    return here, Costs(network, features, *large, scores, write, read)


def efficiencies(rows: dict[int, list[dict[str, Any]]], of: Callable[[dict[str, Any]], float]) -> list[float]:
    """Of two ranks over one, in each round, by what a row took."""
    return [of(one) / 2 / of(two) for one, two in zip(rows[1], rows[2], strict=True)]


def rank_table(rows: dict[int, list[dict[str, Any]]]) -> list[str]:
    """Markdown lines: what one and two ranks took, and the efficiencies of the cell and of the command."""
    lines = []
    for n, found in rows.items():
        taken = spread(list(map(in_cell, found)), 2)
        images = statistics.median(row["images_per_second"] for row in found)
        whole = spread([row["command"] for row in found], 1)
        both = ["1", "1"] if n == 1 else [spread(efficiencies(rows, of)) for of in (in_cell, in_command)]
        lines.append([str(n), taken, both[0], whole, both[1], f"{images:.1f}"])
    return markdown_table(["ranks", "cell s", "efficiency", "command s", "efficiency", "images/s"], lines)


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


def section(rows: dict[int, list[dict[str, Any]]], here: Costs, large: Costs, asked: Costs, ran: str) -> str:
    """The part of results/benchmarks.md. here, large: as fitted; asked: with what is assumed of a GPU."""
    one = rows[1][0]
    n, nfe = one["samples"], one["nfe"]
    beside = statistics.median(row["command"] - in_cell(row) for row in rows[1])
    floors = statistics.median(row["seconds_floor"] for row in rows[1])
    measured = (
        f"`{ran}`: {n} samples of `glyphs`, heun, nfe={one['nfe_budget']}, {machine()}, {os.cpu_count()} "
        f"cores, a thread a rank, torch {torch.__version__}, medians of {len(rows[1])} rounds in turn, with "
        "ranges; efficiencies are of the two cells of a round. The scores of one and two ranks are the same "
        "to the bit. `cell` is what the ranks share and its merging: sampling, features, scores (target: "
        f"0.9). It leaves out {beside:.1f} s of the command that one process does whatever the number of "
        f"ranks: the floor, which is the FID of real images ({floors:.1f} s), starting Python and torch, "
        "loading, and the report; so the efficiency of the whole command is lower, and the lower the smaller "
        "the cell."
    )
    parts = here.cell(2, n, nfe, GLYPHS_BLOCK)
    apart = statistics.median(map(in_cell, rows[2]))
    foreseen = sum(parts.values()) - parts["store"]
    fitted = (
        f"Fitted here: {1e6 * here.network:.0f} us a network evaluation and {1e6 * here.features:.0f} us a "
        f"sample's features, to the rows of one rank; taking in another rank's sums {here.merge:.3f} s at "
        f"{GLYPHS} features and {large.merge:.2f} s at {FEATURES} ({large.merge_bytes / 1e6:.0f} MB); scores "
        f"{here.scores:.2f} s and {large.scores:.1f} s; a row {1000 * here.write:.1f} ms to write, "
        f"{1000 * here.read:.2f} ms to read ({100_000 * here.read:.0f} s for 100,000). The model, fitted to "
        f"one rank, gives {foreseen:.2f} s for the cell on two; measured {apart:.2f} s, "
        f"{apart / foreseen:.2f} times that. What it leaves out is what two ranks of one machine take from "
        "each other (caches, memory, clock) and waiting for the slower one."
    )
    many = (
        f"Extrapolated to {N:,} samples at {NFE} evaluations, Inception features in blocks of {BLOCK}. "
        f"**Assumed, not measured: {1000 * asked.network:g} ms an evaluation and {1000 * asked.features:g} "
        "ms a sample's features on a GPU; that taking in a rank's sums costs the same between machines as "
        "between two processes here, once for each GPU but the first.** Fitted here: the merging, the "
        f"scores at {FEATURES} features, the store."
    )
    last = asked.cell(GPUS[-1])
    serial = max(("merging", "scores", "store"), key=lambda name: last[name])
    verdict = (
        f"First to saturate inside a cell: {serial}, {last[serial]:.1f} s over {GPUS[-1]:,} GPUs, "
        f"{100 * last[serial] / sum(last.values()):.0f} % of the cell there; so give a cell no more GPUs "
        "than it needs and run several at a time. Over cells: one writer of rows, and the report, which "
        "reads all rows once."
    )
    tables = ["\n".join(rank_table(rows)), "\n".join(model_table(asked))]
    return "\n\n".join([HEADING, measured, tables[0], fitted, many, tables[1], verdict]) + "\n"


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick="1,024 samples of 15 evaluations instead of 4,096 of 35")
    made.add_argument("--rounds", type=int, default=6, help="cells of each number of ranks: 6")
    made.add_argument("--net-ms", type=float, default=0.5, help="assumed of a GPU: ms an evaluation (0.5)")
    made.add_argument("--features-ms", type=float, default=0.5, help="assumed of a GPU: ms a sample (0.5)")
    made.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--features", type=int, default=FEATURES, help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    made = parser()
    arguments = made.parse_args()
    torch.set_num_threads(1)
    if arguments.merge is not None:
        merge_here(arguments.merge, arguments.features)
        return
    samples, nfe = (1024, 15) if arguments.quick else (4096, 35)
    rows = measure_ranks(samples, nfe, arguments.rounds)
    here, large = measure_costs(rows[1])
    asked = replace(large, network=arguments.net_ms / 1000, features=arguments.features_ms / 1000)
    publish(section(rows, here, large, asked, command(made, arguments)), write=arguments.write)


if __name__ == "__main__":
    main()
