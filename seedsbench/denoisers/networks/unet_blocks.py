"""Parts of the U-Nets of Song et al. 2021 (DDPM++, NCSN++) and Dhariwal and Nichol 2021 (ADM).

Residual blocks of two 3x3 convolutions, told the noise level by an embedding, with self-attention at some
resolutions. Names of submodules are those of EDM's published files. Inference only: no dropout.

Nothing here asks for a memory format: a network moved to channels_last runs in it as far as torch keeps it
(on CUDA most group norms do not), and attention then reads the image as a row of tokens without a copy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class BlockStyle:
    """What the blocks of one network have in common.

    embedding: width of the noise embedding. eps: of the group norms.
    scale_shift: the embedding scales and shifts the second norm's output; else it is added to its input.
    rescale: factor after each sum of a branch and its input (Song et al. 2021, App. H: 1/sqrt 2).
    head_channels: width of an attention head; None is one head as wide as the block.
    project_resampled: a block that resamples also has a 1x1 convolution in its skip branch.
    taps: 1-d resampling filter, normalised where it is used.
    """

    embedding: int
    eps: float
    scale_shift: bool
    rescale: float
    head_channels: int | None
    project_resampled: bool
    taps: tuple[int, ...]


def check_size(img_resolution: Any, levels: int) -> None:
    """Raise ValueError unless images of that many pixels can be halved levels - 1 times."""
    finest = 2 ** (levels - 1)
    whole = type(img_resolution) is int and img_resolution > 0
    if not whole or img_resolution % finest:
        near = img_resolution // finest * finest if whole else 0
        sizes = " or ".join(str(size) for size in (near, near + finest) if size > 0)
        raise ValueError(
            f"img_resolution={img_resolution!r} cannot be halved {levels - 1} times, as a network of "
            f"{levels} levels does: it must be a multiple of {finest}, such as {sizes}"
        )


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Groups of at least four channels, at most 32 groups."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class Resampler(nn.Module):
    """Doubles or halves height and width by a separable FIR filter, zeros beyond the border.

    Holds the filter as buffer `resample_filter`, as the published files do.
    """

    resample_filter: Tensor

    def __init__(self, taps: tuple[int, ...], direction: Direction) -> None:
        super().__init__()
        if len(taps) < 2 or len(taps) % 2:  # else pixels would move by half of one
            raise ValueError(f"resample_filter={list(taps)} must have an even number of taps, as [1, 1]")
        self.taps, self.direction = taps, direction
        row = torch.tensor(taps, dtype=torch.float32, device="cpu")
        square = torch.outer(row, row)
        self.register_buffer("resample_filter", (square / square.sum())[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W) or (B, C, H/2, W/2)."""
        plain = self.taps == (1, 1)
        if self.direction == "down":
            return nnf.avg_pool2d(x, 2) if plain else self._filtered(x, 2, (len(self.taps) - 1) // 2)
        if plain:
            return nnf.interpolate(x, scale_factor=2, mode="nearest")
        if self.taps == (1, 3, 3, 1):
            # Away from the border this filter is bilinear interpolation; a rim of zeros is its border.
            grown = nnf.interpolate(nnf.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")
            return grown[:, :, 2:-2, 2:-2]
        weight = (4 * self.resample_filter).to(x.dtype).expand(x.shape[1], -1, -1, -1)
        padding = (len(self.taps) - 1) // 2
        return nnf.conv_transpose2d(x, weight, stride=2, padding=padding, groups=x.shape[1])

    def _filtered(self, x: Tensor, stride: int, padding: int) -> Tensor:
        weight = self.resample_filter.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return nnf.conv2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])


class ResampledConv(Resampler):
    """Resampling followed by a convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, taps: tuple[int, ...], direction: Direction
    ) -> None:
        super().__init__(taps, direction)
        convolution = nn.Conv2d(inputs, outputs, kernel)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.direction == "up" and self.padding == 0:
            # A 1x1 convolution commutes with the filter (its bias does not, at the border) and costs a
            # quarter on the small image.
            h = super().forward(nnf.conv2d(x, self.weight))
            return h if self.bias is None else h + self.bias[:, None, None]
        return nnf.conv2d(super().forward(x), self.weight, self.bias, padding=self.padding)


class StridedConv(Resampler):
    """Low-pass filter and 3x3 convolution in one strided step (the pyramid of residual encoders).

    Only the outer border is padded: what the filter smears beyond it still reaches the convolution.
    """

    def __init__(self, inputs: int, outputs: int, taps: tuple[int, ...]) -> None:
        super().__init__(taps, "down")
        convolution = nn.Conv2d(inputs, outputs, 3)
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        # Filtering first and striding in the convolution is the cheap order: a pyramid has few channels.
        return nnf.conv2d(self._filtered(x, 1, (len(self.taps) + 1) // 2), self.weight, self.bias, stride=2)


class HalvingConv(nn.Conv2d):
    """3x3 convolution with stride 2, padded below and on the right alone: published weights are for this."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nnf.pad(input, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the resolution: every pixel repeated, perhaps with a convolution after it."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if convolve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nnf.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNetBlock(nn.Module):
    """Residual block, optionally resampling, optionally followed by self-attention.

    Keys: norm0 conv0 affine norm1 conv1 [skip] [norm2 qkv proj].
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: BlockStyle,
        *,
        attention: bool = False,
        direction: Direction | None = None,
    ) -> None:
        super().__init__()
        self.style = style
        self.norm0 = group_norm(inputs, style.eps)
        if direction is None:
            self.conv0: nn.Module = nn.Conv2d(inputs, outputs, 3, padding=1)
        else:
            self.conv0 = ResampledConv(inputs, outputs, 3, style.taps, direction)
        self.affine = nn.Linear(style.embedding, 2 * outputs if style.scale_shift else outputs)
        self.norm1 = group_norm(outputs, style.eps)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = _skip(inputs, outputs, style, direction)
        # A block narrower than a head has none, and then no attention: so the published code counts.
        self.heads = outputs // (style.head_channels or outputs) if attention else 0
        if self.heads:
            self.norm2 = group_norm(outputs, style.eps)
            self.qkv = nn.Conv2d(outputs, 3 * outputs, 1)
            self.proj = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, inputs, H, W). embedding: (B or 1, style.embedding)."""
        h = self.conv0(nnf.silu(self.norm0(x), inplace=True))
        modulation = self.affine(embedding)[:, :, None, None]
        if self.style.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h.add_(modulation))
        h = self.conv1(nnf.silu(h, inplace=True))
        x = self._sum(h, x if self.skip is None else self.skip(x))
        if self.heads:
            x = self._sum(self_attention(self.norm2(x), self.qkv, self.proj, self.heads), x)
        return x

    def _sum(self, branch: Tensor, x: Tensor) -> Tensor:
        total = branch.add_(x)
        return total if self.style.rescale == 1 else total.mul_(self.style.rescale)


def _skip(inputs: int, outputs: int, style: BlockStyle, direction: Direction | None) -> nn.Module | None:
    if direction is None:
        return None if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
    if inputs == outputs and not style.project_resampled:
        return Resampler(style.taps, direction)
    return ResampledConv(inputs, outputs, 1, style.taps, direction)


def self_attention(
    x: Tensor,
    qkv: nn.Conv2d,
    proj: nn.Conv2d,
    heads: int,
    normalise: Callable[[Tensor], Tensor] = lambda tokens: tokens,
) -> Tensor:
    """proj(softmax(q k / sqrt(C / heads)) v) over all pixels of x (B, C, H, W); same shape.

    Output channel 3 m + j of qkv is channel m of q, k, v (j = 0, 1, 2); head h owns the channels m of the
    h-th run of C / heads. normalise: what is done first to each of q, k, v (B, heads, H W, C / heads).
    """
    batch, channels, height, width = x.shape
    tokens = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    weights = qkv.weight.reshape(channels, 3, channels).unbind(1)
    biases = (None, None, None) if qkv.bias is None else qkv.bias.reshape(channels, 3).unbind(1)
    shape = (batch, height * width, heads, channels // heads)
    q, k, v = (
        normalise(nnf.linear(tokens, w, b).view(shape).transpose(1, 2))
        for w, b in zip(weights, biases, strict=True)
    )
    mixed = nnf.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)
    mixed = nnf.linear(mixed, proj.weight.reshape(channels, channels), proj.bias)
    return mixed.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt C) v over all pixels, one head; all (B, C, H, W)."""
    shape = q.shape
    q, k, v = (part.flatten(2).transpose(1, 2)[:, None] for part in (q, k, v))
    return nnf.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(shape)


def positional_features(c_noise: Tensor, width: int, *, endpoint: bool) -> Tensor:
    """cos and sin of c_noise times falling frequencies from 1 to 1e-4: two (N, width / 2), c_noise (N,).

    endpoint: whether 1e-4 itself is the last frequency.
    """
    half = width // 2
    # In float32 whatever the network's dtype: the published networks know no other frequencies.
    exponents = torch.arange(half, dtype=torch.float32, device=c_noise.device) / (half - int(endpoint))
    angle = torch.outer(c_noise, (1e-4**exponents).to(c_noise.dtype))
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class FourierFeatures(nn.Module):
    """cos and sin of c_noise at fixed random frequencies (Tancik et al. 2020): (N,) -> (N, width)."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # Frequencies are drawn before training and belong to the weights: zeros until a file fills them.
        self.register_buffer("freqs", torch.zeros(width // 2))

    def forward(self, c_noise: Tensor) -> Tensor:
        angle = torch.outer(c_noise, (2 * math.pi * self.freqs).to(c_noise.dtype))
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class TimestepFeatures(nn.Module):
    """Sinusoids of a timestep (Ho et al. 2020): cos and sin of t / 10000^(i / n), i = 0 .. width/2 - 1.

    endpoint: n = width/2 - 1, so that the slowest frequency is exactly 1/10000 (DDPM, DDIM, score SDE);
    otherwise n = width/2 (OpenAI's networks). cosine_first: order of the two halves.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, endpoint: bool, cosine_first: bool) -> None:
        super().__init__()
        self.cosine_first = cosine_first
        half = width // 2
        # float32, multiplied in this order: at t = 999 the last bit of a frequency shows in the output.
        index = torch.arange(half, dtype=torch.float32)
        exponents = index * -(math.log(10000) / (half - 1)) if endpoint else -math.log(10000) * index / half
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """t: () or (B,). (1 or B, width): one row if it is the same for all samples."""
        angle = t.reshape(-1, 1).to(self.frequencies.dtype) * self.frequencies
        halves = (angle.cos(), angle.sin()) if self.cosine_first else (angle.sin(), angle.cos())
        return torch.cat(halves, dim=1)
