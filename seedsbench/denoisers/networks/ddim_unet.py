"""The U-Net of DDPM (Ho et al. 2020, Appendix B) as the DDIM authors trained it (Song et al. 2021).

Residual blocks with the timestep added between the two convolutions, single-head attention at chosen
levels, always one in the middle. It predicts the noise. State-dict keys are those of the DDIM
authors' files, so that these load strictly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.denoisers.networks.timesteps import TimestepFeatures


@dataclass(frozen=True)
class DDIMUNetConfig:
    """Everything needed to rebuild the network.

    width: channels of the embedding and of the first convolution. multiples: channels of each level over
    width, finest first. blocks: residual blocks a level on the way down (one more on the way up).
    attention_levels: indices of the levels with attention. resample_with_convolution: else 2x2 means and
    nearest neighbours. attention_after_every_up_block: else only after a level's last (score SDE's
    `ddpm`). noise_parameters: length of the unused parameter `logvar`; 0 where there is none.
    """

    img_channels: int = 3
    width: int = 128
    multiples: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (1,)
    resample_with_convolution: bool = True
    attention_after_every_up_block: bool = True
    noise_parameters: int = 0


class ResidualBlock(nn.Module):
    """x + conv2(act(norm2(conv1(act(norm1(x))) + temb_proj(act(temb)))))."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.nin_shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.norm1, self.conv1 = _norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.temb_proj = nn.Linear(embedding, outputs)
        self.norm2, self.conv2 = _norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, inputs, H, W). embedding: (1 or B, E), activated."""
        h = self.conv1(nnf.silu(self.norm1(x))) + self.temb_proj(embedding)[:, :, None, None]
        h = self.conv2(nnf.silu(self.norm2(h)))
        return h + self.nin_shortcut(x)


class Attention(nn.Module):
    """x + proj_out(attention over all pixels of norm(x)), one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        h = nnf.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Half the resolution: a strided convolution, or the mean of 2x2 pixels."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if convolve else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        if self.conv is None:
            return nnf.avg_pool2d(x, 2)
        # One row and column, below and to the right: the published weights are for this padding.
        return self.conv(nnf.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the resolution: nearest neighbour, perhaps with a convolution after it."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if convolve else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        x = nnf.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class Level(nn.Module):
    """The blocks of one resolution, on the way down or up, and their attentions: attn.M follows block.M."""

    def __init__(self, widths: list[tuple[int, int]], embedding: int, attended: list[int]) -> None:
        super().__init__()
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None
        self.block = nn.ModuleList(ResidualBlock(i, o, embedding) for i, o in widths)
        # ModuleDict keeps attn.0 for the only attention of a level that has it after its last block.
        self.attn = nn.ModuleDict({str(m): Attention(widths[m][1]) for m in attended})

    def run(self, m: int, x: Tensor, embedding: Tensor) -> Tensor:
        """Block m and what follows it."""
        x = self.block[m](x, embedding)
        return self.attn[str(m)](x) if str(m) in self.attn else x


class Levels(nn.ModuleList):
    """Levels, finest first."""

    def __iter__(self) -> Iterator[Level]:
        return iter(cast(list[Level], list(super().__iter__())))


class Middle(nn.Module):
    """Block, attention, block at the coarsest resolution."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, embedding)
        self.attn_1 = Attention(channels)
        self.block_2 = ResidualBlock(channels, channels, embedding)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        return self.block_2(self.attn_1(self.block_1(x, embedding)), embedding)


class TimestepEmbedding(nn.Module):
    """Sinusoids of the timestep and two linear layers; activated, as every block wants it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = TimestepFeatures(width, endpoint=True, cosine_first=False)
        self.dense = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)])

    def forward(self, t: Tensor) -> Tensor:
        """t: () or (B,). (1 or B, 4 width)."""
        return nnf.silu(self.dense[1](nnf.silu(self.dense[0](self.features(t)))))


class DDIMUNet(nn.Module):
    """The noise in scaled images, eps(x, t); see the module's docstring."""

    def __init__(self, config: DDIMUNetConfig) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.width, 4 * config.width
        widths = [width * multiple for multiple in config.multiples]
        self.temb = TimestepEmbedding(width)
        self.conv_in = nn.Conv2d(config.img_channels, width, 3, padding=1)
        self.down, skips = self._down_path(widths, embedding)
        self.mid = Middle(widths[-1], embedding)
        self.up = self._up_path(widths, skips, embedding)
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.img_channels, 3, padding=1)
        if config.noise_parameters:
            self.logvar = nn.Parameter(torch.zeros(config.noise_parameters))

    def _down_path(self, widths: list[int], embedding: int) -> tuple["Levels", list[int]]:
        """The levels, finest first, and the channels of what they leave for the way up, in order."""
        config, levels = self.config, []
        skips = [config.width]
        for n, outputs in enumerate(widths):
            pairs = [(skips[-1] if m == 0 else outputs, outputs) for m in range(config.blocks)]
            level = Level(pairs, embedding, self._attended(n, list(range(config.blocks))))
            skips += [outputs] * config.blocks
            if n < len(widths) - 1:
                level.downsample = Downsample(outputs, config.resample_with_convolution)
                skips.append(outputs)
            levels.append(level)
        return Levels(levels), skips

    def _up_path(self, widths: list[int], skips: list[int], embedding: int) -> "Levels":
        """The levels, finest first; they run from the last."""
        config, levels = self.config, []
        channels, blocks = widths[-1], list(range(self.config.blocks + 1))
        followed = blocks if config.attention_after_every_up_block else blocks[-1:]
        for n in reversed(range(len(widths))):
            pairs = [((channels if m == 0 else widths[n]) + skips.pop(), widths[n]) for m in blocks]
            level = Level(pairs, embedding, self._attended(n, followed))
            channels = widths[n]
            if n > 0:
                level.upsample = Upsample(channels, config.resample_with_convolution)
            levels.insert(0, level)
        return Levels(levels)

    def _attended(self, level: int, blocks: list[int]) -> list[int]:
        return blocks if level in self.config.attention_levels else []

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W), of unit variance with the noise. c_noise: () or (B,), index of the level.

        labels: not used, the network is unconditional.
        """
        embedding = self.temb(c_noise)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down:
            for m in range(self.config.blocks):
                x = level.run(m, x, embedding)
                skips.append(x)
            if level.downsample is not None:
                x = level.downsample(x)
                skips.append(x)
        x = self.mid(x, embedding)
        for level in reversed(list(self.up)):
            for m in range(self.config.blocks + 1):
                x = level.run(m, torch.cat([x, skips.pop()], dim=1), embedding)
            if level.upsample is not None:
                x = level.upsample(x)
        return self.conv_out(nnf.silu(self.norm_out(x)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)
