"""Gaussian teleportation (Wang and Vastola 2024): the first part of the way in closed form, at no evaluation.

At high noise a network's answer is that of a Gaussian with the data's mean m and covariance C. For it the
probability-flow ODE from sigma_s to sigma_t is solved exactly: along each eigenvector u of C, of variance v,

    u.(x_t - m) = sqrt((v + sigma_t^2) / (v + sigma_s^2)) u.(x_s - m).

So a run may begin at sigma_t, with the state that the Gaussian's flow has there. `afs` replaces one
evaluation by the same answer for m = 0, C = 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianTeleport:
    """mean: (C, H, W). variances: (d,), vectors: (d, d) columns, of the covariance, d = C H W; float64."""

    mean: Tensor
    variances: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> "GaussianTeleport":
        """From the data's mean (C, H, W) and covariance (d, d) of flattened images.

        Raises ValueError for shapes that do not belong together and for a covariance that is none.
        """
        d = mean.numel()
        if mean.ndim != 3 or tuple(covariance.shape) != (d, d):
            raise ValueError(
                f"mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)} do not belong together: "
                "expected (C, H, W) and (C H W, C H W)"
            )
        if not torch.allclose(covariance, covariance.T):
            raise ValueError("the covariance is not symmetric")
        variances, vectors = torch.linalg.eigh(covariance.double())
        if float(variances[0]) < -1e-6 * float(variances[-1].clamp(min=1e-300)):
            raise ValueError(
                f"the covariance has the eigenvalue {float(variances[0]):.3g}: expected none below 0"
            )
        return cls(mean.double(), variances.clamp(min=0), vectors)

    @classmethod
    def of_images(cls, images: Tensor) -> "GaussianTeleport":
        """From images (N, C, H, W) of the data, N at least 2, in the network's range."""
        if images.ndim != 4 or len(images) < 2:
            raise ValueError(f"images of shape {tuple(images.shape)}: expected (N, C, H, W) with N from 2")
        flat = images.flatten(1).double()
        return cls.of(images.double().mean(0), torch.cov(flat.T).reshape(flat.shape[1], -1))

    def __call__(self, latents: Tensor, high: float, low: float) -> Tensor:
        """Latents for a run that begins at `low` in place of `high`.

        latents: (B, C, H, W) standard normal, as for a run from `high` > `low` > 0. The answer times `low` is
        the Gaussian's state there; give it to `seedsbench.sample` with `sigmas` from `low`. Raises ValueError
        for levels that do not fall.
        """
        if not high > low > 0:
            raise ValueError(f"high={high:g}, low={low:g}: expected high > low > 0")
        around = ((latents.double() * high - self.mean).flatten(1)) @ self.vectors
        # Elementwise ratio of the variances with noise: rounding-safe for v = 0 and for v far above sigma^2.
        moved = around * ((self.variances + low**2) / (self.variances + high**2)).sqrt()
        x = self.mean + (moved @ self.vectors.T).reshape(latents.shape)
        return (x / low).to(latents.dtype)
