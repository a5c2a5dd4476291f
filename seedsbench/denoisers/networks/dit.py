"""The transformer of DiT (Peebles and Xie 2023, section 3) and SiT (Ma et al. 2024), of latents or images.

Patches become tokens; every block is told time and class by the shift, scale and gate of its two branches
(adaLN-Zero). State-dict keys are those of the authors' releases, so that their files load strictly.
Inference only: no label is dropped.
"""

from collections import OrderedDict
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.denoisers.networks.unet_blocks import TimestepFeatures

FREQUENCIES = 256
"""Width of the sinusoids of the time, in networks of all sizes."""


@dataclass(frozen=True)
class DiTConfig:
    """Everything needed to rebuild the network; the defaults are DiT-XL/2 for 256x256 pixels.

    in_channels, out_channels: twice as many come out where it also learns a variance. size: pixels of the
    input, each way. patch: those of a token. width: of a token. depth: blocks. heads: of each attention.
    classes: without the one that stands for none.
    """

    in_channels: int = 4
    out_channels: int = 8
    size: int = 32
    patch: int = 2
    width: int = 1152
    depth: int = 28
    heads: int = 16
    classes: int = 1000

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) < 1:
                raise ValueError(f"{field.name}={value} must be positive")
        if self.width % self.heads or self.size % self.patch:
            raise ValueError(
                f"heads={self.heads} must divide width={self.width}, and patch={self.patch} size={self.size}"
            )


class _Attention(nn.Module):
    """Multi-head attention of tokens (B, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(nnf.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class _Modulation(nn.Sequential):
    """What a condition (1 or B, width) does to tokens: so many parts, each (1 or B, 1, width)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__(nn.SiLU(), nn.Linear(width, parts * width))
        self.parts = parts

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(condition)[:, None].chunk(self.parts, dim=-1)


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


class _Block(nn.Module):
    """Attention and a perceptron of four times the width, each gated and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.attn = _Attention(width, heads)
        wide = nn.Linear(width, 4 * width)
        layers = {"fc1": wide, "act": nn.GELU(approximate="tanh"), "fc2": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict[str, nn.Module](layers))
        self.adaLN_modulation = _Modulation(width, 6)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaLN_modulation(condition)
        x = x + gate * self.attn(_modulated(self.norm1(x), shift, scale))
        return x + mlp_gate * self.mlp(_modulated(self.norm2(x), mlp_shift, mlp_scale))


class _FinalLayer(nn.Module):
    """From tokens (B, T, width) to the pixels of their patches (B, T, pixels)."""

    def __init__(self, width: int, pixels: int) -> None:
        super().__init__()
        self.norm_final, self.linear = _norm(width), nn.Linear(width, pixels)
        self.adaLN_modulation = _Modulation(width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition)
        return self.linear(_modulated(self.norm_final(x), shift, scale))


class DiT(nn.Module):
    """What a network of scaled images was trained to predict, F(x, t, labels), and a variance, if so."""

    pos_embed: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, width, patch = config, config.width, config.patch
        self.x_embedder = nn.Sequential(
            OrderedDict(proj=nn.Conv2d(config.in_channels, width, patch, stride=patch))
        )
        features = TimestepFeatures(FREQUENCIES, endpoint=False, cosine_first=True)
        mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.t_embedder = nn.Sequential(OrderedDict(features=features, mlp=mlp))
        # The last row is of no class.
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(config.classes + 1, width)})
        # Sinusoids of the place of a token, not learnt; the files hold them.
        self.register_buffer("pos_embed", torch.zeros(1, (config.size // patch) ** 2, width))
        self.blocks = nn.ModuleList(_Block(width, config.heads) for _ in range(config.depth))
        self.final_layer = _FinalLayer(width, patch**2 * config.out_channels)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W), scaled as in training. c_noise: () or (B,), the time or timestep of training.

        labels: (B, classes) one-hot; a zero row, and None, are no class. Returns (B, out_channels, H, W).
        """
        condition = self.t_embedder(c_noise) + self.y_embedder["embedding_table"](self._classes(x, labels))
        tokens = self.x_embedder(x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self._image(self.final_layer(tokens, condition))

    def _classes(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Rows of the table, (B,) int64."""
        none = self.config.classes
        if labels is None:
            return torch.full((len(x),), none, device=x.device)
        return torch.where(labels.any(dim=1), labels.argmax(dim=1), none)

    def _image(self, patches: Tensor) -> Tensor:
        """(B, T, patch * patch * C), pixels by row, column and channel, to (B, C, H, W)."""
        side, patch = self.config.size // self.config.patch, self.config.patch
        pixels = patches.reshape(len(patches), side, side, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
        return pixels.reshape(len(patches), -1, self.config.size, self.config.size)
