"""A raw network and its preconditioner, together a denoiser (Karras et al. 2022, Eq. 7)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from seedsbench.denoisers.base import Denoiser, check_labels, move
from seedsbench.denoisers.preconditioning.karras import EDMPreconditioner, Preconditioner
from seedsbench.diffusion.process import expand


class Preconditioned(Denoiser):
    """A network F(x_in, c_noise, labels) seen through a preconditioner.

    The network is handed its weights' floating-point type; everything around it is computed in that of x.
    Networks that also predict a variance (twice the channels) are cut to their first half. Gradients are the
    caller's affair.
    """

    def __init__(
        self,
        network: nn.Module,
        preconditioner: Preconditioner,
        *,
        img_channels: int,
        img_resolution: int,
        label_dim: int = 0,
    ) -> None:
        self.network, self.preconditioner = network, preconditioner
        self.img_channels, self.img_resolution, self.label_dim = img_channels, img_resolution, label_dim
        self.sigma_min, self.sigma_max = preconditioner.sigma_min, preconditioner.sigma_max
        self.table = preconditioner.trained_at
        if isinstance(preconditioner, EDMPreconditioner):
            self.sigma_data = preconditioner.sigma_data
        self._dtype: torch.dtype | None = None

    def to(self, device: torch.device | str) -> "Preconditioned":
        """Move the network's weights, in place, as `move` does; returns self."""
        move(self.network, device)
        return self

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> "Preconditioned":
        changed = copy.copy(self)
        changed.network, changed._dtype = change(self.network), self._network_dtype()
        return changed

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.preconditioner.round_sigma(sigma)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, x.shape[0])
        sigma = sigma.to(x.dtype)
        output = self.output(x, sigma, labels).to(x.dtype)
        return expand(self.preconditioner.c_skip(sigma), x) * x + (
            expand(self.preconditioner.c_out(sigma), x) * output
        )

    def output(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """F(c_in x, c_noise, labels), (B, C, H, W) in the network's dtype."""
        dtype = self._network_dtype()
        x_in = (expand(self.preconditioner.c_in(sigma), x) * x).to(dtype)
        # Noise levels that all samples share are numbers of the host; no need to wait until a GPU has them.
        c_noise = self.preconditioner.c_noise(sigma).to(x.device, dtype, non_blocking=x.is_cuda)
        labels = None if labels is None else labels.to(dtype)
        return self.network(x_in, c_noise, labels)[:, : self.img_channels]

    def _network_dtype(self) -> torch.dtype:
        return self._dtype or next(self.network.parameters()).dtype
