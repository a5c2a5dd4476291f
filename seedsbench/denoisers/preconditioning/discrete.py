"""Networks trained at a table of noise levels.

DDPM's (Ho et al. 2020, Eq. 4) and improved DDPM's (Nichol and Dhariwal 2021, Eq. 17).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from seedsbench.denoisers.preconditioning.karras import NoisePreconditioner
from seedsbench.denoisers.prediction import check_prediction
from seedsbench.diffusion.schedule import Discrete


class LevelTable:
    """Increasing noise levels (n,), float64, and where a given one falls among them."""

    def __init__(self, levels: Tensor) -> None:
        self._on: dict[torch.device, Tensor] = {torch.device("cpu"): levels}
        self.low, self.high, self.last = float(levels[0]), float(levels[-1]), len(levels) - 1

    def on(self, device: torch.device) -> Tensor:
        """The levels, on a device."""
        if device not in self._on:
            self._on[device] = self._on[torch.device("cpu")].to(device)
        return self._on[device]

    def nearest(self, sigma: Tensor) -> Tensor:
        """Index of the nearest level, int64, shaped like sigma; of two equally near ones the smaller."""
        table, value = self.on(sigma.device), sigma.to(torch.float64)
        above = torch.searchsorted(table, value.contiguous()).clamp(max=self.last)
        below = (above - 1).clamp(min=0)
        return torch.where(value - table[below] <= table[above] - value, below, above)

    def rounded(self, sigma: Tensor) -> Tensor:
        """The nearest level itself, in the type of sigma."""
        return self.on(sigma.device)[self.nearest(sigma)].to(sigma.dtype)

    def index(self, sigma: Tensor, *, fractional: bool) -> Tensor:
        """Of the nearest level; fractional: real-valued, log-linear between levels and held at the ends."""
        if not fractional:
            return self.nearest(sigma)
        table, value = self.on(sigma.device), sigma.to(torch.float64)
        above = torch.searchsorted(table, value.contiguous()).clamp(1, self.last)
        below = table[above - 1].log()
        return (above - 1 + (value.log() - below) / (table[above].log() - below)).clamp(0, self.last)

    def at(self, index: Tensor) -> Tensor:
        """The level at a real-valued index, float64: the inverse of `index`."""
        table, place = self.on(index.device).log(), index.to(torch.float64).clamp(0, self.last)
        below = place.floor().long().clamp(max=self.last - 1)
        return (table[below] + (place - below) * (table[below + 1] - table[below])).exp()


@dataclass(frozen=True)
class DiscreteNoisePrediction(NoisePreconditioner):
    """A network of DDPM's kind: it sees images scaled to unit variance and the index of their level.

    schedule: the table of noise levels; index 0 is the smallest.
    label_scale: what the index is multiplied by before the network sees it (OpenAI's rescale_timesteps).
    fractional: between two levels, tell the network a real-valued index instead of the nearest one, and
        leave noise levels as they are in `round_sigma`: what DPM-Solver and SEEDS do with such networks.
    predicts: the noise ("epsilon") or the image ("sample").
    kept: indices that `round_sigma` may round to (a respaced process), increasing; all, if empty.
    """

    schedule: Discrete
    label_scale: float = 1.0
    fractional: bool = False
    predicts: Literal["epsilon", "sample"] = "epsilon"
    kept: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kept, last = self.kept, self.schedule.num_train_timesteps - 1
        if not kept or kept[-1] == last:
            check_prediction(self.predicts, self.schedule)
        inside = len(kept) > 1 and kept[0] >= 0 and kept[-1] <= last
        if kept and not (inside and list(kept) == sorted({*kept})):
            raise ValueError(f"kept={kept} must be at least two increasing indices of 0 .. {last}")

    @property
    def trained_at(self) -> Discrete:
        return self.schedule

    @cached_property
    def table(self) -> LevelTable:
        """All levels that the network was trained at."""
        return LevelTable(self.schedule.short_of_limit().log_sigmas.exp())

    @cached_property
    def _kept_table(self) -> LevelTable:
        return LevelTable(self.table.on(torch.device("cpu"))[list(self.kept)]) if self.kept else self.table

    @property
    def sigma_min(self) -> float:
        return self._kept_table.low

    @property
    def sigma_max(self) -> float:
        return self._kept_table.high

    def c_skip(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma) if self.predicts == "epsilon" else torch.zeros_like(sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        return -sigma if self.predicts == "epsilon" else torch.ones_like(sigma)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma if self.fractional else self._kept_table.rounded(sigma)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return self.label_scale * self.table.index(sigma, fractional=self.fractional).to(sigma.dtype)

    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        return self.table.at(c_noise / self.label_scale).to(c_noise.dtype)
