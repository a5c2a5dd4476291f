"""Training losses: denoising (Karras et al. 2022, Eq. 8), and the three jobs of the features."""

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor

from scripts.training.pools import Pool
from seedsbench.denoisers.preconditioning.karras import (
    EDMPreconditioner,
    FlowPreconditioner,
    IDDPMPreconditioner,
    Preconditioned,
    Preconditioner,
    VPPreconditioner,
)
from seedsbench.diffusion.process import expand
from seedsbench.metrics.glyph_features import CORRUPTIONS, GlyphFeatures

LABEL_SMOOTHING = 0.02
MAX_NOISE = 0.8  # standard deviation of added noise at full damage, images in [-1, 1]


def training_sigma(outer: Preconditioner, u: Tensor) -> Tensor:
    """Training noise levels of Karras et al. 2022, Table 1, from uniforms u in (0, 1), any shape.

    Of flow matching: uniform in its time.
    """
    if isinstance(outer, FlowPreconditioner):
        return u / (1 - u)
    if isinstance(outer, EDMPreconditioner):
        return (outer.P_mean + outer.P_std * torch.special.ndtri(u)).exp()
    if isinstance(outer, IDDPMPreconditioner):
        return outer.table(u.device)[(u * outer.M).long().clamp(max=outer.M - 1)].to(u.dtype)
    if isinstance(outer, VPPreconditioner):
        return outer.sigma(outer.epsilon_t + (1 - outer.epsilon_t) * u)
    return outer.sigma_min * (u * math.log(outer.sigma_max / outer.sigma_min)).exp()


def loss_weight(outer: Preconditioner, sigma: Tensor) -> Tensor:
    """lambda(sigma) of the training loss lambda |D(y + n; sigma) - y|^2: 1 / c_out^2."""
    return 1 / outer.c_out(sigma) ** 2


def denoising_loss(
    denoiser: Preconditioned,
    pool: Pool,
    generator: torch.Generator,
    *,
    batch: int,
    label_dropout: float,
    weighting: Preconditioner,
) -> Tensor:
    """Mean over the batch and pixels of lambda(sigma) |D(y + n; sigma) - y|^2.

    Written for the network's output F: lambda c_out^2 |F - (y - c_skip x)/c_out|^2. That is the same
    number, without the cancellation of D - y at sigma = 20000 in float32. weighting: whose lambda.
    """
    device = pool.images.device
    clean, labels, _ = pool.drawn(generator, batch)
    # One shift for evenly spaced uniforms: each is uniform, together they cover the noise levels evenly,
    # which takes most of the variance out of the loss (Kingma et al. 2021, app. I.1).
    shift = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
    u = (shift + torch.arange(batch, device=device, dtype=torch.float64) / batch) % 1
    # (0, 1): the inverse normal distribution of the EDM preconditioning is infinite at the ends.
    outer = denoiser.preconditioner
    sigma = training_sigma(outer, u.clamp(1e-9, 1 - 1e-9))
    noise = torch.randn(clean.shape, generator=generator, device=device)
    keep = torch.rand(batch, 1, generator=generator, device=device) >= label_dropout
    one_hot = nnf.one_hot(labels, denoiser.label_dim).float() * keep
    x = clean.double() + expand(sigma, clean) * noise
    c_out = outer.c_out(sigma)
    target = ((clean - expand(outer.c_skip(sigma), x) * x) / expand(c_out, x)).float()
    error = (denoiser.output(x, sigma, one_hot) - target).square().mean(dim=(1, 2, 3))
    return ((loss_weight(weighting, sigma) * c_out**2).float() * error).mean()


def feature_loss(network: GlyphFeatures, pool: Pool, generator: torch.Generator, *, batch: int) -> Tensor:
    """Class (cross entropy) + targets of the pool (squared error) + amounts of damage (squared error)."""
    drawn = pool.drawn(generator, batch)
    images, amounts = corrupt(drawn.images, generator)
    # Back to the 256 levels that the network will meet; rounding has no gradient and needs none.
    heads = network.heads((images * 127.5 + 128).clip(0, 255).floor())
    classes = nnf.cross_entropy(heads.logits, drawn.labels, label_smoothing=LABEL_SMOOTHING)
    return classes + 2 * nnf.mse_loss(heads.factors, drawn.targets) + nnf.mse_loss(heads.corruption, amounts)


def corrupt(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Damage half of a batch (B, C, H, W) in [-1, 1] by noise and blur. Returns it and the amounts (B, 2).

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
