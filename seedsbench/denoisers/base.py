"""What every network and every analytic model becomes: D(x, sigma, labels) = E[data | x]."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seedsbench.checks import NO_NETWORK
from seedsbench.diffusion.grid import DiscreteGrid
from seedsbench.diffusion.process import evaluations_at
from seedsbench.diffusion.schedule import Discrete
from seedsbench.exact.blocks import map_blocks

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


class Denoiser(ABC):
    """Ideal output of a diffusion network, in the coordinates of Karras et al. 2022.

    Preconditioning, prediction type (epsilon, v, x0, F), guidance and the network's dtype end here:
    a solver sees only the conditional mean of the data.

    Attributes:
        img_channels: C of the (B, C, H, W) images.
        img_resolution: height of the images in pixels.
        label_dim: number of classes K; 0 means unconditional.
        class_weights: share of each class in the data, (K,); None where all are equal.
        sigma_min, sigma_max: range of noise levels (data std units) the denoiser is good for.
        sigma_data: data std the network's own parametrisation assumes (EDM preconditioning), else None.
        evaluations: the most network evaluations one call costs each sample (2 with guidance).
        prediction_type: what its network predicts, where that matters: what guidance rescales.
        image_shape: (C, H, W) of one sample.
        table: the table of noise levels the network was trained at; None for continuous ones.
        spacing: how the scheduler that came with it picks timesteps of the table; None where none came.
        fixed_batch: whether its network sees batches of one size, whatever the caller's.
    """

    img_channels: int
    img_resolution: int
    label_dim: int = 0
    class_weights: tuple[float, ...] | None = None
    sigma_min: float = 0.0
    sigma_max: float = float("inf")
    sigma_data: float | None = None
    evaluations: int = 1
    prediction_type: PredictionType = "epsilon"
    table: Discrete | None = None
    spacing: DiscreteGrid | None = None
    fixed_batch: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.img_channels, self.img_resolution, self.img_resolution)

    @abstractmethod
    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[data | x], same shape and dtype as x.

        x: (B, C, H, W), data + sigma * noise with data in [-1, 1], unscaled. sigma: () or (B,).
        labels: (B, K) one-hot (a zero row is unconditional) or None.
        """

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level the network was trained on; the identity for continuous ones."""
        return sigma

    def evaluations_at(self, sigma: Tensor) -> int | Tensor:
        """Network evaluations that one call at this noise level, () or (B,), costs each sample.

        An integer where it is the same at every level, else int64 of the shape of sigma.
        """
        return self.evaluations

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> "Denoiser":
        """A copy that runs change(its raw network) and hands it what it hands its own.

        The network's arguments are tensors (or None), its result is one tensor. Raises ValueError for a
        denoiser without a network.
        """
        raise ValueError(f"{type(self).__name__} {NO_NETWORK}")


def move(network: nn.Module, device: torch.device | str) -> None:
    """Move a network's weights, in place; beside the CPU into channels_last, which tensor cores want.

    On the CPU the layout stays what the loader chose: another one may round differently.
    """
    network.to(device)
    if torch.device(device).type != "cpu":
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def check_labels(labels: Tensor | None, label_dim: int, batch: int) -> None:
    """Raise ValueError unless labels is None or (batch, label_dim) with label_dim > 0."""
    if labels is None:
        return
    if label_dim == 0:
        raise ValueError("labels were given to an unconditional model: use labels=none")
    if labels.shape != (batch, label_dim):
        wanted = f"expected one-hot rows of shape ({batch}, {label_dim})"
        raise ValueError(f"labels have shape {tuple(labels.shape)}; {wanted}")


class Wrapper(Denoiser):
    """A denoiser around another one, `denoiser`, whose attributes are its own unless it says otherwise."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser = denoiser
        self.img_channels, self.img_resolution = denoiser.img_channels, denoiser.img_resolution
        facts = "label_dim evaluations sigma_min sigma_max sigma_data class_weights table spacing "
        facts += "prediction_type fixed_batch"
        for name in facts.split():
            setattr(self, name, getattr(denoiser, name, getattr(Denoiser, name)))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.denoiser.image_shape

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.denoiser.round_sigma(sigma)

    def evaluations_at(self, sigma: Tensor) -> int | Tensor:
        return evaluations_at(self.denoiser, sigma)

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> "Denoiser":
        changed = copy.copy(self)
        changed.denoiser = self.denoiser.with_network(change)
        return changed


class FixedBatch(Wrapper):
    """Evaluate a denoiser in batches of exactly `size` samples (the last one padded), one thread each.

    Matrix and convolution kernels may sum in another order for another batch size or number of threads, so
    that a sample's last bits depend on its batch. In one fixed shape on one thread they do not: samples are
    the same for any batch size of the caller, on any number of cores. 64 is large enough for full kernel
    efficiency, small enough that padding the last batch costs little.
    """

    def __init__(self, denoiser: Denoiser, size: int = 64) -> None:
        super().__init__(denoiser)
        self.size, self.fixed_batch = size, True

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, x.shape[0])

        def evaluate(chunk: slice) -> Tensor:
            part = x[chunk]
            denoised = self.denoiser(
                self._padded(part),
                sigma if sigma.ndim == 0 else self._padded(sigma[chunk]),
                None if labels is None else self._padded(labels[chunk]),
            )
            return denoised[: len(part)]

        chunks = [slice(start, start + self.size) for start in range(0, x.shape[0], self.size)]
        return torch.cat(map_blocks(evaluate, chunks))

    def _padded(self, value: Tensor) -> Tensor:
        missing = self.size - value.shape[0]
        return value if missing == 0 else torch.cat([value, value[-1:].expand(missing, *value.shape[1:])])
