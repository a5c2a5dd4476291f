"""From latents to FID, as a ratio to the way it is done today: EDM's three scripts, in a minimal loop.

    python scripts/benchmarks/vs_edm.py  # a table on the terminal; it says how long it takes
    python scripts/benchmarks/vs_edm.py --quick             # ... within five minutes on two cores
    python scripts/benchmarks/vs_edm.py --write             # ... and in results/benchmarks.md
    python scripts/benchmarks/vs_edm.py --device cuda --samples 5000 --steps 18 --batch 256 --write

Today means Karras et al. 2022, code release: a torch generator an image, Heun's steps in float64 around
an eager float32 network without TF32, a PNG an image, the PNGs read again by a data loader, Inception, and
FID from the moments. The loop below does just that in our own words; its network is the plain form of ours
(see networks.py). Against it runs the ordinary command in each mode: the times are those of its row.
Both do equal work, N x NFE evaluations of the same network (CIFAR-10's DDPM++, 55.7M random weights), and
give the same samples from the same latents, which is checked first.

Starting Python and loading weights count for neither, and neither does the first time of anything: today's
way is warmed by a few samples of three evaluations, and so is, in its own process, each of ours (a batch of
them on a GPU). What our warm-up took, mostly torch.compile, has a column. The ways take turns, in another
order each round. The samples of each mode are compared with those of strict fp32 in the same run: that tells
which modes are accurate enough to count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor

import seedsbench
from scripts.benchmarks.edm_baseline import PARTS, SHAPE, TodaysSampler, todays_fid, todays_way
from scripts.benchmarks.interleave import in_turn, spread
from scripts.benchmarks.publish import command, foretell, machine, options, publish
from scripts.benchmarks.sampling import BF16_FLAGS, bf16_units
from seedsbench.metrics import frechet_distance
from seedsbench.metrics.dinov2 import dinov2_extractor
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.inception import inception_extractor
from seedsbench.report.table import markdown_table
from tests.support.edm_checkpoint import CIFAR10, write_edm  # pyright: ignore[reportMissingImports]
from tests.support.extractors import (  # pyright: ignore[reportMissingImports]
    HAS_TORCH_FIDELITY,
    write_dinov2,
    write_inception,
)

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.001
"""Largest difference of the two loops' samples, of values in [-1, 1]: float32 networks summed otherwise."""
MODES = {
    "fp32": (),
    "tf32": ("precision=tf32",),
    "bf16": ("precision=bf16",),
    "fp16": ("precision=fp16",),
    "fp32+compile": ("compile=true",),
    "tf32+compile": ("precision=tf32", "compile=true"),
    "bf16+compile": ("precision=bf16", "compile=true"),
    "fp16+compile": ("precision=fp16", "compile=true"),
}
TODAY = "today's way"
KEPT = 64
"""Samples of each mode that are compared with those of strict fp32, at most."""
ENOUGH = 10
"""A mode counts if its samples are off by at most so many times what tf32's are."""
HEADING = "## Against EDM's scripts"


def ours(mode: str, cell: dict[str, Any], few: int, folder: Path) -> tuple[dict[str, float], float, Tensor]:
    """Of a cell by the command: seconds of its parts, of the warm-up's sampling, and its first samples."""
    studies = {"warm": cell | {"samples": few, "nfe": 3, "seed": 1}, "main": cell}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        asked: dict[str, Any] = {"samples": f"{place}/samples.pt"}
        for study, choices in studies.items():
            overrides = [f"{key}={value}" for key, value in choices.items()]
            asked[study] = [*overrides, *MODES[mode], f"results_dir={place}", f"study={study}"]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps(asked)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        rows = {}
        for study in studies:
            files = list(Path(place).glob(f"{study}/rows/*.json"))
            row = json.loads(files[0].read_text()) if files else {"status": "", "reason": done.stderr[-500:]}
            if row["status"] != "done":
                raise SystemExit(f"mode {mode}: {row['reason']}")
            rows[study] = row
        samples = torch.load(asked["samples"])
    row = rows["main"]
    print(f"{mode}: FID {row['fid']:.4f} of {row['samples']} samples, NFE {row['nfe']:g}", file=sys.stderr)
    names = ("seconds_sampling", "", "seconds_features", "seconds_scoring")
    seconds = {part: float(row[name]) if name else 0.0 for part, name in zip(PARTS, names, strict=True)}
    return seconds, float(rows["warm"]["seconds_sampling"]), samples


def child(asked: dict[str, Any]) -> None:
    """The warm-up and the cell by the command, one after the other in this process; keeps some samples."""
    from seedsbench.bench import draw_and_score as share
    from seedsbench.cli import main as cli

    kept: list[Tensor] = []
    extractor_input = share.extractor_input

    def keeping(problem: Any, x: Tensor) -> Tensor:
        if not kept:
            kept.append(x[:KEPT].double().cpu())
        return extractor_input(problem, x)

    share.extractor_input = keeping
    for study in ("warm", "main"):
        kept.clear()
        try:
            cli.main(asked[study])
        except SystemExit as end:
            if end.code:
                raise
    torch.save(kept[0], asked["samples"])


def difference(sampler: TodaysSampler, denoiser: Any, nfe: int) -> float:
    """Largest difference of the two loops' samples, clipped to [-1, 1], from the latents of two seeds."""
    made = [torch.Generator(sampler.device).manual_seed(seed) for seed in range(2)]
    latents = torch.stack([torch.randn(SHAPE, generator=g, device=sampler.device) for g in made])
    own = seedsbench.sample(denoiser, latents.double(), solver="heun", nfe=nfe).x
    return float((own.clip(-1, 1) - sampler.sample(range(2)).clip(-1, 1)).abs().max())


def default_modes(device: str, *, quick: bool, units: list[str]) -> list[str]:
    """All on a GPU; on a CPU strict fp32, and bf16 where it has units for that. Quick: none compiled."""
    names = list(MODES)
    if device == "cpu":
        names = ["fp32", "fp32+compile"] + ["bf16", "bf16+compile"] * bool(units)
    return [name for name in names if not (quick and "compile" in name)]


@dataclass
class Found:
    """What all rounds gave, by way: seconds of parts, whole, warm-up; samples; texts about all of them."""

    parts: dict[str, list[dict[str, float]]]
    warm: dict[str, list[float]]
    samples: dict[str, Tensor]
    gap: float
    extractor: Extractor
    profile: str

    def ratios(self, way: str) -> list[float]:
        """How many times as fast as today's way, in each round."""
        wholes = zip(self.parts[TODAY], self.parts[way], strict=True)
        return [sum(today.values()) / sum(own.values()) for today, own in wholes]

    def deviation(self, mode: str) -> float:
        """Of its samples from those of strict fp32, rms over rms."""
        strict = self.samples["fp32"]
        return float((self.samples[mode] - strict).square().mean().sqrt() / strict.square().mean().sqrt())


def measure(arguments: argparse.Namespace, folder: Path) -> Found:
    """All ways, in turn, for so many rounds."""
    n, batch, steps, device = (getattr(arguments, x) for x in ("samples", "batch", "steps", "device"))
    nfe = 2 * steps - 1
    weights = write_edm(folder / "network.pkl", resolution=32, network=CIFAR10)
    denoiser: Any = seedsbench.load_denoiser(weights)
    denoiser.to(device)
    plain_network: Any = seedsbench.load_denoiser(weights)
    network: Any = plain_network.network.to(device).to(memory_format=torch.contiguous_format)
    sampler = TodaysSampler(network, steps, device)
    gap = difference(sampler, denoiser, nfe)
    print(f"the two loops' samples differ by at most {gap:.2g}", file=sys.stderr)
    if not gap <= TOLERANCE:
        raise SystemExit(f"the two loops' samples differ by {gap:.2g}, more than {TOLERANCE}: no fair race")
    name = "inception" if HAS_TORCH_FIDELITY else "dinov2"
    seen = (write_inception if HAS_TORCH_FIDELITY else write_dinov2)(folder / "extractor.pth")
    extractor = (inception_extractor if HAS_TORCH_FIDELITY else dinov2_extractor)(seen, device)
    reference = folder / "reference.npz"
    np.savez(reference, mu=np.zeros(extractor.dim), sigma=np.eye(extractor.dim))
    cell = {"model": "file", "model.path": weights, "regime": "edm", "solver": "heun", "nfe": nfe}
    cell |= {"metrics": name, "metrics.weights": seen, "metrics.reference": reference}
    cell |= {"samples": n, "device": device, "batch_size": batch}
    few = 2 if device == "cpu" else min(n, batch)
    heated, *_ = todays_way(TodaysSampler(network, 2, device), extractor, reference, few, batch)
    ways = [TODAY, *dict.fromkeys(["fp32", *arguments.modes])]
    each = heated["sampling"] / (3 * few) * n * nfe + 30
    foretell("all", arguments.rounds * len(ways) * each)
    found = Found({way: [] for way in ways}, {way: [] for way in ways}, {}, gap, extractor, "")
    for turn in range(arguments.rounds):
        for way in in_turn(ways, turn):
            if way == TODAY:
                seconds, mean, covariance = todays_way(sampler, extractor, reference, n, batch)
                found.profile = fid_profile(mean, covariance, reference)
            else:
                seconds, taken, found.samples[way] = ours(way, cell, few, folder)
                found.warm[way].append(taken)
            found.parts[way].append(seconds)
    return found


def fid_profile(mean: np.ndarray, covariance: np.ndarray, reference: Path) -> str:
    """What today's FID and ours take for the same moments, in words."""
    with np.load(reference) as stored:
        mu, sigma = stored["mu"], stored["sigma"]
    taken = []
    for run in (
        lambda: todays_fid(mean, covariance, reference),
        lambda: frechet_distance(mean, covariance, mu, sigma),
    ):
        clock, processor = time.perf_counter(), time.process_time()
        value = run()
        taken.append((time.perf_counter() - clock, time.process_time() - processor, value))
    (theirs, busy, other), (own, own_busy, value) = taken
    return (
        f"FID of the same moments: today's {theirs:.2f} s by the clock ({busy:.2f} s of processors), ours "
        f"{own:.2f} s ({own_busy:.2f} s), on one thread so that it does not depend on their number; the two "
        f"values differ by {abs(value - other):.1g}."
    )


def table(found: Found, evaluations: int) -> list[str]:
    """Markdown lines: of each way the medians of its parts, and its ratios."""
    lines = []
    for way, rounds in found.parts.items():
        parts = [statistics.median(seconds[part] for seconds in rounds) for part in PARTS]
        whole = statistics.median(sum(seconds.values()) for seconds in rounds)
        numbers = [*parts, whole, 1000 * parts[0] / evaluations]
        extra = ["-", "-"]
        if way != TODAY:
            extra = [f"{statistics.median(found.warm[way]):.2f}", f"{found.deviation(way):.1e}"]
        lines.append([way, *(f"{v:.2f}" for v in numbers), spread(found.ratios(way), 2), *extra])
    header = ["way", *PARTS, "in all", "sampling, ms per evaluation", "ratio", "warm-up", "deviation"]
    return markdown_table(header, lines)


def verdict(found: Found) -> str:
    """Which modes are accurate enough, and the fastest of them."""
    modes = list(found.samples)
    if "tf32" not in modes:
        return (
            "Without tf32 among the modes (it needs a GPU) there is no bound for the deviations of others; "
            "strict fp32 is eligible as it is."
        )
    bound = ENOUGH * found.deviation("tf32")
    fit = {mode: statistics.median(found.ratios(mode)) for mode in modes if found.deviation(mode) <= bound}
    best = max(fit, key=lambda mode: fit[mode])
    return (
        f"Eligible, with a deviation of at most {ENOUGH} times tf32's ({bound:.1e}): {', '.join(fit)}. **The "
        f"fastest of them, {best}, is {fit[best]:.2f} times as fast as today's way** (target on a GPU of the "
        f"H200's class: 4; of strict fp32 there 1.3, here {fit['fp32']:.2f})."
    )


def reasons(found: Found, n: int, device: str) -> str:
    """Where ours may be slower and why, from what was measured."""
    threads, said = torch.get_num_threads(), []
    if device == "cpu":
        units = bf16_units()
        has = (
            f"This CPU has units for bf16 ({', '.join(units)})."
            if units
            else (
                "The target on a CPU, 1.5, needs units for bf16; this one has none "
                f"({' or '.join(BF16_FLAGS)} in /proc/cpuinfo), so that both ways run the same float32 "
                "network: see their ms per evaluation."
            )
        )
        blocks = -(-n // found.extractor.block)
        said = [
            has,
            f"Features: {n} samples are {blocks} block(s) of {found.extractor.block}, each on a thread of "
            f"its own, so that {min(blocks, threads)} of {threads} threads work, and a last block that is "
            "not whole is padded; today's way has all threads work on up to 64 images.",
        ]
    return " ".join([*said, found.profile])


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick="16 samples of 2 steps; no compilation")
    made.add_argument("--samples", type=int, help="32 (--quick: 16)")
    made.add_argument("--steps", type=int, help="of Heun's method, NFE is 2 steps - 1: 9 (--quick: 2)")
    made.add_argument("--batch", type=int, default=64, help="samples at a time: 64")
    made.add_argument("--rounds", type=int, default=2, help="of all ways in turn: 2")
    made.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    made.add_argument(
        "--modes", nargs="+", choices=MODES, help="beside fp32; default: all that suit the device"
    )
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
        return
    made = parser()
    arguments = made.parse_args()
    ran = command(made, arguments)
    arguments.samples = arguments.samples or (16 if arguments.quick else 32)
    arguments.steps = arguments.steps or (2 if arguments.quick else 9)
    if arguments.samples < 2 or arguments.steps < 2:
        made.error("--samples and --steps must be 2 at least")
    if not arguments.modes:
        arguments.modes = default_modes(arguments.device, quick=arguments.quick, units=bf16_units())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    n, nfe, device = arguments.samples, 2 * arguments.steps - 1, arguments.device
    stand_in = "" if HAS_TORCH_FIDELITY else " (a small stand-in: torch-fidelity is not installed)"
    told = (
        f"`{ran}`: {n} samples x NFE {nfe} = {n * nfe} evaluations, {machine(device)}, "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, features of "
        f"{found.extractor.name}{stand_in}; medians of {arguments.rounds} rounds in turn. Seconds, all after "
        "a warm-up; `ratio` is how many times as fast as today's way in the same round, with its range; "
        "`warm-up` is our sampling of a few samples before, with torch.compile where the mode asks for it, "
        "and is not counted; `deviation` is that of the samples from strict fp32's, rms over rms. The "
        f"samples of both fp32 loops differ by at most {found.gap:.1g}, in [-1, 1]."
    )
    lines = [HEADING, "", told, "", *table(found, n * nfe), "", verdict(found), "", reasons(found, n, device)]
    publish("\n".join(lines), write=arguments.write, device=device)


if __name__ == "__main__":
    main()
