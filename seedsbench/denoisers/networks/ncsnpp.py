"""NCSN++ with the options of Song et al. 2021 (App. H) that SongUNet leaves out and only ablations use.

State-dict keys are those of the authors' list of modules, all_modules.N, besides the filters.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.denoisers.networks.unet_blocks import (
    Direction,
    HalvingConv,
    Resampler,
    StridedConv,
    TimestepFeatures,
    attend,
    group_norm,
)


@dataclass(frozen=True)
class NCSNppConfig:
    """Everything needed to rebuild the network.

    width: of the embedding and the first convolution. channels: of each level, finest first. blocks:
    residual blocks a level on the way down. attended: indices of levels with attention.
    biggan: blocks resample; else resampling stands between blocks. fir: filter [1, 3, 3, 1], else 2x2 means.
    rescale: sums are divided by sqrt 2. pyramid: how coarser levels get the input image. image_sum:
    every level adds to the output image.
    """

    img_channels: int = 3
    width: int = 128
    channels: tuple[int, ...] = (128, 256, 256, 256)
    blocks: int = 4
    attended: tuple[int, ...] = (1,)
    embedding: Literal["positional", "fourier"] | None = "positional"
    biggan: bool = True
    fir: bool = True
    rescale: bool = True
    pyramid: Literal["none", "residual", "sum", "cat"] = "none"
    image_sum: bool = False

    @property
    def taps(self) -> tuple[int, ...]:
        return (1, 3, 3, 1) if self.fir else (1, 1)

    @property
    def factor(self) -> float:
        return math.sqrt(0.5) if self.rescale else 1.0


class _Matrix(nn.Module):
    """A 1x1 convolution, stored as a matrix W (inputs, outputs) and b."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(inputs, outputs))
        self.b = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return nnf.conv2d(x, self.W.T[:, :, None, None], self.b)


class _Frequencies(nn.Module):
    """sin and cos of c_noise at fixed random frequencies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(width), requires_grad=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """c_noise: () or (B,). (1 or B, 2 width)."""
        angle = c_noise.reshape(-1, 1) * self.W * (2 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class _Block(nn.ModuleDict):
    """Residual block; a BigGAN one may resample both branches."""

    def __init__(
        self, inputs: int, outputs: int, config: NCSNppConfig, direction: Direction | None = None
    ) -> None:
        projects = inputs != outputs or direction is not None
        layers: dict[str, nn.Module] = {
            "GroupNorm_0": group_norm(inputs, 1e-6),
            "Conv_0": nn.Conv2d(inputs, outputs, 3, padding=1),
            # There, unused, even in a network that is told no noise level.
            "Dense_0": nn.Linear(4 * config.width, outputs),
            "GroupNorm_1": group_norm(outputs, 1e-6),
            "Conv_1": nn.Conv2d(outputs, outputs, 3, padding=1),
        }
        shortcut = "Conv_2" if config.biggan else "NIN_0"
        if projects:
            layers[shortcut] = nn.Conv2d(inputs, outputs, 1) if config.biggan else _Matrix(inputs, outputs)
        super().__init__(layers)
        self.shortcut = shortcut if projects else None
        self.factor = config.factor
        self.resampler = Resampler(config.taps, direction) if direction else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """x: (B, inputs, H, W). embedding: (1 or B, E), activated, or None."""
        h = self["Conv_0"](self.resampler(nnf.silu(self["GroupNorm_0"](x))))
        if embedding is not None:
            h = h + self["Dense_0"](embedding)[:, :, None, None]
        h = self["Conv_1"](nnf.silu(self["GroupNorm_1"](h)))
        x = self.resampler(x)
        return (h + (self[self.shortcut](x) if self.shortcut else x)) * self.factor


class _Attention(nn.ModuleDict):
    """Self-attention over all pixels, one head."""

    def __init__(self, channels: int, factor: float) -> None:
        layers: dict[str, nn.Module] = {f"NIN_{j}": _Matrix(channels, channels) for j in range(4)}
        super().__init__({"GroupNorm_0": group_norm(channels, 1e-6), **layers})
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        h = self["GroupNorm_0"](x)
        mixed = attend(*(self[f"NIN_{j}"](h) for j in range(3)))
        return (x + self["NIN_3"](mixed)) * self.factor


def _pyramid_step(inputs: int, outputs: int, config: NCSNppConfig) -> nn.Module:
    """From the input image, or what became of it, to the channels of a level; a residual one halves it."""
    if config.pyramid != "residual":
        return nn.Sequential(OrderedDict(Conv_0=nn.Conv2d(inputs, outputs, 1)))
    if config.fir:
        return nn.Sequential(OrderedDict(Conv2d_0=StridedConv(inputs, outputs, config.taps)))
    return nn.Sequential(OrderedDict(Conv_0=HalvingConv(inputs, outputs)))


_Role = Literal["block", "plain", "push", "pop", "residual", "skip", "norm", "image"]


class NCSNpp(nn.Module):
    """The raw output for (x, c_noise): a list of modules and, beside it, what to do with each."""

    def __init__(self, config: NCSNppConfig) -> None:
        super().__init__()
        self.config = config
        self.all_modules = nn.ModuleList()
        self.roles: list[tuple[_Role, int]] = []
        self.features = TimestepFeatures(config.width, endpoint=True, cosine_first=False)
        self.shrink, self.grow = Resampler(config.taps, "down"), Resampler(config.taps, "up")
        if config.embedding:
            fourier = config.embedding == "fourier"
            self.all_modules.extend([_Frequencies(config.width)] if fourier else [])
            inputs, embedding = config.width * (1 + fourier), 4 * config.width
            self.all_modules.extend([nn.Linear(inputs, embedding), nn.Linear(embedding, embedding)])
        self._add("plain", nn.Conv2d(config.img_channels, config.width, 3, padding=1))
        self._add("push")
        width, pyramid, pushed = config.width, config.img_channels, [config.width]
        for level, channels in enumerate(config.channels):
            for _ in range(config.blocks):
                self._add("block", _Block(width, channels, config))
                width = channels
                if level in config.attended:
                    self._add("plain", _Attention(width, config.factor))
                self._add("push")
                pushed.append(width)
            if level < len(config.channels) - 1:
                self._resampling(width, "down")
                if config.pyramid != "none":
                    residual = config.pyramid == "residual"
                    self._add("residual" if residual else "skip", _pyramid_step(pyramid, width, config))
                    pyramid = width if residual else pyramid
                width *= 2 if config.pyramid == "cat" else 1
                self._add("push")
                pushed.append(width)
        self._add("block", _Block(width, width, config))
        self._add("plain", _Attention(width, config.factor))
        self._add("block", _Block(width, width, config))
        for level, channels in reversed(list(enumerate(config.channels))):
            for _ in range(config.blocks + 1):
                self._add("pop")
                self._add("block", _Block(width + pushed.pop(), channels, config))
                width = channels
            if level in config.attended:
                self._add("plain", _Attention(width, config.factor))
            if config.image_sum or level == 0:
                self._add("norm", group_norm(width, 1e-6))
                self._add("image", nn.Conv2d(width, config.img_channels, 3, padding=1))
            if level > 0:
                self._resampling(width, "up")

    def _add(self, role: _Role, module: nn.Module | None = None) -> None:
        self.roles.append((role, len(self.all_modules)))
        if module is not None:
            self.all_modules.append(module)

    def _resampling(self, width: int, direction: Direction) -> None:
        if self.config.biggan:
            self._add("block", _Block(width, width, self.config, direction))
        else:
            self._add("plain", Resampler(self.config.taps, direction))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W). c_noise: () or (B,); its logarithm for a Fourier embedding. labels: not used."""
        embedding = self._embed(c_noise)
        h, pyramid, image, normed = x, x, None, x
        stack: list[Tensor] = []
        for role, index in self.roles:
            if role == "push":
                stack.append(h)
            elif role == "pop":
                h = torch.cat([h, stack.pop()], dim=1)
            elif role == "block":
                h = self.all_modules[index](h, embedding)
            elif role == "plain":
                h = self.all_modules[index](h)
            elif role == "residual":
                h = pyramid = (self.all_modules[index](pyramid) + h) * self.config.factor
            elif role == "skip":
                pyramid = self.shrink(pyramid)
                step = self.all_modules[index](pyramid)
                h = h + step if self.config.pyramid == "sum" else torch.cat([step, h], dim=1)
            elif role == "norm":
                normed = nnf.silu(self.all_modules[index](h))
            else:
                step = self.all_modules[index](normed)
                image = step if image is None else self.grow(image) + step
        assert image is not None
        return image

    def _embed(self, c_noise: Tensor) -> Tensor | None:
        """(1 or B, 4 width), activated, as blocks want it; None for a network that is told nothing."""
        if not self.config.embedding:
            return None
        fourier = self.config.embedding == "fourier"
        h = self.all_modules[0](c_noise) if fourier else self.features(c_noise)
        first, second = self.all_modules[fourier : fourier + 2]
        return nnf.silu(second(nnf.silu(first(h))))
