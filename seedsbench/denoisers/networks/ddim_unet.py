"""The U-Net of DDPM (Ho et al. 2020, Appendix B) as the DDIM authors trained it (Song et al. 2021).

Residual blocks with the timestep added between the two convolutions, single-head attention at chosen
levels, always one in the middle. It predicts the noise. State-dict keys are those of the DDIM
authors' files, so that these load strictly.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.denoisers.networks.unet_blocks import HalvingConv, TimestepFeatures, Upsample, attend


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


class _ResidualBlock(nn.Module):
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


class _Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.proj_out(attend(self.q(h), self.k(h), self.v(h)))


class _Level(nn.Module):
    """The blocks of one resolution and their attentions: attn.M follows block.M."""

    def __init__(self, widths: list[tuple[int, int]], embedding: int, attended: list[int]) -> None:
        super().__init__()
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None
        self.block = nn.ModuleList(_ResidualBlock(i, o, embedding) for i, o in widths)
        # ModuleDict keeps attn.0 for the only attention of a level that has it after its last block.
        self.attn = nn.ModuleDict({str(m): _Attention(widths[m][1]) for m in attended})

    def run(self, m: int, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.block[m](x, embedding)
        return self.attn[str(m)](x) if str(m) in self.attn else x


class _LevelDown(_Level):
    """A level that appends to `skips` what the way up takes from there."""

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for m in range(len(self.block)):
            x = self.run(m, x, embedding)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x


class _LevelUp(_Level):
    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for m in range(len(self.block)):
            x = self.run(m, torch.cat([x, skips.pop()], dim=1), embedding)
        return x if self.upsample is None else self.upsample(x)


class DDIMUNet(nn.Module):
    """The noise in scaled images, eps(x, t); see the module's docstring."""

    def __init__(self, config: DDIMUNetConfig) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.width, 4 * config.width
        widths = [width * multiple for multiple in config.multiples]
        features = TimestepFeatures(width, endpoint=True, cosine_first=False)
        dense = nn.ModuleList([nn.Linear(width, embedding), nn.Linear(embedding, embedding)])
        self.temb = nn.ModuleDict({"features": features, "dense": dense})
        self.conv_in = nn.Conv2d(config.img_channels, width, 3, padding=1)
        self.down, skips = self._down_path(widths, embedding)
        middle = widths[-1]
        self.mid = nn.ModuleDict(
            {
                "block_1": _ResidualBlock(middle, middle, embedding),
                "attn_1": _Attention(middle),
                "block_2": _ResidualBlock(middle, middle, embedding),
            }
        )
        self.up = self._up_path(widths, skips, embedding)
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.img_channels, 3, padding=1)
        if config.noise_parameters:
            self.logvar = nn.Parameter(torch.zeros(config.noise_parameters))

    def _down_path(self, widths: list[int], embedding: int) -> tuple[nn.ModuleList, list[int]]:
        """The levels, finest first, and the channels of what they leave for the way up, in order."""
        config, levels = self.config, nn.ModuleList()
        skips = [config.width]
        for n, outputs in enumerate(widths):
            pairs = [(skips[-1] if m == 0 else outputs, outputs) for m in range(config.blocks)]
            level = _LevelDown(pairs, embedding, self._attended(n, list(range(config.blocks))))
            skips += [outputs] * config.blocks
            if n < len(widths) - 1:
                level.downsample = nn.AvgPool2d(2)
                if config.resample_with_convolution:
                    level.downsample = nn.Sequential(OrderedDict(conv=HalvingConv(outputs, outputs)))
                skips.append(outputs)
            levels.append(level)
        return levels, skips

    def _up_path(self, widths: list[int], skips: list[int], embedding: int) -> nn.ModuleList:
        """The levels, finest first; they run from the last."""
        config, levels = self.config, nn.ModuleList()
        channels, blocks = widths[-1], list(range(self.config.blocks + 1))
        followed = blocks if config.attention_after_every_up_block else blocks[-1:]
        for n in reversed(range(len(widths))):
            pairs = [((channels if m == 0 else widths[n]) + skips.pop(), widths[n]) for m in blocks]
            level = _LevelUp(pairs, embedding, self._attended(n, followed))
            channels = widths[n]
            if n > 0:
                level.upsample = Upsample(channels, config.resample_with_convolution)
            levels.insert(0, level)
        return levels

    def _attended(self, level: int, blocks: list[int]) -> list[int]:
        return blocks if level in self.config.attention_levels else []

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W), of unit variance with the noise. c_noise: () or (B,), index of the level.

        labels: not used, the network is unconditional.
        """
        first, second = self.temb["dense"].children()
        embedding = nnf.silu(second(nnf.silu(first(self.temb["features"](c_noise)))))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down:
            x = level(x, embedding, skips)
        x = self.mid["block_2"](self.mid["attn_1"](self.mid["block_1"](x, embedding)), embedding)
        for level in reversed(self.up):
            x = level(x, embedding, skips)
        return self.conv_out(nnf.silu(self.norm_out(x)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)
