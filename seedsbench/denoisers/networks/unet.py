"""The U-Nets of Karras et al. 2022: `SongUNet` (DDPM++ and NCSN++) and `DhariwalUNet` (ADM).

Levels of blocks, each level half the size of the one before; every layer of the encoder leaves its state for
the decoder. State-dict keys are those of EDM's published files.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
    check_size,
    group_norm,
    positional_features,
)


@dataclass(frozen=True)
class UNetConfig(ABC):
    """Everything needed to rebuild a network; names and defaults of the published constructors.

    model_channels: the unit of width; channel_mult: width of each level in its multiples.
    num_blocks: residual blocks a level. attn_resolutions: image sizes at which blocks attend.
    """

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
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
    @abstractmethod
    def style(self) -> Any:
        """What all blocks have in common."""


class UNet(nn.Module):
    """The levels of an encoder and a decoder; subclasses add the embedding, and what is around them.

    encoder_block, decoder_block: called as `UNetBlock` is, with the configuration's style.
    attends_once_going_up: whether only the last block of a level attends on the way up, else all of them.
    """

    encoder_block: ClassVar[type[nn.Module]] = UNetBlock
    decoder_block: ClassVar[type[nn.Module]] = UNetBlock
    attends_once_going_up: ClassVar[bool] = False
    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config

    def _encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """The states of all layers, in order. Layers named `_aux_` are of SongUNet's pyramids."""
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
                h = layer(self._joined(h, states.pop()), embedding)
            else:
                h = layer(h, embedding)
        return h if image is None else image

    def _joined(self, h: Tensor, state: Tensor) -> Tensor:
        """What a block of the decoder is given: the way up, and a state of the encoder beside it."""
        return torch.cat([h, state], dim=1)

    def _make_encoder(self, first: nn.Conv2d) -> tuple[nn.ModuleDict, list[int]]:
        """Layers by name, and the widths of the states they leave. first: the one that sees the image."""
        config, style, block = self.config, self.config.style, self.encoder_block
        layers, widths = nn.ModuleDict(), [first.out_channels]
        for level, multiple in enumerate(config.channel_mult):
            size = config.img_resolution >> level
            at = f"{size}x{size}"
            if level == 0:
                layers[f"{at}_conv"] = first
            else:
                layers[f"{at}_down"] = block(widths[-1], widths[-1], style, direction="down")
                widths.append(widths[-1])
                layers.update(self._input_layers(level, at))
            for index in range(config.num_blocks):
                outputs = config.model_channels * multiple
                attends = size in config.attn_resolutions
                layers[f"{at}_block{index}"] = block(widths[-1], outputs, style, attention=attends)
                widths.append(outputs)
        return layers, widths

    def _make_decoder(self, widths: list[int]) -> nn.ModuleDict:
        config, style, block = self.config, self.config.style, self.decoder_block
        layers, width = nn.ModuleDict(), widths[-1]
        for level in reversed(range(len(config.channel_mult))):
            size = config.img_resolution >> level
            at = f"{size}x{size}"
            if level == len(config.channel_mult) - 1:
                layers[f"{at}_in0"] = block(width, width, style, attention=True)
                layers[f"{at}_in1"] = block(width, width, style)
            else:
                layers[f"{at}_up"] = block(width, width, style, direction="up")
            for index in range(config.num_blocks + 1):
                inputs, width = width + widths.pop(), config.model_channels * config.channel_mult[level]
                attends = index == config.num_blocks or not self.attends_once_going_up
                attends = attends and size in config.attn_resolutions
                layers[f"{at}_block{index}"] = block(inputs, width, style, attention=attends)
            layers.update(self._output_layers(level, at))
        return layers

    def _input_layers(self, level: int, at: str) -> dict[str, nn.Module]:
        """How the input image reaches a level of the encoder; at: start of the layers' names."""
        return {}

    def _output_layers(self, level: int, at: str) -> dict[str, nn.Module]:
        """How a level of the decoder adds to the output image."""
        return {}


class AugmentedUNet(UNet, ABC):
    """F(x, c_noise, labels, augment): what `SongUNet` and `DhariwalUNet` share."""

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """(B, out_channels, H, W).

        x: (B, in_channels, H, W), already times c_in. c_noise: () or (B,). labels: (B, label_dim) or
        None, which is the zero row. augment: (B, augment_dim) or None, which is no augmentation.
        """
        embedding = self.embed(c_noise.to(x.dtype).reshape(-1), labels, augment)
        return self._decode(self._encode(x, embedding), embedding)

    @abstractmethod
    def embed(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Embedding of noise level, label and augmentation, (B or 1, model_channels * channel_mult_emb)."""


@dataclass(frozen=True)
class AugmentedUNetConfig(UNetConfig):
    """See `UNetConfig`.

    channel_mult_emb: width of the embedding in multiples of model_channels.
    augment_dim: width of the augmentation labels of training (zero when sampling).
    """

    augment_dim: int = 0
    channel_mult_emb: int = 4


@dataclass(frozen=True)
class SongUNetConfig(AugmentedUNetConfig):
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


class SongUNet(AugmentedUNet):
    """The network of Song et al. 2021 (App. H).

    DDPM++: positional embedding, plain encoder and decoder, 2x2 mean. NCSN++: Fourier embedding, FIR filter
    [1, 3, 3, 1], and an encoder that feeds a learnt pyramid of the input into every level ("residual") or
    ("skip") the low-passed input itself, and a decoder that adds up an image level by level.
    """

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
        self.enc, widths = self._make_encoder(
            nn.Conv2d(config.in_channels, config.model_channels, 3, padding=1)
        )
        self.dec = self._make_decoder(widths)

    def embed(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        width = self.map_layer0.in_features
        if self.map_noise is not None:
            features = self.map_noise(c_noise)
        else:
            features = positional_features(c_noise, width, endpoint=True)
        features = features.roll(width // 2, dims=1)  # this family of networks has the sines first
        if self.map_label is not None:
            labels = c_noise.new_zeros(1, self.config.label_dim) if labels is None else labels
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
        skip, layers = config.decoder_type == "skip", dict[str, nn.Module]()
        if skip and level < len(config.channel_mult) - 1:
            layers[f"{at}_aux_up"] = Resampler(config.resample_filter, "up")
        if skip or level == 0:
            layers[f"{at}_aux_norm"] = group_norm(width, config.style.eps)
            layers[f"{at}_aux_conv"] = nn.Conv2d(width, config.out_channels, 3, padding=1)
        return layers


@dataclass(frozen=True)
class DhariwalUNetConfig(AugmentedUNetConfig):
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


class DhariwalUNet(AugmentedUNet):
    """The network of Dhariwal and Nichol 2021.

    The embedding scales and shifts, heads are 64 channels wide, every block of a listed resolution attends on
    the way up too, and labels enter after the embedding's two layers.
    """

    config: DhariwalUNetConfig

    def __init__(self, config: DhariwalUNetConfig) -> None:
        super().__init__(config)
        noise, embedding = config.model_channels, config.style.embedding
        self.map_augment = nn.Linear(config.augment_dim, noise, bias=False) if config.augment_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.map_label = nn.Linear(config.label_dim, embedding, bias=False) if config.label_dim else None
        finest = config.model_channels * config.channel_mult[0]
        self.enc, widths = self._make_encoder(nn.Conv2d(config.in_channels, finest, 3, padding=1))
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
