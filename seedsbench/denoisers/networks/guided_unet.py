"""The U-Net of improved DDPM and ADM (Nichol and Dhariwal 2021; Dhariwal and Nichol 2021, section 3).

Against DDPM's: multi-head attention, timestep and class as scale and shift of a norm, resampling
inside residual blocks, and twice the output channels where it also learns a variance. State-dict keys
are those of OpenAI's two releases, so that their files load strictly.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.denoisers.networks.unet_blocks import TimestepFeatures, Upsample


@dataclass(frozen=True)
class GuidedUNetConfig:
    """Everything needed to rebuild the network.

    width: channels that set the size of the embedding. channels: of each level, finest first. blocks:
    residual blocks a level on the way down (one more on the way up). attention_levels: indices of levels.
    heads, heads_up: attention heads on the way down and in the middle, and on the way up;
    head_channels: if not 0, there are channels / head_channels heads instead.
    new_attention_order: layout of the 3C channels of qkv: q, k and v one after the other, each split into
    heads; the old one is heads one after the other, each split into q, k and v. Weights do not tell.
    scale_shift: the embedding scales and shifts the second norm; else it is added before it.
    resample_in_blocks: residual blocks that resample; else resample_with_convolution says how.
    """

    in_channels: int = 3
    out_channels: int = 6
    width: int = 192
    channels: tuple[int, ...] = (192, 384, 576, 768)
    blocks: int = 3
    attention_levels: tuple[int, ...] = (1, 2, 3)
    classes: int = 0
    heads: int = 1
    heads_up: int = 1
    head_channels: int = 0
    new_attention_order: bool = False
    scale_shift: bool = True
    resample_in_blocks: bool = True
    resample_with_convolution: bool = True

    def __post_init__(self) -> None:
        attended = {self.channels[n] for n in self.attention_levels} | {self.channels[-1]}
        for channels in sorted(attended):
            for heads in (self.heads, self.heads_up):
                parts = self.head_channels or heads
                if parts < 1 or channels % parts:
                    name = "head_channels" if self.head_channels else "heads"
                    raise ValueError(f"{name}={parts} must divide the {channels} channels of an attention")


class _Norm(nn.GroupNorm):
    """Group norm of 32 groups, computed in float32 whatever the type of its input."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels, eps=1e-5)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class _ResidualBlock(nn.Module):
    """skip(x) + conv(act(norm(conv(resample(act(norm(x))))))), the embedding at the second norm.

    factor: 1, 0.5 or 2; both branches are resampled.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, scale_shift: bool, factor: float) -> None:
        super().__init__()
        self.scale_shift, self.factor = scale_shift, factor
        self.in_layers = nn.Sequential(_Norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs * (1 + scale_shift)))
        # The identity holds the place of the dropout of training.
        last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.out_layers = nn.Sequential(_Norm(outputs), nn.SiLU(), nn.Identity(), last)
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, inputs, H, W). embedding: (1 or B, E)."""
        norm, act, convolution = self.in_layers
        h = convolution(self._resampled(act(norm(x))))
        added = self.emb_layers(embedding).to(h.dtype)[:, :, None, None]
        norm, act, _, convolution = self.out_layers
        if self.scale_shift:
            scale, shift = added.chunk(2, dim=1)
            h = torch.addcmul(shift, norm(h), 1 + scale)
        else:
            h = norm(h + added)
        return self.skip_connection(self._resampled(x)) + convolution(act(h))

    def _resampled(self, x: Tensor) -> Tensor:
        if self.factor == 1:
            return x
        if self.factor < 1:
            return nnf.avg_pool2d(x, 2)
        return nnf.interpolate(x, scale_factor=2.0, mode="nearest")


class _Attention(nn.Module):
    """x + proj_out(multi-head attention over all pixels of norm(x))."""

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = _Norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        tokens = x.reshape(batch, channels, -1)
        qkv = self.qkv(self.norm(tokens))
        width = channels // self.heads
        split = (batch, 3, self.heads, width, -1) if self.new_order else (batch, self.heads, 3, width, -1)
        parts = qkv.reshape(split).transpose(3, 4).unbind(1 if self.new_order else 2)
        mixed = nnf.scaled_dot_product_attention(*parts).transpose(2, 3).reshape(tokens.shape)
        return (tokens + self.proj_out(mixed)).reshape(x.shape)


class _Stage(nn.Sequential):
    """Layers one after the other, of which residual blocks are handed the embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, _ResidualBlock) else layer(x)
        return x


class GuidedUNet(nn.Module):
    """The noise in scaled images, eps(x, t, labels), and what it learnt of a variance, if so."""

    def __init__(self, config: GuidedUNetConfig) -> None:
        super().__init__()
        self.config, self.half_torso = config, False
        self.embedding = 4 * config.width
        self.features = TimestepFeatures(config.width, endpoint=False, cosine_first=True)
        self.time_embed = nn.Sequential(
            nn.Linear(config.width, self.embedding), nn.SiLU(), nn.Linear(self.embedding, self.embedding)
        )
        if config.classes:
            self.label_emb = nn.Embedding(config.classes, self.embedding)
        # Input stages, and the channels each leaves for the way up.
        skips = [config.channels[0]]
        self.input_blocks = nn.ModuleList([_Stage(nn.Conv2d(config.in_channels, skips[0], 3, padding=1))])
        for n, channels in enumerate(config.channels):
            for _ in range(config.blocks):
                self.input_blocks.append(_Stage(*self._layers(n, skips[-1], up=False)))
                skips.append(channels)
            if n < len(config.channels) - 1:
                self.input_blocks.append(_Stage(self._resampler(channels, 0.5)))
                skips.append(channels)
        inputs = config.channels[-1]
        middle = self._block(inputs, inputs), self._attention(inputs, up=False)
        self.middle_block = _Stage(*middle, self._block(inputs, inputs))
        # Coarsest first; a level's last stage also brings the next finer resolution.
        self.output_blocks = nn.ModuleList()
        for n, channels in reversed(list(enumerate(config.channels))):
            for m in range(config.blocks + 1):
                layers = self._layers(n, inputs + skips.pop(), up=True)
                if n > 0 and m == config.blocks:
                    layers.append(self._resampler(channels, 2.0))
                self.output_blocks.append(_Stage(*layers))
                inputs = channels
        last = nn.Conv2d(inputs, config.out_channels, 3, padding=1)
        self.out = nn.Sequential(_Norm(inputs), nn.SiLU(), last)

    def to_half_torso(self) -> "GuidedUNet":
        """Convolutions but the last in float16, in place; norms, embedding and output stay float32."""
        self.half_torso = True
        for part in (self.input_blocks, self.middle_block, self.output_blocks):
            for layer in part.modules():
                if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
                    layer.half()
        return self

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W), of unit variance with the noise. c_noise: () or (B,), timestep of training.

        labels: (B, classes) one-hot, or None, which adds nothing to the embedding, as does a zero row.
        """
        embedding = self.time_embed(self.features(c_noise))
        if labels is not None and self.config.classes:
            embedding = embedding + labels.to(embedding.dtype) @ self.label_emb.weight
        h, skips = x.half() if self.half_torso else x, []
        for stage in self.input_blocks:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.out(h.to(x.dtype))

    def _block(self, inputs: int, outputs: int, factor: float = 1.0) -> _ResidualBlock:
        return _ResidualBlock(inputs, outputs, self.embedding, self.config.scale_shift, factor)

    def _attention(self, channels: int, *, up: bool) -> _Attention:
        heads = self.config.heads_up if up else self.config.heads
        if self.config.head_channels:
            heads = channels // self.config.head_channels
        return _Attention(channels, heads, self.config.new_attention_order)

    def _layers(self, level: int, inputs: int, *, up: bool) -> list[nn.Module]:
        """A residual block of a level, and its attention where it has one."""
        channels = self.config.channels[level]
        attended = level in self.config.attention_levels
        return [self._block(inputs, channels), *([self._attention(channels, up=up)] if attended else [])]

    def _resampler(self, channels: int, factor: float) -> nn.Module:
        if self.config.resample_in_blocks:
            return self._block(channels, channels, factor)
        convolve = self.config.resample_with_convolution
        if factor > 1:
            return Upsample(channels, convolve)
        halving = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if convolve else nn.AvgPool2d(2)
        return nn.Sequential(OrderedDict(op=halving))
