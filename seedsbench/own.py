"""The Python interface to networks of one's own: `denoiser` and `check_denoiser`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench import registry
from seedsbench.checks import check_call
from seedsbench.denoisers.findings import check_denoiser
from seedsbench.denoisers.own import OfNetwork, checked_shape
from seedsbench.denoisers.prediction import Predicted, PredictionType
from seedsbench.diffusion.process import check_like, expand
from seedsbench.diffusion.schedule import Discrete, Schedule

__all__ = ["check_denoiser", "denoiser"]

# What a network may predict, and as which `Predicted` sees it: the score is -noise / its std.
_PREDICTIONS: dict[str, PredictionType] = {
    "epsilon": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "sample": "sample",
    "score": "epsilon",
    "flow": "flow_prediction",
}


class OwnNetwork(OfNetwork, Predicted):
    """A network of your own as a denoiser: D(x, sigma, labels) with the noise levels it was trained on.

    net: called as net(x_t, t), or net(x_t, t, classes) with labels. x_t (B, C, H, W) in the network's type,
        scaled as in training: s (data + sigma noise), s the schedule's signal scale (a table's keeps unit
        variance). t (B,): the index in the table, int64; of a continuous schedule ("vp") its time, in [0, 1].
        It returns (B, C, H, W), or twice the channels (a learnt variance is cut off), or an object with that
        as `sample`.
    prediction: "epsilon" (the noise), "v" (Salimans and Ho 2022), "sample" (the data), "score", the
        gradient of log p at x_t: (s D - x_t) / (s sigma)^2, or "flow", the velocity noise - data of flow
        matching (with schedule="flow": t is 1 at the noise; a network of data - noise, told the time from
        noise to data, is -net(x_t, 1 - t)).
    shape: (C, H, W) of an image.
    alphas_cumprod: (T,) the table it was trained with, decreasing; or schedule: an object, a config name or
        {"name": ..., option: value}. One of the two.
    labels: number of classes; the network is then told each sample's, (B,) int64, and null_class for none.
    fractional: between entries of the table tell the real number, not the nearest integer; round no level.
    time_scale: factor of t, as 999 for score_sde's networks (then told as real numbers).
    sigma_min, sigma_max: the range it is good for, if not the schedule's.

    Raises ValueError for a choice that makes no sense. `check_denoiser` tells whether the result denoises.
    """

    def __init__(
        self,
        net: Any,
        prediction: str,
        *,
        shape: Sequence[int],
        alphas_cumprod: Tensor | Sequence[float] | None = None,
        schedule: Schedule | str | Mapping[str, Any] | None = None,
        labels: int = 0,
        null_class: int | None = None,
        fractional: bool = False,
        time_scale: float = 1.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        trained = _schedule_of(alphas_cumprod, schedule)
        if prediction not in _PREDICTIONS:
            raise ValueError(f"prediction={prediction!r} must be one of {', '.join(_PREDICTIONS)}")
        if prediction.startswith("v") and trained.scaling != "vp":
            said = f"prediction={prediction!r} is of unit-variance states"
            raise ValueError(f"{said}: use a schedule of scaling vp")
        _check_call(net, labels)
        self._shape = checked_shape(shape)
        kind, (channels, size, _) = _PREDICTIONS[prediction], self._shape
        super().__init__(None, kind, trained, img_channels=channels, img_resolution=size, label_dim=labels)
        self.net, self.is_score = net, prediction == "score"
        self.null_class, self.fractional, self.time_scale = null_class, fractional, time_scale
        self._run = _Plain(net)
        low, high = _range_of(trained) if self.table is None else (self.sigma_min, self.sigma_max)
        self.sigma_min = low if sigma_min is None else sigma_min
        self.sigma_max = high if sigma_max is None else sigma_max

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma if self.fractional else super().round_sigma(sigma)

    def _output(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """What the network says, as `Predicted` wants it. x_t: as that has it, of unit variance."""
        dtype = self._dtype_for(x_t)
        schedule = self._table or self.schedule
        sigma = schedule.sigma(t)
        scale = schedule.scale_at(sigma)
        x_in = x_t if schedule.scaling == "vp" else x_t * expand(scale * (1 + sigma**2).sqrt(), x_t)
        output = self._run(x_in.to(dtype), self._times(t, x_t, dtype), self._classes(labels, x_t))
        if isinstance(output, Tensor) and output.shape[1:2] == (2 * self.img_channels,):
            output = output[:, : self.img_channels]
        check_like(output, x_t, "the network")
        return output.to(x_t.dtype) * -expand(scale * sigma, x_t) if self.is_score else output

    def _times(self, t: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
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
        labels = x.new_zeros(len(x), self.label_dim) if labels is None else labels
        chosen = labels.any(dim=1)
        if self.null_class is None and not bool(chosen.all()):
            said = f"the network has {self.label_dim} classes and no unconditional mode"
            raise ValueError(f"{said}: use labels=balanced (or say its null_class)")
        return torch.where(chosen, labels.argmax(dim=1), self.null_class or 0)


denoiser = OwnNetwork


class _Plain(nn.Module):
    """A network whose result is its output."""

    def __init__(self, net: Callable[..., Any]) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_t: Tensor, t: Tensor, classes: Tensor | None = None) -> Any:
        found = self.net(x_t, t) if classes is None else self.net(x_t, t, classes)
        return getattr(found, "sample", found)


def _schedule_of(alphas_cumprod: Any, schedule: Schedule | str | Mapping[str, Any] | None) -> Schedule:
    if (alphas_cumprod is None) == (schedule is None):
        raise ValueError("give exactly one of alphas_cumprod and schedule: the noise levels of the training")
    if schedule is None:
        return table_of(alphas_cumprod)
    if isinstance(schedule, Schedule):
        return schedule
    return registry.build(registry.configured("schedule", schedule))


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


def _range_of(schedule: Schedule) -> tuple[float, float]:
    """The noise levels that a network of a continuous schedule has seen: (0, inf) for one without ends."""
    start = getattr(schedule, "epsilon_s", 0.0 if hasattr(schedule, "sigma_0") else None)
    if start is None:
        return 0.0, math.inf
    ends = schedule.sigma(torch.tensor([start, 1.0], dtype=torch.float64))
    return float(ends[0]), float(ends[1])


def _check_call(net: Any, labels: int) -> None:
    """ValueError unless net can be called as OwnNetwork does."""
    if type(labels) is not int or labels < 0:
        raise ValueError(f"labels={labels!r} must be the number of classes, 0 for none")
    arguments = ("x_t", "t", "classes")[: 3 if labels else 2]
    called = net.forward if isinstance(net, nn.Module) else net
    check_call("net", called, f"net({', '.join(arguments)})", *arguments)
