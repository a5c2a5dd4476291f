"""Whether a denoiser denoises: what can be seen of mistakes without its data.

Samples are drawn roughly, by itself (Euler steps), and what holds for every E[data | data + sigma noise] is
asked at and around them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.own import adapted
from seedsbench.diffusion.noise import latents
from seedsbench.diffusion.process import check_like

# Noise levels looked at, as far as they are in the denoiser's range, and steps of the rough samples.
_LOW, _HIGH, _STEPS = 0.002, 80.0, 12

_OTHER = (
    "does the network predict something else than the image, or from scaled x (seedsbench.denoiser converts)"
)
_NOISE = (
    "D changes an image without noise and keeps pure noise, which looks like a noise prediction: "
    "use seedsbench.denoiser(net, 'epsilon', ...), or 'v' if it predicts that"
)


@dataclass(frozen=True)
class Finding:
    """What is wrong, in a word and in a sentence; fatal if every number made with it would be wrong."""

    what: str
    detail: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


class _Unusable(Exception):
    """An answer nothing more can be said of; its argument is the finding."""


def check_denoiser(
    denoiser: Any,
    *,
    shape: Sequence[int] | None = None,
    labels: int | None = None,
    device: torch.device | str = "cpu",
) -> list[Finding]:
    """What seems wrong with a denoiser D(x, sigma, labels); empty if nothing does. About 40 evaluations.

    shape: (C, H, W) of its images. labels: its number of classes. Where they are not its image_shape and
    label_dim. device: where it is, and is called.
    Looked at: shape, type and device of its answers; that they are finite, and the same when asked again,
    alone, or with one noise level a sample; that it keeps an image with hardly any noise and nothing of pure
    noise; the size of its images and that they vary; that its labels matter.

    Raises ValueError if no shape is known.
    """
    found: list[Finding] = []
    model = adapted(denoiser, shape, labels)
    probe = _Probe(model, model.label_dim if labels is None else labels, device)
    try:
        with torch.no_grad():
            found.extend(_findings(probe))  # what came before _Unusable is kept
    except _Unusable as unusable:
        found.append(unusable.args[0])
    return found


class _Probe:
    """A denoiser that is asked for a few images of one class each."""

    def __init__(self, model: Denoiser, n_classes: int, device: torch.device | str) -> None:
        self.model, self.n_classes = model, n_classes
        shape = model.image_shape
        size = max(4, math.ceil(64 / math.prod(shape)))
        while size in shape or size == 1:  # or one number a sample could pass for a row of pixels
            size += 1
        self.noise = latents(torch.arange(size), shape, seed=0, device=torch.device(device))
        numbers = torch.arange(size, device=device) % max(n_classes, 1)
        self.classes = torch.nn.functional.one_hot(numbers, n_classes).float() if n_classes else None
        self.low, self.high = max(model.sigma_min, _LOW), min(model.sigma_max, _HIGH)

    def ask(self, x: Tensor, sigma: float, classes: Tensor | None = None, *, each: bool = False) -> Tensor:
        """D(x, sigma), float64; each: with one noise level a sample. Raises _Unusable."""
        level = torch.tensor(sigma, dtype=torch.float64)
        level = level.expand(len(x)).to(x.device) if each else level
        classes = self.classes[: len(x)] if classes is None and self.classes is not None else classes
        try:
            answer = check_like(self.model(x, level, classes), x, "D(x, sigma, labels)").double()
        except Exception as error:
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise _Unusable(Finding("answer", " ".join(said.split())[:300], fatal=True)) from error
        if not bool(answer.isfinite().all()):
            raise _Unusable(Finding("not finite", f"D is NaN or infinite at sigma={sigma:g}", fatal=True))
        return answer

    def sample(self, noise: Tensor) -> Tensor:
        """Images, roughly: Euler steps from the highest level to the lowest."""
        x, ratio = noise * self.high, (self.low / self.high) ** (1 / _STEPS)
        for i in range(_STEPS):
            denoised = self.ask(x, self.high * ratio**i)
            x = denoised + ratio * (x - denoised)
        return x


def _findings(probe: _Probe) -> Iterator[Finding]:
    """What is wrong with the denoiser that is asked, one after the other. Raises _Unusable."""
    low, high, noise = probe.low, probe.high, probe.noise
    if not 0 <= probe.model.sigma_min < probe.model.sigma_max or not low < high:
        said = f"sigma_min={probe.model.sigma_min:g}, sigma_max={probe.model.sigma_max:g}"
        raise _Unusable(Finding("range", f"{said}: need 0 <= sigma_min < sigma_max", fatal=True))
    kept = 0.5 * _rms(probe.ask(high * noise, high) - probe.ask(-high * noise, high))
    images, others = probe.sample(noise), probe.sample(-noise)
    noisy = images + low * noise.flip(0)
    moved = _rms(probe.ask(noisy, low) - noisy)
    changes, keeps = moved > 10 * low + 0.05 * min(_rms(images), 1), kept > 0.3 + 1 / high
    if changes and keeps:
        raise _Unusable(Finding("prediction", _NOISE, fatal=True))
    if changes:
        said = f"D(x) at sigma={low:g} is {moved:.2g} from x (rms), expected about {low:g}"
        yield Finding("low noise", f"{said}: {_OTHER}", fatal=moved > 10 * low + 0.5)
    if keeps:
        said = f"of pure noise, sigma={high:g}, D keeps {kept:.2g} (rms), expected the mean of the data"
        yield Finding("high noise", f"{said}: {_OTHER}, or a network not trained yet?")
    if _rms(images - others) < 0.02 * _rms(images) + 3 * min(low, 0.02):
        yield Finding("variety", f"its images do not depend on the noise that they start from: {_OTHER}?")
    if (size := _rms(images)) > 1.5:
        yield Finding("size", f"its images have an rms of {size:.3g}: data in [-1, 1] is expected")
    elif float(images.min()) > -0.02 and 0.5 < float(images.max()) < 1.2:
        yield Finding("size", "its images seem to lie in [0, 1]: data in [-1, 1] is expected")
    yield from _of_answers(probe, images)


def _of_answers(probe: _Probe, images: Tensor) -> Iterator[Finding]:
    """Whether an answer depends on x, sigma and labels, and on nothing else."""
    sigma = math.sqrt(probe.low * probe.high)
    x = images + sigma * probe.noise
    answer = probe.ask(x, sigma)
    training = "is it in training mode? call .eval()"
    if _differ(probe.ask(x, sigma), answer):
        yield Finding("determinism", f"two calls give two answers: {training}")
    elif _differ(torch.cat([probe.ask(x[:1], sigma), probe.ask(x, sigma)[1:]]), answer):
        yield Finding("batch", f"the answer for a sample depends on its batch: {training}")
    try:
        if _differ(probe.ask(x, sigma, each=True), answer):
            yield Finding("sigma", "one noise level for all and the same one for each give two answers")
    except _Unusable as unusable:
        said = unusable.args[0].detail
        yield Finding("sigma", f"adaptive solvers call it with sigma of shape ({len(x)},): {said}")
    if probe.classes is not None and probe.n_classes > 1:
        others = probe.classes.roll(1, 1)
        if not any(_rms(probe.ask(x, s, others) - probe.ask(x, s)) > 0 for s in (sigma, probe.high)):
            yield Finding("labels", f"its answer is the same for all of {probe.n_classes} classes")


def _differ(one: Tensor, other: Tensor) -> bool:
    """Beyond rounding, which is another for another batch."""
    return _rms(one - other) > 1e-3 * _rms(other) + 1e-6


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
