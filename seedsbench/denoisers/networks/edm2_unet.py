"""The U-Net of EDM2 (Karras et al. 2024), whose layers preserve magnitudes.

"Analyzing and improving the training dynamics of diffusion models", configuration G: no biases, no group
norms, weights of unit norm, sums and concatenations weighted. Training normalises the weights at every call;
here `normalised` does it once, for the weights of a file, and the layers are plain ones. State-dict keys are
those of the published files.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.checks import Count, Positive, Share
from seedsbench.denoisers.networks.unet import UNet, UNetConfig
from seedsbench.denoisers.networks.unet_blocks import Direction, self_attention

_EPS = 1e-4
_SILU = 0.596
"""Root mean square of silu of a standard normal (their Eq. 81)."""
_RESAMPLERS = {None: nn.Identity, "down": lambda: nn.AvgPool2d(2), "up": lambda: nn.Upsample(scale_factor=2)}


@dataclass(frozen=True)
class MPStyle:
    """What the blocks of one network have in common.

    embedding: width of the noise embedding. head_channels: width of an attention head.
    res_balance, attn_balance: shares of the branches in sums. clip_act: largest |activation|, if any.
    """

    embedding: int
    head_channels: int
    res_balance: float
    attn_balance: float
    clip_act: float | None


@dataclass(frozen=True)
class EDM2UNetConfig(UNetConfig):
    """See `UNetConfig`; names and defaults of the published constructors.

    channel_mult_noise, channel_mult_emb: widths of the noise features and of the embedding in multiples of
    model_channels; None: as the finest, and as the widest level. label_balance, concat_balance, res_balance,
    attn_balance: the second one's share in what is put together. channels_per_head: of attention.
    resample_filter: [1, 1], as all published networks have it. clip_act: see `MPStyle`.
    """

    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (16, 8)
    channel_mult_noise: Count | None = None
    channel_mult_emb: Count | None = None
    label_balance: Share = 0.5
    concat_balance: Share = 0.5
    resample_filter: tuple[int, ...] = (1, 1)
    channels_per_head: Count = 64
    res_balance: Share = 0.3
    attn_balance: Share = 0.3
    clip_act: Positive | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resample_filter != (1, 1):
            raise ValueError(f"resample_filter={list(self.resample_filter)}: EDM2's networks have [1, 1]")

    @property
    def style(self) -> MPStyle:
        return MPStyle(
            embedding=self.model_channels * (self.channel_mult_emb or max(self.channel_mult)),
            head_channels=self.channels_per_head,
            res_balance=self.res_balance,
            attn_balance=self.attn_balance,
            clip_act=self.clip_act,
        )


def normalised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a file with its weights, in float32, as the layers use them (their Eq. 47, 66).

    Each output's row of weights gets unit norm, but for what EPS takes.
    """
    ready = dict(state)
    for name, value in state.items():
        if name.endswith(".weight"):
            inputs = tuple(range(1, value.ndim))
            ready[name] = _unit(value.float(), inputs) / math.sqrt(value[0].numel())
    return ready


def mp_silu(x: Tensor) -> Tensor:
    """silu that keeps the magnitude of a standard normal."""
    return nnf.silu(x) / _SILU


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """(1 - share) a + share b, of unit magnitude where a and b are uncorrelated and of it (their Eq. 88)."""
    size = math.hypot(1 - share, share)
    return torch.add((1 - share) / size * a, b, alpha=share / size)


def mp_cat(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Channels of a beside those of b, whose share it is in what a layer makes of them (their Eq. 103)."""
    n_a, n_b = a.shape[1], b.shape[1]
    size = math.sqrt((n_a + n_b) / ((1 - share) ** 2 + share**2))
    return torch.cat([size * (1 - share) / math.sqrt(n_a) * a, size * share / math.sqrt(n_b) * b], dim=1)


def _unit(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x over its root mean square along `dim`, to which EPS is added."""
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=wide)
    return x / (_EPS + norm * math.sqrt(norm.numel() / x.numel())).to(x.dtype)


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


class MPFourier(nn.Module):
    """sqrt(2) cos of c_noise at fixed random frequencies and phases (their Eq. 75): (N,) -> (N, width)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("freqs", "phases"):
            self.register_buffer(name, torch.zeros(width))

    def forward(self, c_noise: Tensor) -> Tensor:
        return math.sqrt(2) * (torch.outer(c_noise, self.freqs) + self.phases).cos()


class _Block(nn.Module, ABC):
    """Residual block, the embedding a gain between its convolutions, with self-attention at some resolutions.

    Keys: emb_gain conv_res0 emb_linear conv_res1 [conv_skip] [attn_qkv attn_proj].
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: MPStyle,
        *,
        attention: bool = False,
        direction: Direction | None = None,
    ) -> None:
        super().__init__()
        self.style = style
        self.resample = _RESAMPLERS[direction]()
        self.emb_gain = nn.Parameter(torch.zeros(()))
        self.conv_skip = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1)
        self.conv_res0 = _conv(self._entering(inputs, outputs), outputs, 3)
        self.emb_linear = nn.Linear(style.embedding, outputs, bias=False)
        self.conv_res1 = _conv(outputs, outputs, 3)
        # A block narrower than a head has none, and then no attention: so the published code counts.
        self.heads = outputs // style.head_channels if attention else 0
        if self.heads:
            if outputs % self.heads:
                raise ValueError(f"{self.heads} attention heads cannot share {outputs} channels evenly")
            self.attn_qkv, self.attn_proj = _conv(outputs, 3 * outputs, 1), _conv(outputs, outputs, 1)

    @abstractmethod
    def _entering(self, inputs: int, outputs: int) -> int:
        """How many channels the residual branch sees."""

    @abstractmethod
    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the residual branch sees, and what its result is added to."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, inputs, H, W). embedding: (B or 1, style.embedding)."""
        style = self.style
        h, x = self._branches(self.resample(x))
        gain = self.emb_linear(embedding) * self.emb_gain + 1
        h = self.conv_res1(mp_silu(self.conv_res0(mp_silu(h)) * gain[:, :, None, None]))
        x = mp_sum(x, h, style.res_balance)
        if self.heads:
            mixed = self_attention(x, self.attn_qkv, self.attn_proj, self.heads, lambda h: _unit(h, -1))
            x = mp_sum(x, mixed, style.attn_balance)
        return x if style.clip_act is None else x.clamp(-style.clip_act, style.clip_act)


class EncoderBlock(_Block):
    """A block that first gives every pixel unit magnitude over its channels."""

    def _entering(self, inputs: int, outputs: int) -> int:
        return outputs

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = _unit(self.conv_skip(x), 1)
        return x, x


class DecoderBlock(_Block):
    """A block of the way up."""

    def _entering(self, inputs: int, outputs: int) -> int:
        return inputs

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.conv_skip(x)


class EDM2UNet(UNet):
    """F(x, c_noise, labels); see the module's docstring. Its weights are those that `normalised` gives."""

    encoder_block, decoder_block = EncoderBlock, DecoderBlock
    config: EDM2UNetConfig

    def __init__(self, config: EDM2UNetConfig) -> None:
        super().__init__(config)
        finest, embedding = config.model_channels * config.channel_mult[0], config.style.embedding
        multiple = config.channel_mult_noise
        noise = finest if multiple is None else config.model_channels * multiple
        self.out_gain = nn.Parameter(torch.zeros(()))
        self.emb_fourier = MPFourier(noise)
        self.emb_noise = nn.Linear(noise, embedding, bias=False)
        self.emb_label = nn.Linear(config.label_dim, embedding, bias=False) if config.label_dim else None
        # A channel of ones beside the image stands for the biases that there are not.
        self.enc, widths = self._make_encoder(_conv(config.in_channels + 1, finest, 3))
        self.dec = self._make_decoder(widths)
        self.out_conv = _conv(finest, config.out_channels, 3)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, out_channels, H, W).

        x: (B, in_channels, H, W), already times c_in. c_noise: () or (B,). labels: (B, label_dim) or
        None, which is the zero row.
        """
        embedding = self.embed(c_noise.to(x.dtype).reshape(-1), labels)
        states = self._encode(torch.cat([x, torch.ones_like(x[:, :1])], dim=1), embedding)
        return self.out_conv(self._decode(states, embedding)) * self.out_gain

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Embedding of noise level and label, (B or 1, style.embedding)."""
        embedding = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None:
            labels = c_noise.new_zeros(1, self.config.label_dim) if labels is None else labels
            # One-hot rows get unit mean square, as the noise features have.
            labelled = self.emb_label(labels * math.sqrt(self.config.label_dim))
            embedding = mp_sum(embedding, labelled, self.config.label_balance)
        return mp_silu(embedding)

    def _joined(self, h: Tensor, state: Tensor) -> Tensor:
        return mp_cat(h, state, self.config.concat_balance)
