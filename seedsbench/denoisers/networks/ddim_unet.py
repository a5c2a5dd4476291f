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

    def __init__(self, inputs: list[int], outputs: int, embedding: int, attended: list[int]) -> None:
        super().__init__()
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None
        self.block = nn.ModuleList(_ResidualBlock(n, outputs, embedding) for n in inputs)
        # ModuleDict keeps attn.0 for the only attention of a level that has it after its last block.
        self.attn = nn.ModuleDict({str(m): _Attention(outputs) for m in attended})

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor], *, up: bool) -> Tensor:
        """On the way up it takes from `skips` what it appended on the way down."""
        for m, block in enumerate(self.block):
            x = block(torch.cat([x, skips.pop()], dim=1) if up else x, embedding)
            x = self.attn[str(m)](x) if str(m) in self.attn else x
            if not up:
                skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x if self.upsample is None else self.upsample(x)


class DDIMUNet(nn.Module):
    """The noise in scaled images, eps(x, t); see the module's docstring."""

    def __init__(self, config: DDIMUNetConfig) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.width, 4 * config.width
        features = TimestepFeatures(width, endpoint=True, cosine_first=False)
        dense = nn.ModuleList([nn.Linear(width, embedding), nn.Linear(embedding, embedding)])
        self.temb = nn.ModuleDict({"features": features, "dense": dense})
        self.conv_in = nn.Conv2d(config.img_channels, width, 3, padding=1)
        widths, blocks = [width * multiple for multiple in config.multiples], list(range(config.blocks + 1))
        # Both finest level first. skips: channels of what levels leave for the way up, in order.
        self.down, skips = nn.ModuleList(), [width]
        for n, channels in enumerate(widths):
            inputs = [skips[-1], *[channels] * (config.blocks - 1)]
            attended = blocks[:-1] if n in config.attention_levels else []
            level = _Level(inputs, channels, embedding, attended)
            skips += [channels] * config.blocks
            if n < len(widths) - 1:
                level.downsample = nn.AvgPool2d(2)
                if config.resample_with_convolution:
                    level.downsample = nn.Sequential(OrderedDict(conv=HalvingConv(channels, channels)))
                skips.append(channels)
            self.down.append(level)
        channels = widths[-1]
        middle = {"block_1": _ResidualBlock(channels, channels, embedding), "attn_1": _Attention(channels)}
        self.mid = nn.ModuleDict({**middle, "block_2": _ResidualBlock(channels, channels, embedding)})
        self.up = nn.ModuleList()
        for n in reversed(range(len(widths))):
            inputs = [before + skips.pop() for before in (channels, *[widths[n]] * config.blocks)]
            channels = widths[n]
            attended = blocks if config.attention_after_every_up_block else blocks[-1:]
            level = _Level(inputs, channels, embedding, attended if n in config.attention_levels else [])
            if n > 0:
                level.upsample = Upsample(channels, config.resample_with_convolution)
            self.up.insert(0, level)
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.img_channels, 3, padding=1)
        if config.noise_parameters:
            self.logvar = nn.Parameter(torch.zeros(config.noise_parameters))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W), of unit variance with the noise. c_noise: () or (B,), index of the level.

        labels: not used, the network is unconditional.
        """
        first, second = self.temb["dense"].children()
        embedding = nnf.silu(second(nnf.silu(first(self.temb["features"](c_noise)))))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down:
            x = level(x, embedding, skips, up=False)
        x = self.mid["block_2"](self.mid["attn_1"](self.mid["block_1"](x, embedding)), embedding)
        for level in reversed(self.up):
            x = level(x, embedding, skips, up=True)
        return self.conv_out(nnf.silu(self.norm_out(x)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)
