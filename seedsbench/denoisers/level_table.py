"""The noise levels that a network was trained at, where these are a finite list."""

import torch
from torch import Tensor


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

    def quantile(self, u: Tensor) -> Tensor:
        """The level below which a share u, in (0, 1), of the table lies, in the type of u."""
        index = (u * (self.last + 1)).long().clamp(max=self.last)
        return self.on(u.device)[index].to(u.dtype)
