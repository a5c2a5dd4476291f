"""Any D(x, sigma, labels) as a denoiser: a function or a module of one's own, called in its own type."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench.denoisers.base import Denoiser, move


def adapted(denoiser: Any, shape: Sequence[int] | None = None, label_dim: int | None = None) -> Denoiser:
    """denoiser itself if it is a `Denoiser`, which converts inside, else a `Foreign` one of it."""
    return denoiser if isinstance(denoiser, Denoiser) else Foreign(denoiser, shape, label_dim)


class OfNetwork(Denoiser):
    """A denoiser made of `net`, a function or module, which it calls (`_run`) in the type of its weights."""

    net: Any
    _run: Any
    _shape: tuple[int, int, int]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._shape

    def to(self, device: torch.device | str) -> "OfNetwork":
        """Move the weights of a module, in place; a function follows its input. Returns self."""
        if isinstance(self.net, nn.Module):
            move(self.net, device)
        return self

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> Denoiser:
        if not isinstance(self.net, nn.Module):
            return super().with_network(change)
        changed = copy.copy(self)
        changed._run = change(self._run)
        return changed

    def _dtype_for(self, x: Tensor) -> torch.dtype:
        """Type of the floating-point weights, else of x; ValueError if the weights are on another device."""
        first = next(_float_weights(self.net), x)
        if first.device != x.device:
            said = f"the network is on {first.device}, x on {x.device}"
            raise ValueError(f"{said}: move one to the other's device")
        return first.dtype


class Foreign(OfNetwork):
    """A D(x, sigma, labels) that is no `Denoiser`, called on the device of x.

    net: a function or a module. x, sigma and labels reach it in the type of its floating-point weights,
    else of x. Its answer is handed on as it is: `Process` checks and converts it.
    shape (C, H, W) and label_dim: where given, in place of its image_shape and label_dim.
    """

    def __init__(self, net: Any, shape: Sequence[int] | None = None, label_dim: int | None = None) -> None:
        self.net = self._run = net
        self._shape = checked_shape(_shape_of(net) if shape is None else shape)
        self.img_channels, self.img_resolution = self._shape[:2]
        self.label_dim = int(getattr(net, "label_dim", 0) if label_dim is None else label_dim)
        for name in ("class_weights", "sigma_min", "sigma_max", "sigma_data", "evaluations"):
            setattr(self, name, getattr(net, name, getattr(Denoiser, name)))

    def round_sigma(self, sigma: Tensor) -> Tensor:
        rounding = getattr(self.net, "round_sigma", None)
        return sigma if rounding is None else torch.as_tensor(rounding(sigma)).to(sigma)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        dtype = self._dtype_for(x)
        if labels is not None and labels.is_floating_point():
            labels = labels.to(dtype)
        return self._run(x.to(dtype), sigma.to(x.device, dtype, non_blocking=x.is_cuda), labels)


def checked_shape(shape: Any) -> tuple[int, int, int]:
    """(C, H, W); ValueError for anything else."""
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) != 3 or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"shape={shape!r} must be that of one image, (C, H, W): give shape=(3, 32, 32)")
    return sizes


def _shape_of(net: Any) -> Any:
    if hasattr(net, "image_shape"):
        return tuple(net.image_shape)
    channels, size = (getattr(net, name, None) for name in ("img_channels", "img_resolution"))
    if channels is None or size is None:
        raise ValueError(f"{type(net).__name__} does not say of which shape its images are: give (C, H, W)")
    return channels, size, size


def _float_weights(net: Any) -> Iterator[Tensor]:
    """The floating-point parameters, then buffers, of a module or of the one whose method this is."""
    holder = getattr(net, "__self__", net)
    for listed in (getattr(holder, name, None) for name in ("parameters", "buffers")):
        if callable(listed):
            values: Any = listed()
            yield from (value for value in values if value.is_floating_point())
