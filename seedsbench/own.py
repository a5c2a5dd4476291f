"""The Python interface to networks of one's own: `denoiser` and `check_denoiser`."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from seedsbench import registry
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.findings import check_denoiser
from seedsbench.denoisers.own_network import OwnNetwork, table_of
from seedsbench.diffusion.schedule import Schedule

__all__ = ["check_denoiser", "denoiser"]


def denoiser(
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
) -> Denoiser:
    """A network of your own as a denoiser: D(x, sigma, labels) with the noise levels it was trained on.

    net: called as net(x_t, t), or net(x_t, t, classes) with labels. x_t (B, C, H, W) in the network's type,
        scaled as in training: s (data + sigma noise), s the schedule's signal scale (a table's keeps unit
        variance). t (B,): the index in the table, int64; of a continuous schedule ("vp") its time, in [0, 1].
        It returns (B, C, H, W), or twice the channels (a learnt variance is cut off), or an object with that
        as `sample`.
    prediction: "epsilon" (the noise), "v" (Salimans and Ho 2022), "sample" (the data), or "score", the
        gradient of log p at x_t: (s D - x_t) / (s sigma)^2.
    shape: (C, H, W) of an image.
    alphas_cumprod: (T,) the table it was trained with, decreasing; or schedule: an object, a config name or
        {"name": ..., option: value}. One of the two.
    labels: number of classes; the network is then told each sample's, (B,) int64, and null_class for none.
    fractional: between entries of the table tell the real number, not the nearest integer; round no level.
    time_scale: factor of t, as 999 for score_sde's networks (then told as real numbers).
    sigma_min, sigma_max: the range it is good for, if not the schedule's.

    Raises ValueError for a choice that makes no sense. `check_denoiser` tells whether the result denoises.
    """
    if (alphas_cumprod is None) == (schedule is None):
        raise ValueError("give exactly one of alphas_cumprod and schedule: the noise levels of the training")
    if schedule is None:
        schedule = table_of(alphas_cumprod)
    elif not isinstance(schedule, Schedule):
        schedule = registry.build(registry.configured("schedule", schedule))
    assert isinstance(schedule, Schedule)
    return OwnNetwork(
        *(net, prediction, schedule),
        shape=shape,
        labels=labels,
        null_class=null_class,
        fractional=fractional,
        time_scale=time_scale,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
    )
