"""What diffusers-style networks put out, as denoised images and back; classifier-free guidance.

In scaled coordinates x_t = a x0 + s eps with a^2 + s^2 = 1 a network predicts the noise ("epsilon"), the
data ("sample"), v = a eps - s x0 ("v_prediction", Salimans and Ho 2022, section 4) or the velocity eps - x0
of the straight path ("flow_prediction", Lipman et al. 2023). A Denoiser speaks of x = x_t / a, the data with
noise of level sigma = s / a, and returns the data.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from seedsbench.denoisers.base import Denoiser, PredictionType, Wrapper, check_labels
from seedsbench.diffusion.process import evaluations_at, expand
from seedsbench.diffusion.schedule import Discrete, Schedule

_ON_THE_TABLE = 1e-4
"""Times this close to an integer are that integer: what is left of inverting a table entry in float32."""


def check_prediction(prediction: str, schedule: Schedule | None = None) -> None:
    """Raise ValueError unless it names what a network predicts, and can predict on the schedule."""
    if prediction not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise ValueError(f"prediction_type={prediction!r} must be one of {known}")
    if prediction == "epsilon" and isinstance(schedule, Discrete) and schedule.no_signal:
        raise ValueError(
            "prediction_type='epsilon' on a table that ends without signal (alphas_cumprod 0): there the "
            "noise says nothing of the data; use prediction_type='v_prediction', or a table that keeps some "
            "signal (rescale_betas_zero_snr=false, no beta of 1)"
        )


def scaled(sigma: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(a, s) of a noise level, shaped and typed to go with `like`. sigma: () or (B,)."""
    sigma = expand(sigma, like)
    a = (1 + sigma**2).rsqrt()
    return a.to(like.dtype), (sigma * a).to(like.dtype)


def denoised_of(prediction: PredictionType, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
    """The denoised image in a network's output at the scaled state x_t, both (B, C, H, W)."""
    a, s = scaled(sigma, x_t)
    if prediction == "epsilon":
        return (x_t - s * output) / a
    if prediction == "flow_prediction":
        return (x_t - s * output) / (a + s)
    return output if prediction == "sample" else a * x_t - s * output


def raw_output_of(prediction: PredictionType, denoised: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
    """The inverse of `denoised_of`: the output that means this denoised image."""
    a, s = scaled(sigma, x_t)
    if prediction == "epsilon":
        return (x_t - a * denoised) / s
    if prediction == "flow_prediction":
        return (x_t - (a + s) * denoised) / s
    return denoised if prediction == "sample" else (a * x_t - denoised) / s


def rescale_guided(guided: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """phi of the way from `guided` to `guided` with the std of `conditional` (Lin et al. 2024, eq. 15, 16).

    All (B, C, H, W); the standard deviations are those of each sample.
    """
    # Sample by sample, so that sums are taken in the same order whatever the batch.
    images = (conditional, guided)
    target, found = (torch.stack([sample.std(correction=0) for sample in part]) for part in images)
    ratio = torch.where(found > 0, target / found, 1.0)
    return guided * expand(1 + phi * (ratio - 1), guided)


class Predicted(Denoiser):
    """A raw network of scaled states as a denoiser.

    network: (x_t, t, labels) -> output, x_t and output (B, C, H, W) with unit-variance data at any noise
    level, t () or (B,) the schedule's time. Gradients, dtype and device are the network's affair. None for a
    subclass that has an `_output` of its own.

    Of a discrete schedule t is the timestep: an integer at the table's levels, to which `round_sigma` rounds,
    a real number between two of them (stages of a solver), held at the first and the last one beyond them.
    sigma_min and sigma_max are the ends of its table. One that ends without signal (zero terminal SNR) has
    a stand-in there, and every level from that one up is the last timestep.

    Raises ValueError for an unknown prediction, and for epsilon on a table that ends without signal.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None,
        prediction_type: PredictionType,
        schedule: Schedule,
        *,
        img_channels: int,
        img_resolution: int,
        label_dim: int = 0,
    ) -> None:
        check_prediction(prediction_type, schedule)
        self.network, self.schedule = network, schedule
        self.table = schedule if isinstance(schedule, Discrete) else None
        self.prediction_type: PredictionType = prediction_type
        self.img_channels, self.img_resolution, self.label_dim = img_channels, img_resolution, label_dim
        self._table = schedule.short_of_limit() if isinstance(schedule, Discrete) else None
        if self._table is not None:
            self.levels = self._table.log_sigmas.exp()
            self.sigma_min, self.sigma_max = float(self.levels[0]), float(self.levels[-1])

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, x.shape[0])
        x_t = x * scaled(sigma, x)[0]
        output = self._output(x_t, self.time_of(sigma), labels).to(x.dtype)
        return denoised_of(self.prediction_type, output, x_t, sigma)

    def _output(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        assert self.network is not None
        return self.network(x_t, t, labels)

    def time_of(self, sigma: Tensor) -> Tensor:
        """The time, of a table the timestep, that the network is told where the noise level is `sigma`."""
        if self._table is None:
            return self.schedule.sigma_inv(sigma)
        t = self._table.sigma_inv(sigma.double()).clamp(0, len(self.levels) - 1)
        return torch.where((t - t.round()).abs() < _ON_THE_TABLE, t.round(), t)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        if self._table is None:
            return sigma
        index = self._table.sigma_inv(sigma.double()).round().clamp(0, len(self.levels) - 1).long()
        rounded = self.levels.to(sigma.device)[index].to(sigma.dtype)
        # Where no signal is left one level is as good as another, and a run may start in the limit.
        return torch.where((sigma > self.sigma_max) & self._table.no_signal, sigma, rounded)


class Extrapolated(Wrapper):
    """Base of guidance: away from another estimate of the data, at noise levels within an interval.

    scale: w of D_o + w (D - D_o), D_o the other one. interval: (low, high], the noise levels sigma at which
    it guides (Kynkaanniemi et al. 2024); None: at all. guides: whether it does at any. cost: the most
    evaluations of the other estimate. Where it does not guide the result is D, at its own cost.
    """

    def __init__(
        self, denoiser: Any, scale: float, interval: tuple[float, float] | None, *, guides: bool, cost: int
    ) -> None:
        super().__init__(denoiser)
        self.scale, self.interval, self.guides = scale, interval, guides
        self.evaluations += cost if guides else 0

    def evaluations_at(self, sigma: Tensor) -> int | Tensor:
        once = evaluations_at(self.denoiser, sigma)
        if not self.guides:
            return once
        return once + self._cost(sigma) * (1 if self.interval is None else self._within(sigma).long())

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        own = self.denoiser(x, sigma, labels)
        within = self._within(sigma) if self.guides else torch.zeros(())
        if not bool(within.any()):
            return own
        if bool(within.all()):
            return self._guided(own, x, sigma, labels)
        # Samples of an adaptive solver, each at a level of its own.
        rows, result = within.to(x.device).nonzero().flatten(), own.clone()
        theirs = None if labels is None else labels[rows]
        result[rows] = self._guided(own[rows], x[rows], sigma[rows.to(sigma.device)], theirs)
        return result

    def _within(self, sigma: Tensor) -> Tensor:
        """Whether these noise levels are those at which it guides, bool of their shape."""
        if self.interval is None:
            return torch.ones(sigma.shape, dtype=torch.bool)
        low, high = self.interval
        return (low < sigma) & (sigma <= high)

    @abstractmethod
    def _cost(self, sigma: Tensor) -> int | Tensor:
        """Evaluations of the other estimate, as `evaluations_at` has them."""

    @abstractmethod
    def _other(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """The other estimate, D_o(x, sigma, labels)."""

    def _guided(self, own: Tensor, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """The guided estimate; own: D(x, sigma, labels)."""
        other = self._other(x, sigma, labels)
        return other + self.scale * (own - other)


class Guided(Extrapolated):
    """Classifier-free guidance (Ho and Salimans 2022): D_u + scale (D_c - D_u), at two evaluations.

    D_c is the denoiser with the labels it is given, D_u with a zero row, or with the class null_label.
    guidance_rescale (phi, Lin et al. 2024, section 3.4; 0 is off) takes back the growth of the standard
    deviation; it acts on the output of the network, so prediction_type says what that is (None: as the
    denoiser says). interval: see `Extrapolated`. channels: guide the first so many alone, the others keep
    D_c (None: all); the published samples of DiT and SiT guide 3 of their 4. At scale 1, outside the
    interval, and where the denoiser knows no labels, there is nothing to guide: the result is D_c, at one
    evaluation.

    Raises ValueError for a class or channels that the denoiser does not have, and, before any evaluation,
    when it should guide and is given no labels.
    """

    def __init__(
        self,
        denoiser: Any,
        scale: float,
        guidance_rescale: float = 0.0,
        prediction_type: PredictionType | None = None,
        interval: tuple[float, float] | None = None,
        null_label: int | None = None,
        channels: int | None = None,
    ) -> None:
        cost = getattr(denoiser, "evaluations", 1)
        guides = scale != 1 and getattr(denoiser, "label_dim", 0) > 0
        super().__init__(denoiser, scale, interval, guides=guides, cost=cost)
        if guides and null_label is not None and not 0 <= null_label < self.label_dim:
            raise ValueError(
                f"null_label={null_label} must lie in [0, {self.label_dim - 1}]: a class of the model"
            )
        if channels is not None and not 1 <= channels <= self.img_channels:
            raise ValueError(f"channels={channels} must lie in [1, {self.img_channels}]: the model's")
        self.null_label, self.channels = null_label, channels
        if prediction_type is not None:
            self.prediction_type: PredictionType = prediction_type
        check_prediction(self.prediction_type)
        if not 0 <= guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale={guidance_rescale} must lie in [0, 1]")
        self.guidance_rescale = guidance_rescale

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.guides and labels is None:
            raise ValueError(f"guidance of scale {self.scale} needs labels: give some, or use scale 1")
        return super().__call__(x, sigma, labels)

    def _cost(self, sigma: Tensor) -> int | Tensor:
        return evaluations_at(self.denoiser, sigma)

    def _other(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        plain = torch.zeros_like(labels)
        if self.null_label is not None:
            plain[:, self.null_label] = 1
        return self.denoiser(x, sigma, plain)

    def _guided(self, own: Tensor, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        guided = super()._guided(own, x, sigma, labels)
        if self.channels is not None:
            guided = torch.cat([guided[:, : self.channels], own[:, self.channels :]], dim=1)
        if self.guidance_rescale == 0:
            return guided
        x_t = x * scaled(sigma, x)[0]
        outputs = [raw_output_of(self.prediction_type, image, x_t, sigma) for image in (guided, own)]
        rescaled = rescale_guided(outputs[0], outputs[1], self.guidance_rescale)
        return denoised_of(self.prediction_type, rescaled, x_t, sigma)
