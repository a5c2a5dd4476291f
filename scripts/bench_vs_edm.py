"""From latents to FID, as a ratio to the way it is done today: EDM's three scripts, in a minimal loop.

    python scripts/bench_vs_edm.py                     # a table on the terminal
    python scripts/bench_vs_edm.py --quick             # ... within five minutes on two cores
    python scripts/bench_vs_edm.py --write             # ... and in results/benchmarks.md
    python scripts/bench_vs_edm.py --device cuda --samples 5000 --steps 18 --batch 256 --write

Today means Karras et al. 2022, code release: a torch generator an image, Heun's steps in float64 around
an eager float32 network without TF32, a PNG an image, the PNGs read again by a data loader, Inception, and
FID from the moments. The loop below does just that in our own words; its network is the plain form of ours
(see bench_networks.py). Against it runs the ordinary command in each mode: the times are those of its row.
Both do equal work, N x NFE evaluations of the same network (CIFAR-10's DDPM++, 55.7M random weights), and
give the same samples from the same latents, which is checked first. Starting Python and loading weights
count for neither. How far the samples of a mode are from strict fp32 is told by bench_sampling.py.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch
from bench_networks import plain
from edm_checkpoint import CIFAR10, write_edm  # pyright: ignore[reportMissingImports]
from extractors import (  # pyright: ignore[reportMissingImports]
    HAS_TORCH_FIDELITY,
    write_dinov2,
    write_inception,
)
from PIL import Image
from sections import publish
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import seedsbench
from seedsbench.metrics.dinov2 import dinov2_extractor
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.inception import inception_extractor
from seedsbench.report.table import markdown_table

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (3, 32, 32)
SIGMA_MIN, SIGMA_MAX, RHO, SIGMA_DATA = 0.002, 80.0, 7.0, 0.5
PARTS: tuple[str, ...] = ("sampling", "PNG", "features", "FID")
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
HEADING = "## Against EDM's scripts"


class TodaysSampler:
    """EDM's generation: one generator an image, float64 state, Heun's method from sigma 80 to 0."""

    def __init__(self, network: Any, steps: int, device: str) -> None:
        self.network, self.device = network, device
        ramp = torch.arange(steps, dtype=torch.float64, device=device) / (steps - 1)
        high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
        self.levels = torch.cat([(high + ramp * (low - high)) ** RHO, ramp.new_zeros(1)])

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[data | x] of float64 x, by the float32 network."""
        x32, s = x.float(), sigma.float()
        total = (s**2 + SIGMA_DATA**2).sqrt()
        output = plain(self.network, x32 / total, (s.log() / 4).expand(len(x)))
        return ((SIGMA_DATA / total) ** 2 * x32 + s * SIGMA_DATA / total * output).double()

    @torch.inference_mode()
    def sample(self, seeds: range) -> Tensor:
        """Images (B, 3, 32, 32), float64."""
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

        def noise(dtype: torch.dtype) -> Tensor:
            draws = [torch.randn(SHAPE, generator=g, device=self.device, dtype=dtype) for g in generators]
            return torch.stack(draws)

        x = noise(torch.float32).double() * self.levels[0]
        churn = 0.0  # none by default, but its noise is drawn
        for now, then in zip(self.levels[:-1], self.levels[1:], strict=True):
            x = x + churn * noise(torch.float64)
            slope = (x - self.denoise(x, now)) / now
            ahead = x + (then - now) * slope
            if then > 0:
                slope = (slope + (ahead - self.denoise(ahead, then)) / then) / 2
                ahead = x + (then - now) * slope
            x = ahead
        return x


class Pictures(Dataset[Tensor]):
    """The PNGs of a folder as uint8 (3, H, W)."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as picture:
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as 8-bit ones on the CPU."""
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8).cpu()


def todays_way(
    sampler: TodaysSampler, extractor: Extractor, reference: Path, n: int, batch: int, folder: Path
) -> dict[str, float]:
    """Seconds of each part; reading PNGs counts as features, in whose loop it is."""
    seconds = dict.fromkeys(PARTS, 0.0)
    for first in range(0, n, batch):
        start = time.perf_counter()
        seeds = range(first, min(n, first + batch))
        pictures = to_uint8(sampler.sample(seeds)).permute(0, 2, 3, 1).numpy()
        drawn = time.perf_counter()
        for seed, picture in zip(seeds, pictures, strict=True):
            Image.fromarray(picture).save(folder / f"{seed:06d}.png")
        seconds["sampling"] += drawn - start
        seconds["PNG"] += time.perf_counter() - drawn
    start = time.perf_counter()
    mean, outer = 0.0, 0.0
    for images in DataLoader(Pictures(folder), batch_size=64, num_workers=2):
        features = extractor.extract(images)[0].double()
        mean, outer = mean + features.sum(0), outer + features.T @ features
    mean, outer = torch.as_tensor(mean).cpu().numpy(), torch.as_tensor(outer).cpu().numpy()
    seconds["features"] = time.perf_counter() - start
    start = time.perf_counter()
    mean = mean / n
    covariance = (outer - n * np.outer(mean, mean)) / (n - 1)
    with np.load(reference) as stored:
        values, vectors = np.linalg.eigh(stored["sigma"])
        root = (vectors * values.clip(0) ** 0.5) @ vectors.T
        product = np.linalg.eigvalsh(root @ covariance @ root).clip(0)
        distance = ((mean - stored["mu"]) ** 2).sum() + values.sum() + np.trace(covariance)
    print(f"today's way: FID {distance - 2 * (product**0.5).sum():.4f} of {n} samples", file=sys.stderr)
    seconds["FID"] = time.perf_counter() - start
    return seconds


def ours(mode: str, options: list[str], folder: Path) -> dict[str, float]:
    """Seconds of each part of a cell, from the row that the command leaves."""
    command = [sys.executable, "-m", "seedsbench", *options, *MODES[mode]]
    command += [f"results_dir={folder}", f"study={mode.replace('+', '-')}"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    rows = list((folder / mode.replace("+", "-") / "rows").glob("*.json"))
    row = json.loads(rows[0].read_text()) if rows else {"status": "failed", "reason": done.stderr[-500:]}
    if row["status"] != "done":
        raise SystemExit(f"mode {mode}: {row['reason']}")
    print(f"{mode}: FID {row['fid']:.4f} of {row['samples']} samples, NFE {row['nfe']:g}", file=sys.stderr)
    names = ("seconds_sampling", "", "seconds_features", "seconds_scoring")
    seconds = [float(row[name]) if name else 0.0 for name in names]
    return dict(zip(PARTS, seconds, strict=True))


def difference(sampler: TodaysSampler, denoiser: Any, nfe: int) -> float:
    """Largest difference of the two loops' samples, clipped to [-1, 1], from the latents of two seeds."""
    made = [torch.Generator(sampler.device).manual_seed(seed) for seed in range(2)]
    latents = torch.stack([torch.randn(SHAPE, generator=g, device=sampler.device) for g in made])
    own = seedsbench.sample(denoiser, latents.double(), solver="heun", nfe=nfe).x
    return float((own.clip(-1, 1) - sampler.sample(range(2)).clip(-1, 1)).abs().max())


def default_modes(device: str) -> list[str]:
    """All on a GPU; on a CPU strict fp32, and bf16 where it has units for that."""
    if device != "cpu":
        return ["fp32", "tf32", "bf16", "fp16", "tf32+compile", "bf16+compile", "fp16+compile"]
    flags = Path("/proc/cpuinfo")
    has_bf16 = flags.is_file() and any(f in flags.read_text() for f in ("avx512_bf16", "amx_bf16"))
    return ["fp32", "bf16"] if has_bf16 else ["fp32"]


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[list[list[str]], float, str]:
    """Rows of the table, the samples' difference, and the extractor's name."""
    nfe, device = 2 * arguments.steps - 1, arguments.device
    weights = write_edm(folder / "network.pkl", resolution=32, network=CIFAR10)
    denoiser: Any = seedsbench.load_denoiser(weights)
    denoiser.to(device)
    plain_network: Any = seedsbench.load_denoiser(weights)
    network: Any = plain_network.network.to(device).to(memory_format=torch.contiguous_format)
    sampler = TodaysSampler(network, arguments.steps, device)
    gap = difference(sampler, denoiser, nfe)
    print(f"the two loops' samples differ by at most {gap:.2g}", file=sys.stderr)  # and all is warm
    if not gap <= TOLERANCE:
        raise SystemExit(f"the two loops' samples differ by {gap:.2g}, more than {TOLERANCE}: no fair race")
    name = "inception" if HAS_TORCH_FIDELITY else "dinov2"
    seen = (write_inception if HAS_TORCH_FIDELITY else write_dinov2)(folder / "extractor.pth")
    extractor = (inception_extractor if HAS_TORCH_FIDELITY else dinov2_extractor)(seen, device)
    reference = folder / "reference.npz"
    np.savez(reference, mu=np.zeros(extractor.dim), sigma=np.eye(extractor.dim))
    options = ["model=file", f"model.path={weights}", "regime=edm", "solver=heun", f"nfe={nfe}"]
    options += [f"metrics={name}", f"metrics.weights={seen}", f"metrics.reference={reference}"]
    options += [f"samples={arguments.samples}", f"device={device}", f"batch_size={arguments.batch}"]
    pictures = folder / "pictures"
    pictures.mkdir()
    n, batch = arguments.samples, arguments.batch
    timed = {"today's way": todays_way(sampler, extractor, reference, n, batch, pictures)}
    for mode in arguments.modes or default_modes(device):
        timed[mode] = ours(mode, options, folder)
    whole = sum(timed["today's way"].values())
    rows = []
    for way, found in timed.items():
        numbers = [*found.values(), sum(found.values()), 1000 * found["sampling"] / (n * nfe)]
        rows.append([way, *(f"{v:.2f}" for v in [*numbers, whole / sum(found.values())])])
    return rows, gap, extractor.name


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--steps", type=int, default=18, help="of Heun's method: NFE is 2 steps - 1")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: what the device is good for")
    parser.add_argument("--quick", action="store_true", help="16 samples of 2 steps")
    parser.add_argument("--write", action="store_true", help="write results/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.steps = 16, 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        rows, gap, extractor = measure(arguments, Path(folder))
    nfe = 2 * arguments.steps - 1
    machine = torch.cuda.get_device_name() if arguments.device != "cpu" else platform.machine()
    stand_in = "" if HAS_TORCH_FIDELITY else " (a small stand-in: torch-fidelity is not installed)"
    told = (
        f"`python scripts/{Path(__file__).name} --device {arguments.device} --samples {arguments.samples} "
        f"--steps {arguments.steps} --batch {arguments.batch} --write`: {arguments.samples} samples x NFE "
        f"{nfe} = {arguments.samples * nfe} evaluations, {machine}, {torch.get_num_threads()} thread(s), "
        f"torch {torch.__version__}, features of {extractor}{stand_in}. Seconds; the last column is how many "
        f"times as fast as today's way. The samples of both differ by at most {gap:.1g}, in [-1, 1]."
    )
    header = ["way", *PARTS, "in all", "sampling, ms per evaluation", "ratio"]
    section = "\n".join([HEADING, "", told, "", *markdown_table(header, rows), ""])
    publish(section, write=arguments.write)


if __name__ == "__main__":
    main()
