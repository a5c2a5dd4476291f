"""The encoder and the decoder that `song_unet` and `dhariwal_unet` have in common.

Levels of blocks, each level half the size of the one before. Every layer of the encoder leaves its state for
the decoder; layers named `_aux_` are of SongUNet's pyramids of the input and of the output image. State-dict
keys are those of EDM's published files.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.checks import check_fields
from seedsbench.denoisers.networks.unet_blocks import BlockStyle, UNetBlock, check_size


@dataclass(frozen=True)
class UNetConfig:
    """Everything needed to rebuild a network; names and defaults of the published constructors.

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
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)

    def __post_init__(self) -> None:
        check_fields(self)
        widths, blocks = list(self.channel_mult), self.num_blocks
        if not widths or min(widths) < 1 or self.model_channels < 4 or blocks < 1:
            raise ValueError(
                f"model_channels={self.model_channels}, channel_mult={widths}, num_blocks={blocks}: "
                "at least 4 channels, one level and one block are needed"
            )
        check_size(self.img_resolution, len(widths))

    @property
    def style(self) -> BlockStyle:
        """What all blocks have in common."""
        raise NotImplementedError


class UNet(nn.Module):
    """F(x, c_noise, labels); what `SongUNet` and `DhariwalUNet` add are the embedding and the pyramids."""

    attends_once_going_up: ClassVar[bool]
    """Whether only the last block of a level attends on the way up, else all of them."""
    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config

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
        raise NotImplementedError

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
                states[-1] = pyramid = (states[-1] + layer(pyramid)) * 0.5**0.5
            elif name.endswith("_conv"):
                states.append(layer(x))
            else:
                states.append(layer(states[-1], embedding))
        return states

    def _decode(self, states: list[Tensor], embedding: Tensor) -> Tensor:
        """The sum of the output images where the decoder makes some, else its last state."""
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
        return h if image is None else image

    def _make_encoder(self, first: int) -> tuple[nn.ModuleDict, list[int]]:
        """Layers by name, and the widths of the states they leave. first: width of the first."""
        config, style = self.config, self.config.style
        layers, widths = nn.ModuleDict(), [first]
        for level, multiple in enumerate(config.channel_mult):
            size = config.img_resolution >> level
            at = f"{size}x{size}"
            if level == 0:
                layers[f"{at}_conv"] = nn.Conv2d(config.in_channels, first, 3, padding=1)
            else:
                layers[f"{at}_down"] = UNetBlock(widths[-1], widths[-1], style, direction="down")
                widths.append(widths[-1])
                layers.update(self._input_layers(level, at))
            for index in range(config.num_blocks):
                outputs = config.model_channels * multiple
                attends = size in config.attn_resolutions
                layers[f"{at}_block{index}"] = UNetBlock(widths[-1], outputs, style, attention=attends)
                widths.append(outputs)
        return layers, widths

    def _make_decoder(self, widths: list[int]) -> nn.ModuleDict:
        config, style = self.config, self.config.style
        layers, width = nn.ModuleDict(), widths[-1]
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
                attends = index == config.num_blocks or not self.attends_once_going_up
                attends = attends and size in config.attn_resolutions
                layers[f"{at}_block{index}"] = UNetBlock(inputs, width, style, attention=attends)
            layers.update(self._output_layers(level, at))
        return layers

    def _input_layers(self, level: int, at: str) -> dict[str, nn.Module]:
        """How the input image reaches a level of the encoder; at: start of the layers' names."""
        return {}

    def _output_layers(self, level: int, at: str) -> dict[str, nn.Module]:
        """How a level of the decoder adds to the output image."""
        return {}
