"""A network of one's own, with what it was trained to predict and at which noise levels, as a denoiser."""

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench.denoisers.base import Denoiser, move
from seedsbench.denoisers.own import check_device, checked_shape, dtype_of
from seedsbench.denoisers.prediction import Predicted, Prediction
from seedsbench.diffusion.process import check_like, expand
from seedsbench.diffusion.schedule import Discrete, Schedule

PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}
PREDICTIONS |= {"sample": "sample", "score": "epsilon"}
"""What a network may predict, and as which `Predicted` sees it: the score is -noise / its std."""


class OwnNetwork(Predicted):
    """A network of one's own, called as it was trained: net(x_t, t), or net(x_t, t, classes) with labels.

    x_t: scale (data + sigma noise) with the schedule's signal scale, (B, C, H, W) in the network's type.
    t: (B,) the schedule's time, times time_scale. Of a table that is the nearest integer, as int64 if
    time_scale is 1; with fractional, the real number between two entries, and no level is rounded.
    classes: (B,) int64 in [0, labels); null_class where there is none.
    The network returns (B, C, H, W), or twice the channels, of which the first half counts (the second is a
    learnt variance), or an object with that as `sample`.

    sigma_min, sigma_max: if not those of the table, or of a schedule whose time ends at 1.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        prediction: str,
        schedule: Schedule,
        *,
        shape: Sequence[int],
        labels: int = 0,
        null_class: int | None = None,
        fractional: bool = False,
        time_scale: float = 1.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction={prediction!r} must be one of {', '.join(PREDICTIONS)}")
        if prediction.startswith("v") and schedule.scaling != "vp":
            raise ValueError(
                f"prediction={prediction!r} is of unit-variance states: use a schedule of scaling vp"
            )
        _check_call(net, labels)
        self._shape = checked_shape(shape)
        super().__init__(
            self._output,
            PREDICTIONS[prediction],
            schedule,
            img_channels=self._shape[0],
            img_resolution=self._shape[1],
            label_dim=labels,
        )
        self.net, self.is_score = net, prediction == "score"
        self.null_class, self.fractional, self.time_scale = null_class, fractional, time_scale
        self._run, self._dtype = _Plain(net), None
        low, high = range_of(schedule) if self.table is None else (self.sigma_min, self.sigma_max)
        self.sigma_min = low if sigma_min is None else sigma_min
        self.sigma_max = high if sigma_max is None else sigma_max

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._shape

    def to(self, device: torch.device | str) -> "OwnNetwork":
        """Move the network's weights, in place, if it is a module; returns self."""
        if isinstance(self.net, nn.Module):
            move(self.net, device)
        return self

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> Denoiser:
        if not isinstance(self.net, nn.Module):
            return super().with_network(change)
        changed = copy.copy(self)
        changed._run, changed._dtype = change(self._run), dtype_of(self.net)
        changed.network = changed._output
        return changed

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma if self.fractional else super().round_sigma(sigma)

    def _output(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """What the network says, as `Predicted` wants it. x_t: as that has it, of unit variance."""
        check_device(self.net, x_t)
        dtype = self._dtype or dtype_of(self.net) or x_t.dtype
        schedule = self._table or self.schedule
        sigma = schedule.sigma(t)
        scale = schedule.scale_at(sigma)
        x_in = x_t if schedule.scaling == "vp" else x_t * expand(scale * (1 + sigma**2).sqrt(), x_t)
        output = self._run(x_in.to(dtype), self._told(t, x_t, dtype), self._classes(labels, x_t))
        if isinstance(output, Tensor) and output.shape[1:2] == (2 * self.img_channels,):
            output = output[:, : self.img_channels]
        check_like(output, x_t, "the network")
        return output.to(x_t.dtype) * -expand(scale * sigma, x_t) if self.is_score else output

    def _told(self, t: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The times as the network is told them, (B,)."""
        if self._table is not None and not self.fractional:
            t = t.round().long()
        if t.is_floating_point() or self.time_scale != 1:
            # Half precision would make 999 a 1000.
            t = (t * self.time_scale).to(torch.promote_types(dtype, torch.float32))
        return t.to(x.device).expand(len(x))

    def _classes(self, labels: Tensor | None, x: Tensor) -> Tensor | None:
        if self.label_dim == 0:
            return None
        if labels is None:
            labels = x.new_zeros(len(x), self.label_dim)
        chosen = labels.any(dim=1)
        if self.null_class is None and not bool(chosen.all()):
            raise ValueError(
                f"the network has {self.label_dim} classes and no unconditional mode: use labels=balanced "
                "(or say its null_class)"
            )
        return torch.where(chosen, labels.argmax(dim=1), self.null_class or 0)


class _Plain(nn.Module):
    """A network whose result is its output."""

    def __init__(self, net: Callable[..., Any]) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_t: Tensor, t: Tensor, classes: Tensor | None = None) -> Any:
        found = self.net(x_t, t) if classes is None else self.net(x_t, t, classes)
        return getattr(found, "sample", found)


def table_of(alphas_cumprod: Any) -> Discrete:
    """The schedule of a table of alphas_cumprod, (T,) decreasing within (0, 1), to rounding."""
    table = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu").detach()
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(f"alphas_cumprod has shape {tuple(table.shape)}: expected (T,) with T > 1")
    if float(table[-1]) == 0:
        raise ValueError(
            "alphas_cumprod ends at 0 (no signal at all): give the betas before they were rescaled, "
            "schedule={'name': 'discrete', 'trained_betas': betas, 'num_train_timesteps': T, "
            "'rescale_betas_zero_snr': True}"
        )
    if not bool((table > 0).all() & (table < 1).all() & (table.diff() < 0).all()):
        raise ValueError(
            f"alphas_cumprod runs from {float(table[0]):.6g} to {float(table[-1]):.6g}: expected the "
            "cumulative product of 1 - beta, decreasing within (0, 1)"
        )
    betas = 1 - torch.cat([table[:1], table[1:] / table[:-1]])
    return Discrete(num_train_timesteps=len(betas), trained_betas=tuple(betas.tolist()))


def range_of(schedule: Schedule) -> tuple[float, float]:
    """The noise levels that a network of a continuous schedule has seen: (0, inf) for one without ends."""
    start = {"epsilon_s": getattr(schedule, "epsilon_s", None), "sigma_0": 0.0}
    known = [value for name, value in start.items() if hasattr(schedule, name)]
    if not known:
        return 0.0, math.inf
    ends = schedule.sigma(torch.tensor([known[0], 1.0], dtype=torch.float64))
    return float(ends[0]), float(ends[1])


def _check_call(net: Any, labels: int) -> None:
    """ValueError unless net can be called as OwnNetwork does."""
    called = net.forward if isinstance(net, nn.Module) else net
    arguments = ("x_t", "t", "classes")[: 3 if labels else 2]
    if type(labels) is not int or labels < 0:
        raise ValueError(f"labels={labels!r} must be the number of classes, 0 for none")
    if not callable(called):
        raise ValueError(f"net is no network but {type(net).__name__}: expected net({', '.join(arguments)})")
    try:
        inspect.signature(called).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"net must be callable as net({', '.join(arguments)}): {error}") from None
    except ValueError:  # written in C
        return
