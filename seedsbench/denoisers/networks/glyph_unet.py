"""The embedded networks: 0.3M-parameter U-Nets, 0.2 ms per image on one CPU thread.

For 16x16 RGB a pixel-unshuffle to 8x8, for 8x8 grey none; then two levels with one FiLM-modulated residual
block each way, one attention at 4x4. Own design; its parts are the usual ones (Ho et al. 2020; Nichol and
Dhariwal 2021).

VP, VE and iDDPM ask the network for the noise (D = x -+ sigma F), flow matching for noise - data: at
sigma = 50 an error of 1 % in F is an error of half the data range in D, and nearly all of F is a copy of the
input, which a small network copies badly. But c_noise tells it sigma, so it standardises its own input and
output in closed form:

    F = s(sigma) x_in + g(sigma) h(x_in / std(x_in), c_noise, labels),

with s and g such that h has the unit-variance target of Karras et al. 2022 (App. B.6) at every sigma. The
preconditioning outside is that of each regime; for EDM's s = 0 and g = 1.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.checks import check_options
from seedsbench.denoisers.networks.unet_blocks import check_size
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, EDMPreconditioner
from seedsbench.diffusion.process import expand


@dataclass(frozen=True)
class GlyphUNetConfig:
    """Everything needed to rebuild the network.

    regime: key of PRECONDITIONERS that the network is trained under.
    noise_scale, noise_offset: affine map of c_noise to the argument of the sinusoidal features.
    channels: width at 8x8 and at 4x4. embedding: width of the noise and label embedding.
    patch: side of the patches of pixels that become channels, 1 or 2.
    """

    regime: str
    noise_scale: float
    noise_offset: float
    channels: tuple[int, int] = (32, 64)
    embedding: int = 128
    img_channels: int = 3
    img_resolution: int = 16
    label_dim: int = 10
    sigma_data: float = 0.5
    patch: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        check_options("GlyphUNetConfig", {"patch": Literal[1, 2]}, {"patch": self.patch})
        check_size(self.img_resolution, levels=3)


# The range of use spans [0, 1000] for the regimes that know their noise level by (nearly) an index,
# as in DDPM. ln(sigma) is a smoother variable, on [0, 250]: the fastest feature turns once in 25 % of sigma.
GLYPH_UNETS = {
    "vp": GlyphUNetConfig("vp", noise_scale=1.0, noise_offset=0.0),
    "iddpm": GlyphUNetConfig("iddpm", noise_scale=1.0, noise_offset=0.0),
    "ve": GlyphUNetConfig("ve", noise_scale=25.0, noise_offset=125.0),
    "edm": GlyphUNetConfig("edm", noise_scale=100.0, noise_offset=150.0),
    "flow": GlyphUNetConfig("flow", noise_scale=1.0, noise_offset=0.0),
}
DIGIT_UNETS = {
    regime: replace(GLYPH_UNETS[regime], img_channels=1, img_resolution=8, patch=1)
    for regime in ("vp", "edm")
}
EMBEDDED_UNETS = {"glyphs": GLYPH_UNETS, "digits": DIGIT_UNETS}
"""By data set and regime: those that the package ships."""


class ResidualBlock(nn.Module):
    """x + conv(FiLM(norm(conv(act(norm(x)))))); the last convolution starts at zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm0 = nn.GroupNorm(8, inputs)
        self.conv0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv1 = _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """x: (B, inputs, H, W). film: (B or 1, 2 * outputs), scale and shift."""
        scale, shift = film[:, :, None, None].chunk(2, dim=1)
        h = self.conv0(nnf.silu(self.norm0(x)))
        h = torch.addcmul(shift, self.norm1(h), scale + 1)
        return self.skip(x) + self.conv1(nnf.silu(h))


class SelfAttention(nn.Module):
    """Pre-normalised self-attention over all pixels; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = 2
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nnf.scaled_dot_product_attention(q, k, v)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, height * width, channels))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class NoiseEmbedding(nn.Module):
    """Sinusoidal features of the noise level, an MLP, plus a linear map of the label."""

    frequencies: Tensor

    def __init__(self, config: GlyphUNetConfig) -> None:
        super().__init__()
        self.scale, self.offset = config.noise_scale, config.noise_offset
        frequencies = torch.exp(-math.log(1e4) * torch.arange(32) / 32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.linear0 = nn.Linear(64, config.embedding)
        self.linear1 = nn.Linear(config.embedding, config.embedding)
        self.label = nn.Linear(config.label_dim, config.embedding, bias=False)

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """c_noise: () or (B,). labels: (B, K) or None. (1 or B, embedding): one row if all samples agree."""
        angle = (c_noise.reshape(-1, 1) * self.scale + self.offset) * self.frequencies
        h = self.linear1(nnf.silu(self.linear0(torch.cat([angle.sin(), angle.cos()], dim=1))))
        return nnf.silu(h if labels is None else h + self.label(labels))


class GlyphUNet(nn.Module):
    """F(x_in, c_noise, labels) of the embedded models, see the module's docstring."""

    def __init__(self, config: GlyphUNetConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.channels
        pixels = config.patch**2 * config.img_channels
        self.embedding = NoiseEmbedding(config)
        self.film_widths = [2 * fine, 2 * coarse, 2 * coarse, 2 * fine]
        # One matrix for the modulation of all blocks: one small product instead of four.
        self.film = nn.Linear(config.embedding, sum(self.film_widths))
        self.conv_in = nn.Conv2d(pixels, fine, 3, padding=1)
        self.down_fine = ResidualBlock(fine, fine)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.down_coarse = ResidualBlock(coarse, coarse)
        self.attention = SelfAttention(coarse)
        self.up_coarse = ResidualBlock(coarse, coarse)
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.up_fine = ResidualBlock(2 * fine, fine)
        self.norm_out = nn.GroupNorm(8, fine)
        self.conv_out = _zero(nn.Conv2d(fine, pixels, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W), already times c_in. c_noise: () or (B,). labels: (B, K) or None."""
        inverse_std, skip, gain = (expand(v.to(x.dtype), x) for v in self.standardisation(c_noise))
        films = self.film(self.embedding(c_noise.to(x.dtype), labels)).split(self.film_widths, dim=1)
        fine = self.down_fine(self.conv_in(nnf.pixel_unshuffle(inverse_std * x, self.config.patch)), films[0])
        coarse = self.down_coarse(self.down(fine), films[1])
        coarse = self.up_coarse(self.attention(coarse), films[2])
        up = nnf.pixel_shuffle(self.up(coarse), 2)
        fine = self.up_fine(torch.cat([up, fine], dim=1), films[3])
        h = nnf.pixel_shuffle(self.conv_out(nnf.silu(self.norm_out(fine))), self.config.patch)
        return skip * x + gain * h

    def standardisation(self, c_noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1/std(x_in), s and g of the module's docstring, each shaped like c_noise, float64."""
        outer = PRECONDITIONERS[self.config.regime]
        ideal = EDMPreconditioner(sigma_data=self.config.sigma_data)
        sigma = outer.sigma_of_noise(c_noise.double())
        c_in, c_out = outer.c_in(sigma), outer.c_out(sigma)
        skip = (ideal.c_skip(sigma) - outer.c_skip(sigma)) / (c_out * c_in)
        return ideal.c_in(sigma) / c_in, skip, ideal.c_out(sigma) / c_out


def _zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
