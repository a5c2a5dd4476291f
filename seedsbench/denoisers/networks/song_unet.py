"""U-Net of Song et al. 2021: DDPM++ and NCSN++ (their App. H), as configured by Karras et al. 2022.

DDPM++: positional embedding, plain encoder and decoder, 2x2 mean. NCSN++: Fourier embedding, encoder
that feeds a learnt pyramid of the input into every level ("residual"), FIR filter [1, 3, 3, 1]; or
("skip") the low-passed input itself, and a decoder that adds up an image level by level.
State-dict keys are those of EDM's published files.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.checks import check_fields
from seedsbench.denoisers.networks.unet_blocks import (
    BlockStyle,
    FourierFeatures,
    Resampler,
    StridedConv,
    UNetBlock,
    check_levels,
    group_norm,
    positional_features,
)


@dataclass(frozen=True)
class SongUNetConfig:
    """Everything needed to rebuild the network; names and defaults of the published constructor.

    model_channels: width of level 0; channel_mult: of each level in its multiples.
    channel_mult_emb, channel_mult_noise: width of the embedding and of the noise features, likewise.
    num_blocks: residual blocks a level. attn_resolutions: image sizes at which blocks attend.
    augment_dim: width of the augmentation labels of training (zero when sampling).
    """

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    augment_dim: int = 0
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: int = 1
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: tuple[int, ...] = (1, 1)

    def __post_init__(self) -> None:
        check_fields(self)
        check_levels(self.img_resolution, self.model_channels, self.channel_mult, self.num_blocks)

    @property
    def style(self) -> BlockStyle:
        return BlockStyle(
            embedding=self.model_channels * self.channel_mult_emb,
            eps=1e-6,
            scale_shift=False,
            rescale=math.sqrt(0.5),
            head_channels=None,
            project_resampled=True,
            taps=self.resample_filter,
        )


class SongUNet(nn.Module):
    """F(x, c_noise, labels) of the module's docstring."""

    def __init__(self, config: SongUNetConfig) -> None:
        super().__init__()
        self.config = config
        noise, embedding = config.model_channels * config.channel_mult_noise, config.style.embedding
        self.map_noise = FourierFeatures(noise) if config.embedding_type == "fourier" else None
        self.map_label = nn.Linear(config.label_dim, noise) if config.label_dim else None
        self.map_augment = nn.Linear(config.augment_dim, noise, bias=False) if config.augment_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.enc, widths = _encoder(config)
        self.dec = _decoder(config, widths)

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """(B, out_channels, H, W).

        x: (B, in_channels, H, W), already times c_in. c_noise: () or (B,). labels: (B, label_dim) or
        None, which is the zero row. augment: (B, augment_dim) or None, which is no augmentation.
        """
        embedding = self.embed(c_noise.to(x.dtype).reshape(-1), labels, augment)
        return self._decode(self._encode(x, embedding), embedding)

    def embed(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Embedding of noise level, label and augmentation, (B or 1, model_channels * channel_mult_emb)."""
        width = self.map_layer0.in_features
        if self.map_noise is not None:
            features = self.map_noise(c_noise)
        else:
            features = positional_features(c_noise, width, endpoint=True)
        features = features.roll(width // 2, dims=1)  # this family of networks has the sines first
        if self.map_label is not None:
            if labels is None:
                labels = torch.zeros(1, self.config.label_dim, dtype=c_noise.dtype, device=c_noise.device)
            # One-hot rows get unit mean square, as the other inputs of the embedding have.
            features = features + self.map_label(labels * math.sqrt(self.config.label_dim))
        if self.map_augment is not None and augment is not None:
            features = features + self.map_augment(augment)
        return nnf.silu(self.map_layer1(nnf.silu(self.map_layer0(features))))

    def _encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """The state after every layer that a block of the decoder takes up again, the last one last."""
        states: list[Tensor] = []
        pyramid = x
        for name, layer in self.enc.items():
            if name.endswith("_aux_down"):
                pyramid = layer(pyramid)
            elif name.endswith("_aux_skip"):
                states[-1] = states[-1] + layer(pyramid)
            elif name.endswith("_aux_residual"):
                states[-1] = pyramid = (states[-1] + layer(pyramid)) * math.sqrt(0.5)
            elif name.endswith("_conv"):
                states.append(layer(x))
            else:
                states.append(layer(states[-1], embedding))
        return states

    def _decode(self, states: list[Tensor], embedding: Tensor) -> Tensor:
        h, image, normed = states[-1], None, states[-1]
        for name, layer in self.dec.items():
            if name.endswith("_aux_up"):
                image = layer(image)
            elif name.endswith("_aux_norm"):
                normed = layer(h)
            elif name.endswith("_aux_conv"):
                step = layer(nnf.silu(normed, inplace=True))
                image = step if image is None else image + step
            elif "_block" in name:
                h = layer(torch.cat([h, states.pop()], dim=1), embedding)
            else:
                h = layer(h, embedding)
        assert image is not None
        return image


def _encoder(config: SongUNetConfig) -> tuple[nn.ModuleDict, list[int]]:
    """Layers by name, and the widths of the states they leave for the decoder."""
    layers, widths, style = nn.ModuleDict(), [config.model_channels], config.style
    taps, pyramid = config.resample_filter, config.in_channels
    for level, multiple in enumerate(config.channel_mult):
        size = config.img_resolution >> level
        at = f"{size}x{size}"
        if level == 0:
            layers[f"{at}_conv"] = nn.Conv2d(config.in_channels, config.model_channels, 3, padding=1)
        else:
            width = widths[-1]
            layers[f"{at}_down"] = UNetBlock(width, width, style, direction="down")
            widths.append(width)
            if config.encoder_type == "skip":
                layers[f"{at}_aux_down"] = Resampler(taps, "down")
                layers[f"{at}_aux_skip"] = nn.Conv2d(pyramid, width, 1)
            elif config.encoder_type == "residual":
                layers[f"{at}_aux_residual"] = StridedConv(pyramid, width, taps)
                pyramid = width
        for index in range(config.num_blocks):
            outputs = config.model_channels * multiple
            attends = size in config.attn_resolutions
            layers[f"{at}_block{index}"] = UNetBlock(widths[-1], outputs, style, attention=attends)
            widths.append(outputs)
    return layers, widths


def _decoder(config: SongUNetConfig, widths: list[int]) -> nn.ModuleDict:
    layers, style, width = nn.ModuleDict(), config.style, widths[-1]
    coarsest = len(config.channel_mult) - 1
    for level in reversed(range(len(config.channel_mult))):
        size = config.img_resolution >> level
        at = f"{size}x{size}"
        if level == coarsest:
            layers[f"{at}_in0"] = UNetBlock(width, width, style, attention=True)
            layers[f"{at}_in1"] = UNetBlock(width, width, style)
        else:
            layers[f"{at}_up"] = UNetBlock(width, width, style, direction="up")
        for index in range(config.num_blocks + 1):
            inputs, width = width + widths.pop(), config.model_channels * config.channel_mult[level]
            # Going up, only the last block of a level attends.
            attends = index == config.num_blocks and size in config.attn_resolutions
            layers[f"{at}_block{index}"] = UNetBlock(inputs, width, style, attention=attends)
        if config.decoder_type == "skip" or level == 0:
            if config.decoder_type == "skip" and level < coarsest:
                layers[f"{at}_aux_up"] = Resampler(config.resample_filter, "up")
            layers[f"{at}_aux_norm"] = group_norm(width, style.eps)
            layers[f"{at}_aux_conv"] = nn.Conv2d(width, config.out_channels, 3, padding=1)
    return layers
