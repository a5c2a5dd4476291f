"""Any D(x, sigma, labels) as a denoiser: a function or a module of one's own, called in its own type."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench.denoisers.base import Denoiser, move

TAKEN_OVER = ("class_weights", "sigma_min", "sigma_max", "sigma_data", "evaluations")


def weights_of(own: Any) -> Iterator[Tensor]:
    """The floating-point parameters, then buffers, of a module or of the one whose method this is."""
    holder = getattr(own, "__self__", own)
    for listed in (getattr(holder, name, None) for name in ("parameters", "buffers")):
        if callable(listed):
            values: Any = listed()
            yield from (value for value in values if value.is_floating_point())


def dtype_of(own: Any) -> torch.dtype | None:
    """The type of the weights; None where there are none."""
    return next((value.dtype for value in weights_of(own)), None)


def check_device(own: Any, x: Tensor) -> None:
    """ValueError if the weights lie on another device than x."""
    device = next((value.device for value in weights_of(own)), x.device)
    if device != x.device:
        raise ValueError(f"the network is on {device}, x on {x.device}: move one to the other's device")


def adapted(denoiser: Any, shape: Sequence[int] | None = None, label_dim: int | None = None) -> Denoiser:
    """denoiser itself if it is a `Denoiser`, which converts inside, else a `Foreign` one of it."""
    return denoiser if isinstance(denoiser, Denoiser) else Foreign(denoiser, shape, label_dim)


class Foreign(Denoiser):
    """A D(x, sigma, labels) that is no `Denoiser`, called in its own type and on the device of x.

    denoiser: a function or a module. x, sigma and labels reach it in the type of its floating-point weights,
    else of x. Its answer is handed on as it is: `Process` checks and converts it.
    shape (C, H, W) and label_dim: where given, in place of its image_shape and label_dim.
    """

    def __init__(
        self, denoiser: Any, shape: Sequence[int] | None = None, label_dim: int | None = None
    ) -> None:
        self.denoiser = denoiser
        self._shape = checked_shape(_shape_of(denoiser) if shape is None else shape)
        self.img_channels, self.img_resolution = self._shape[:2]
        self.label_dim = int(getattr(denoiser, "label_dim", 0) if label_dim is None else label_dim)
        for name in TAKEN_OVER:
            setattr(self, name, getattr(denoiser, name, getattr(Denoiser, name)))
        self._dtype: torch.dtype | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._shape

    def to(self, device: torch.device | str) -> "Foreign":
        """Move the weights of a module, in place; a function follows its input. Returns self."""
        if isinstance(self.denoiser, nn.Module):
            move(self.denoiser, device)
        return self

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> Denoiser:
        if not isinstance(self.denoiser, nn.Module):
            return super().with_network(change)
        changed = copy.copy(self)
        changed.denoiser, changed._dtype = change(self.denoiser), dtype_of(self.denoiser)
        return changed

    def round_sigma(self, sigma: Tensor) -> Tensor:
        rounding = getattr(self.denoiser, "round_sigma", None)
        return sigma if rounding is None else torch.as_tensor(rounding(sigma)).to(sigma)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        check_device(self.denoiser, x)
        dtype = self._dtype or dtype_of(self.denoiser) or x.dtype
        if labels is not None and labels.is_floating_point():
            labels = labels.to(dtype)
        return self.denoiser(x.to(dtype), sigma.to(x.device, dtype, non_blocking=x.is_cuda), labels)


def checked_shape(shape: Any) -> tuple[int, int, int]:
    """(C, H, W); ValueError for anything else."""
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) != 3 or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"shape={shape!r} must be that of one image, (C, H, W): give shape=(3, 32, 32)")
    return sizes


def _shape_of(denoiser: Any) -> Any:
    if hasattr(denoiser, "image_shape"):
        return tuple(denoiser.image_shape)
    channels, size = (getattr(denoiser, name, None) for name in ("img_channels", "img_resolution"))
    if channels is None or size is None:
        raise ValueError(
            f"{type(denoiser).__name__} does not say of which shape its images are: give (C, H, W)"
        )
    return channels, size, size
