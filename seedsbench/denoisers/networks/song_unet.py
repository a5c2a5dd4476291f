"""U-Net of Song et al. 2021: DDPM++ and NCSN++ (their App. H), as configured by Karras et al. 2022.

DDPM++: positional embedding, plain encoder and decoder, 2x2 mean. NCSN++: Fourier embedding, encoder
that feeds a learnt pyramid of the input into every level ("residual"), FIR filter [1, 3, 3, 1]; or
("skip") the low-passed input itself, and a decoder that adds up an image level by level.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.denoisers.networks.unet import UNet, UNetConfig
from seedsbench.denoisers.networks.unet_blocks import (
    BlockStyle,
    FourierFeatures,
    Resampler,
    StridedConv,
    group_norm,
    positional_features,
)


@dataclass(frozen=True)
class SongUNetConfig(UNetConfig):
    """See `UNetConfig`. channel_mult_noise: width of the noise features in multiples of model_channels."""

    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: int = 1
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: tuple[int, ...] = (1, 1)

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


class SongUNet(UNet):
    """F(x, c_noise, labels) of the module's docstring."""

    config: SongUNetConfig
    attends_once_going_up = True

    def __init__(self, config: SongUNetConfig) -> None:
        super().__init__(config)
        noise, embedding = config.model_channels * config.channel_mult_noise, config.style.embedding
        self.map_noise = FourierFeatures(noise) if config.embedding_type == "fourier" else None
        self.map_label = nn.Linear(config.label_dim, noise) if config.label_dim else None
        self.map_augment = nn.Linear(config.augment_dim, noise, bias=False) if config.augment_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.enc, widths = self._make_encoder(config.model_channels)
        self.dec = self._make_decoder(widths)

    def embed(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
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

    def _input_layers(self, level: int, at: str) -> dict[str, nn.Module]:
        config = self.config
        coming = [config.in_channels, *(config.model_channels * n for n in config.channel_mult)]
        if config.encoder_type == "skip":
            down = Resampler(config.resample_filter, "down")
            return {f"{at}_aux_down": down, f"{at}_aux_skip": nn.Conv2d(coming[0], coming[level], 1)}
        if config.encoder_type == "residual":
            step = StridedConv(coming[level - 1], coming[level], config.resample_filter)
            return {f"{at}_aux_residual": step}
        return {}

    def _output_layers(self, level: int, at: str) -> dict[str, nn.Module]:
        config, width = self.config, self.config.model_channels * self.config.channel_mult[level]
        layers: dict[str, nn.Module] = {}
        if config.decoder_type == "skip" or level == 0:
            if config.decoder_type == "skip" and level < len(config.channel_mult) - 1:
                layers[f"{at}_aux_up"] = Resampler(config.resample_filter, "up")
            layers[f"{at}_aux_norm"] = group_norm(width, config.style.eps)
            layers[f"{at}_aux_conv"] = nn.Conv2d(width, config.out_channels, 3, padding=1)
        return layers
