"""A fine solution of the probability-flow ODE of some samples, which grids are searched along."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seedsbench.api import noise_levels
from seedsbench.denoisers.base import Denoiser
from seedsbench.diffusion.grid import Grid
from seedsbench.diffusion.noise import SEARCH, Philox, Silent
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Linear
from seedsbench.solvers.base import Solver
from seedsbench.solvers.integrate import integrate


@dataclass(frozen=True, eq=False)
class Teacher:
    """Samples along their exact paths, in unscaled coordinates x = data + sigma noise.

    denoiser: D, guided if the samples are. labels: (B, K) or None. sigmas: (m,) decreasing levels. x:
    (m, B, C, H, W) the states there. denoised: D of each, of the same shape. evaluations: what it cost, over
    all samples.
    """

    denoiser: Denoiser
    labels: Tensor | None
    sigmas: Tensor
    x: Tensor
    denoised: Tensor
    evaluations: int

    @property
    def finished(self) -> Tensor:
        """(B, C, H, W): where the paths end, the denoised images at the last level."""
        return self.denoised[-1]

    @property
    def noise(self) -> Tensor:
        """(m, B, C, H, W): the noise that is left, of unit variance: dx/dsigma of the ODE."""
        return (self.x - self.denoised) / self.sigmas.reshape(-1, 1, 1, 1, 1)

    def stepped(self, i: int) -> Tensor:
        """(m - i, B, C, H, W): where Euler steps from level i lead, to each later level and to the data."""
        lower = torch.cat([self.sigmas[i + 1 :], self.sigmas.new_zeros(1)])
        return self.x[i] + (lower - self.sigmas[i]).reshape(-1, 1, 1, 1, 1) * self.noise[i]

    def ahead(self, i: int) -> Tensor:
        """(m - i, B, C, H, W): the exact states that `stepped` should lead to."""
        return torch.cat([self.x[i + 1 :], self.finished[None]])


def taught(
    denoiser: Denoiser,
    labels: Tensor | None,
    indices: Tensor,
    *,
    solver: Solver,
    grid: Grid,
    n_steps: int,
    seed: int,
) -> Teacher:
    """A teacher by `solver`, which draws no noise, over n_steps of `grid`, of the samples with these indices.

    Their latents are of the stream SEARCH, which no cell draws from: what is searched on is never tested on.
    """
    sigmas, _ = noise_levels(denoiser, Linear(), grid, n_steps)
    latents = Philox(indices, denoiser.image_shape, seed=seed, stream=SEARCH).normal()
    run, asked = (Process(denoiser, Linear(), len(indices), labels) for _ in range(2))
    with torch.inference_mode():
        states = torch.stack(
            list(integrate(run, solver, latents, sigmas, Silent(latents.shape), "stop"))[:-1]
        )
        denoised = torch.stack([asked.predict(x, sigma) for x, sigma in zip(states, sigmas, strict=True)])
    return Teacher(denoiser, labels, sigmas, states, denoised, int(run.nfe.sum() + asked.nfe.sum()))


def deviation(found: Tensor, exact: Tensor) -> Tensor:
    """Mean over the samples of |found - exact|, the Euclidean norm. (..., B, C, H, W) -> (...)."""
    return (found - exact).flatten(-3).norm(dim=-1).mean(dim=-1)
