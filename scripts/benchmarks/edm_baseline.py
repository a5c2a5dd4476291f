"""EDM's three scripts as a minimal loop of our own, for vs_edm.py: sampling, PNGs, features, FID."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scripts.benchmarks.networks import plain
from seedsbench.metrics.extraction import Extractor

SHAPE = (3, 32, 32)
SIGMA_MIN, SIGMA_MAX, RHO, SIGMA_DATA = 0.002, 80.0, 7.0, 0.5
PARTS: tuple[str, ...] = ("sampling", "PNG", "features", "FID")


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
    sampler: TodaysSampler, extractor: Extractor, reference: Path, n: int, batch: int
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Seconds of each part, mean, covariance; reading PNGs counts as features, in whose loop it is."""
    seconds = dict.fromkeys(PARTS, 0.0)
    with tempfile.TemporaryDirectory() as pictures:
        folder = Path(pictures)
        for first in range(0, n, batch):
            start = time.perf_counter()
            seeds = range(first, min(n, first + batch))
            drawn = to_uint8(sampler.sample(seeds)).permute(0, 2, 3, 1).numpy()
            sampled = time.perf_counter()
            for seed, picture in zip(seeds, drawn, strict=True):
                Image.fromarray(picture).save(folder / f"{seed:06d}.png")
            seconds["sampling"] += sampled - start
            seconds["PNG"] += time.perf_counter() - sampled
        start = time.perf_counter()
        total, outer = 0.0, 0.0
        for images in DataLoader(Pictures(folder), batch_size=64, num_workers=2):
            features = extractor.extract(images)[0].double()
            total, outer = total + features.sum(0), outer + features.T @ features
    mean, outer = torch.as_tensor(total).cpu().numpy() / n, torch.as_tensor(outer).cpu().numpy()
    seconds["features"] = time.perf_counter() - start
    start = time.perf_counter()
    covariance = (outer - n * np.outer(mean, mean)) / (n - 1)
    todays_fid(mean, covariance, reference)
    seconds["FID"] = time.perf_counter() - start
    return seconds, mean, covariance


def todays_fid(mean: np.ndarray, covariance: np.ndarray, reference: Path) -> float:
    """FID by symmetric roots, on as many threads as numpy takes."""
    with np.load(reference) as stored:
        values, vectors = np.linalg.eigh(stored["sigma"])
        root = (vectors * values.clip(0) ** 0.5) @ vectors.T
        product = np.linalg.eigvalsh(root @ covariance @ root).clip(0)
        distance = ((mean - stored["mu"]) ** 2).sum() + values.sum() + np.trace(covariance)
    return float(distance - 2 * (product**0.5).sum())
