"""U-Net of Dhariwal and Nichol 2021 (ADM), as configured by Karras et al. 2022.

Differs from `song_unet` in that the embedding scales and shifts, heads are 64 channels wide, every block
of a listed resolution attends on the way up too, and labels enter after the embedding's two layers.
"""

from dataclasses import dataclass

import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.denoisers.networks.unet import UNet, UNetConfig
from seedsbench.denoisers.networks.unet_blocks import BlockStyle, group_norm, positional_features


@dataclass(frozen=True)
class DhariwalUNetConfig(UNetConfig):
    """See `UNetConfig`."""

    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)

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


class DhariwalUNet(UNet):
    """F(x, c_noise, labels) of the module's docstring."""

    config: DhariwalUNetConfig
    attends_once_going_up = False

    def __init__(self, config: DhariwalUNetConfig) -> None:
        super().__init__(config)
        noise, embedding = config.model_channels, config.style.embedding
        self.map_augment = nn.Linear(config.augment_dim, noise, bias=False) if config.augment_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.map_label = nn.Linear(config.label_dim, embedding, bias=False) if config.label_dim else None
        finest = config.model_channels * config.channel_mult[0]
        self.enc, widths = self._make_encoder(finest)
        self.dec = self._make_decoder(widths)
        self.out_norm = group_norm(finest, config.style.eps)
        self.out_conv = nn.Conv2d(finest, config.out_channels, 3, padding=1)

    def embed(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        features = positional_features(c_noise, self.config.model_channels, endpoint=False)
        if self.map_augment is not None and augment is not None:
            features = features + self.map_augment(augment)
        h = self.map_layer1(nnf.silu(self.map_layer0(features)))
        if self.map_label is not None and labels is not None:
            h = h + self.map_label(labels)
        return nnf.silu(h)

    def _decode(self, states: list[Tensor], embedding: Tensor) -> Tensor:
        h = super()._decode(states, embedding)
        return self.out_conv(nnf.silu(self.out_norm(h), inplace=True))
