"""U-Net of Dhariwal and Nichol 2021 (ADM), as configured by Karras et al. 2022.

Differs from `song_unet` in that the embedding scales and shifts, heads are 64 channels wide, every block
of a listed resolution attends on the way up too, and labels enter after the embedding's two layers.
State-dict keys are those of EDM's published files.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.checks import check_fields
from seedsbench.denoisers.networks.unet_blocks import (
    BlockStyle,
    UNetBlock,
    check_levels,
    group_norm,
    positional_features,
)


@dataclass(frozen=True)
class DhariwalUNetConfig:
    """Everything needed to rebuild the network; names and defaults of the published constructor.

    model_channels: the unit of width; channel_mult: width of each level in its multiples.
    channel_mult_emb: width of the embedding, likewise. num_blocks: residual blocks a level.
    attn_resolutions: image sizes at which blocks attend.
    augment_dim: width of the augmentation labels of training (zero when sampling).
    """

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    augment_dim: int = 0
    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)

    def __post_init__(self) -> None:
        check_fields(self)
        check_levels(self.img_resolution, self.model_channels, self.channel_mult, self.num_blocks)

    @property
    def style(self) -> BlockStyle:
        return BlockStyle(
            embedding=self.model_channels * self.channel_mult_emb,
            eps=1e-5,
            scale_shift=True,
            rescale=1.0,
            head_channels=64,
            project_resampled=False,
            taps=(1, 1),
        )


class DhariwalUNet(nn.Module):
    """F(x, c_noise, labels) of the module's docstring."""

    def __init__(self, config: DhariwalUNetConfig) -> None:
        super().__init__()
        self.config = config
        noise, embedding = config.model_channels, config.style.embedding
        self.map_augment = nn.Linear(config.augment_dim, noise, bias=False) if config.augment_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.map_label = nn.Linear(config.label_dim, embedding, bias=False) if config.label_dim else None
        self.enc, widths = _encoder(config)
        self.dec, width = _decoder(config, widths)
        self.out_norm = group_norm(width, config.style.eps)
        self.out_conv = nn.Conv2d(width, config.out_channels, 3, padding=1)

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """(B, out_channels, H, W).

        x: (B, in_channels, H, W), already times c_in. c_noise: () or (B,). labels: (B, label_dim) or
        None, which is the zero row. augment: (B, augment_dim) or None, which is no augmentation.
        """
        embedding = self.embed(c_noise.to(x.dtype).reshape(-1), labels, augment)
        states: list[Tensor] = []
        h = x
        for name, layer in self.enc.items():
            h = layer(h) if name.endswith("_conv") else layer(h, embedding)
            states.append(h)
        for name, layer in self.dec.items():
            if "_block" in name:
                h = torch.cat([h, states.pop()], dim=1)
            h = layer(h, embedding)
        return self.out_conv(nnf.silu(self.out_norm(h), inplace=True))

    def embed(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Embedding of noise level, label and augmentation, (B or 1, model_channels * channel_mult_emb)."""
        features = positional_features(c_noise, self.config.model_channels, endpoint=False)
        if self.map_augment is not None and augment is not None:
            features = features + self.map_augment(augment)
        h = self.map_layer1(nnf.silu(self.map_layer0(features)))
        if self.map_label is not None and labels is not None:
            h = h + self.map_label(labels)
        return nnf.silu(h)


def _encoder(config: DhariwalUNetConfig) -> tuple[nn.ModuleDict, list[int]]:
    """Layers by name, and the widths of the states they leave for the decoder."""
    layers, widths, style = nn.ModuleDict(), [config.model_channels * config.channel_mult[0]], config.style
    for level, multiple in enumerate(config.channel_mult):
        size = config.img_resolution >> level
        at = f"{size}x{size}"
        if level == 0:
            layers[f"{at}_conv"] = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        else:
            layers[f"{at}_down"] = UNetBlock(widths[-1], widths[-1], style, direction="down")
            widths.append(widths[-1])
        for index in range(config.num_blocks):
            outputs = config.model_channels * multiple
            attends = size in config.attn_resolutions
            layers[f"{at}_block{index}"] = UNetBlock(widths[-1], outputs, style, attention=attends)
            widths.append(outputs)
    return layers, widths


def _decoder(config: DhariwalUNetConfig, widths: list[int]) -> tuple[nn.ModuleDict, int]:
    """Layers by name, and the width of the last one."""
    layers, style, width = nn.ModuleDict(), config.style, widths[-1]
    for level in reversed(range(len(config.channel_mult))):
        size = config.img_resolution >> level
        at = f"{size}x{size}"
        if level == len(config.channel_mult) - 1:
            layers[f"{at}_in0"] = UNetBlock(width, width, style, attention=True)
            layers[f"{at}_in1"] = UNetBlock(width, width, style)
        else:
            layers[f"{at}_up"] = UNetBlock(width, width, style, direction="up")
        for index in range(config.num_blocks + 1):
            inputs, width = width + widths.pop(), config.model_channels * config.channel_mult[level]
            attends = size in config.attn_resolutions
            layers[f"{at}_block{index}"] = UNetBlock(inputs, width, style, attention=attends)
    return layers, width
