"""Training losses: denoising (Karras et al. 2022, Eq. 8 and Table 1) and the three jobs of the features."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor

from seedsbench.data.glyphs import CLASSES
from seedsbench.denoisers.preconditioning.denoiser import Preconditioned
from seedsbench.denoisers.preconditioning.karras import EDMPreconditioner, Preconditioner
from seedsbench.diffusion.process import expand
from seedsbench.metrics.glyph_features import CORRUPTIONS, GlyphFeatures
from seedsbench.training.pool import Pool

LABEL_SMOOTHING = 0.02
MAX_NOISE = 0.8  # standard deviation of added noise at full damage, images in [-1, 1]


def regime_weight(preconditioner: Preconditioner, sigma: Tensor) -> Tensor:
    """lambda(sigma) of Table 1's own column."""
    return preconditioner.loss_weight(sigma)


def unit_weight(preconditioner: Preconditioner, sigma: Tensor) -> Tensor:
    """lambda(sigma) of Table 1's EDM column, whatever the regime: every level counts the same.

    1/sigma^2, the weight of the noise-predicting regimes, leaves the levels at which an image takes
    shape (sigma of 0.3 to 3, on these pictures) with a few per cent of the loss.
    """
    del preconditioner
    return EDMPreconditioner().loss_weight(sigma)


WEIGHTINGS: dict[str, Callable[[Preconditioner, Tensor], Tensor]] = {
    "unit": unit_weight,
    "regime": regime_weight,
}


def denoising_loss(
    denoiser: Preconditioned,
    pool: Pool,
    generator: torch.Generator,
    *,
    batch: int,
    label_dropout: float,
    weighting: str,
) -> Tensor:
    """Mean over the batch and pixels of lambda(sigma) |D(y + n; sigma) - y|^2.

    Written for the network's output F: lambda c_out^2 |F - (y - c_skip x)/c_out|^2. That is the same
    number, without the cancellation of D - y at sigma = 20000 in float32. weighting: key of WEIGHTINGS.
    """
    device = pool.images.device
    clean, labels = _draw(pool, generator, batch)
    # One shift for evenly spaced uniforms: each is uniform, together they cover the noise levels evenly,
    # which takes most of the variance out of the loss (Kingma et al. 2021, app. I.1).
    shift = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
    u = (shift + torch.arange(batch, device=device, dtype=torch.float64) / batch) % 1
    # (0, 1): the inverse normal distribution of the EDM preconditioning is infinite at the ends.
    sigma = denoiser.preconditioner.sample_sigma(u.clamp(1e-9, 1 - 1e-9))
    noise = torch.randn(clean.shape, generator=generator, device=device)
    keep = torch.rand(batch, 1, generator=generator, device=device) >= label_dropout
    one_hot = nnf.one_hot(labels, len(CLASSES)).float() * keep
    x = clean.double() + expand(sigma, clean) * noise
    outer = denoiser.preconditioner
    c_out = outer.c_out(sigma)
    target = ((clean - expand(outer.c_skip(sigma), x) * x) / expand(c_out, x)).float()
    error = (denoiser.output(x, sigma, one_hot) - target).square().mean(dim=(1, 2, 3))
    return ((WEIGHTINGS[weighting](outer, sigma) * c_out**2).float() * error).mean()


def feature_loss(network: GlyphFeatures, pool: Pool, generator: torch.Generator, *, batch: int) -> Tensor:
    """Class (cross entropy) + factors (squared error) + amounts of damage (squared error)."""
    rows = torch.randint(len(pool.images), (batch,), generator=generator, device=pool.images.device)
    images, amounts = corrupt(pool.images[rows].float() / 127.5 - 1, generator)
    # Back to the 256 levels that the network will meet; rounding has no gradient and needs none.
    heads = network.heads((images * 127.5 + 128).clip(0, 255).floor())
    classes = nnf.cross_entropy(heads.logits, pool.labels[rows], label_smoothing=LABEL_SMOOTHING)
    factors = nnf.mse_loss(heads.factors, _factor_targets(pool.factors[rows]))
    return classes + 2 * factors + nnf.mse_loss(heads.corruption, amounts)


def corrupt(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Damage half of a batch (B, 3, 16, 16) in [-1, 1] by noise and blur. Returns it and the amounts (B, 2).

    Amounts are uniform in [0, 1], up to damage that hides the shape: the features must tell a sampler's
    artefacts, and not be so sharp on slight damage that a Frechet distance sees nothing else.
    """
    batch, device = len(images), images.device
    uniform = torch.rand(2, batch, len(CORRUPTIONS), generator=generator, device=device)
    amounts = uniform[0] * (uniform[1, :, :1] < 0.5)
    noise, blur = (amount[:, None, None, None] for amount in amounts.unbind(dim=1))
    images = torch.lerp(images, _blurred(_blurred(_blurred(images))), blur)
    images = images + MAX_NOISE * noise * torch.randn(images.shape, generator=generator, device=device)
    return images, amounts


def _blurred(images: Tensor) -> Tensor:
    """Three-tap binomial blur in both directions, edges repeated."""
    padded = nnf.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


def _factor_targets(factors: Tensor) -> Tensor:
    angle = math.pi * factors[:, -1:]
    return torch.cat([factors[:, :-1], angle.cos(), angle.sin()], dim=1)


def _draw(pool: Pool, generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(pool.images), (batch,), generator=generator, device=pool.images.device)
    return pool.images[rows].float() / 127.5 - 1, pool.labels[rows]
