"""A multistep method whose weights come from a file: learned ones, or those of a method of your own.

Methods that learn their levels and weights from a teacher (LD3, Tong et al. 2024; S4S, Frankel et al. 2025;
DyWeight and others) end as a table; this reads it and trains nothing. In unscaled coordinates

    x_(k+1) = state_k x_k + sum_j denoised_kj D_(k-j),    D_k = D(x_k, told_k),

one evaluation a step. Without a table it is Euler's method: state = s'/s, denoised = 1 - s'/s.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from seedsbench.checks import Level
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.solvers.base import StepResult, Unscaled


@dataclass(frozen=True)
class Coefficients(Unscaled):
    """NFE a step: 1.

    path: the YAML file with all that follows, in place of which it is read; what it says identifies rows.
    sigmas: (n + 1,) decreasing levels that the weights are for; the cell's grid must have the same. state:
    (n,) factors of the state. denoised: n lists, weights of the denoised images of this step, the one before
    and so on, at most all there are. told: (n,) levels that the network is told, where these are not its own.
    Raises ValueError for tables that do not fit each other or, when a run starts, its levels.
    """

    family: ClassVar[str] = "learned"
    order: ClassVar[int] = 1
    path: str | None = None
    sigmas: tuple[Level, ...] = ()
    state: tuple[float, ...] = ()
    denoised: tuple[tuple[float, ...], ...] = ()
    told: tuple[Level, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = max(len(self.sigmas) - 1, 0)
        for name in ("state", "denoised", "told"):
            found = len(getattr(self, name))
            if found != steps and (name != "told" or found):
                raise ValueError(
                    f"Coefficients: {name} has {found} entries, sigmas {len(self.sigmas)}: {steps} steps"
                )
        for k, weights in enumerate(self.denoised):
            if not 1 <= len(weights) <= k + 1:
                raise ValueError(f"Coefficients: denoised[{k}] has {len(weights)} weights: give 1 to {k + 1}")

    def init(self, process: Process, x: Tensor, times: Tensor) -> "_Past":
        sigmas = process.schedule.sigma(times)
        if self.sigmas:
            own = torch.tensor(self.sigmas, dtype=sigmas.dtype)
            if own.shape != sigmas.shape or not torch.allclose(own, sigmas.cpu(), rtol=1e-6, atol=0):
                levels = ",".join(f"{sigma:g}" for sigma in self.sigmas)
                raise ValueError(
                    f"Coefficients are for {len(own) - 1} steps over their own levels: use grid=explicit "
                    f"'grid.sigmas=[{levels}]'"
                )
        return _Past(0, ())

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        k = state.step
        level = torch.as_tensor(self.told[k], dtype=sigma.dtype) if self.told else sigma
        images = (process.predict(x, level), *state.denoised)
        if self.sigmas:
            factor, weights = x.new_tensor(self.state[k]), x.new_tensor(self.denoised[k]).unbind()
        else:
            factor = sigma_next / sigma
            weights = (1 - factor,)
        kept = images[: max(map(len, self.denoised), default=1)]
        x = add_weighted(x * expand(factor, x), weights, images[: len(weights)], owned=True)
        return StepResult(x, _Past(k + 1, kept))


@dataclass(frozen=True)
class _Past:
    """step: how many are done. denoised: the latest images, the last first."""

    step: int
    denoised: tuple[Tensor, ...]
