"""DINOv2 ViT features for FD-DINOv2 (Stein et al. 2023), from a local checkpoint; no torch.hub, no code run.

The network is the plain vision transformer of Oquab et al. 2023 (arXiv 2304.07193): 14 x 14 patches, a class
token, blocks of attention and MLP with LayerScale, pre-norm. Its size is read off the checkpoint. Features
are the class token after the last norm. Images are resized to 224 x 224 as the published scores have it
(bicubic), or as torch-fidelity does (tf1), whose scores compare with no other; `resize.py` has both.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import LARGE_NETWORK_BLOCK, Extracted, Extractor, load_weights, on_colour
from seedsbench.metrics.resize import RESIZES, Resize

_SIZE, _PATCH, _HEAD = 224, 14, 64
_BLOCK_WEIGHTS = 14  # tensors of a block
_OFFSET = 0.1
"""Positions are interpolated by a factor (patches + 0.1) / trained patches: part of the published network."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dinov2_extractor(
    weights: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    resize: Resize = "bicubic",
    block: int = LARGE_NETWORK_BLOCK,
    bound: float = 256.0,
) -> Extractor:
    """Class token features, no logits. weights: `dinov2_vit{s,b,l}14_pretrain.pth`, without registers.

    resize: a name of `RESIZES`; what each makes has a name and an identity of its own.
    """
    network, weights_id = load_weights("dinov2", weights, VisionTransformer.from_state)
    network, to_size = network.to(device), RESIZES[resize]

    def extract(images: Tensor) -> Extracted:
        x = to_size(images, _SIZE)
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) * 255 for v in (_MEAN, _STD))
        return network((x - mean) / std), None

    size = {384: "s", 768: "b", 1024: "l"}.get(network.dim, network.dim)
    # Scores from before there was a choice were by tf1, and neither name it nor have it in their identity.
    name, known = f"dinov2-vit-{size}-14", {"extractor": "dinov2", "weights": weights_id}
    if resize != "tf1":
        name, known = f"{name}-{resize}", {**known, "resize": resize}
    found, entry = on_colour(extract, device), "fd_dinov2" if resize == "bicubic" else None
    place = str(device)
    return Extractor(name, digest(known), network.dim, 0, bound, True, found, weights_id, block, place, entry)


class TransformerBlock(nn.Module):
    """Attention and MLP, each after a norm, scaled channel by channel, added."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(dim)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(n, tokens, 3, dim // _HEAD, _HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]).transpose(1, 2).reshape(n, tokens, dim)
        x = x + self.ls1["gamma"] * self.attn["proj"](mixed)
        return x + self.ls2["gamma"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class VisionTransformer(nn.Module):
    """(n, 3, H, W), sides multiples of 14, to the class token (n, dim). State-dict keys as published."""

    def __init__(self, dim: int, depth: int, hidden: int, positions: int) -> None:
        super().__init__()
        self.dim = dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))  # for pre-training only, yet in the files
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, _PATCH, _PATCH)})
        self.blocks = nn.ModuleList([TransformerBlock(dim, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "VisionTransformer":
        """The network of a checkpoint, strictly loaded; KeyError or RuntimeError if it is another kind."""
        dim, positions = state["cls_token"].shape[-1], state["pos_embed"].shape[1]
        if dim % _HEAD:
            raise RuntimeError(f"{dim} channels are no whole number of heads of {_HEAD}")
        depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
        if depth * _BLOCK_WEIGHTS > len(state):
            raise RuntimeError(f"{len(state)} weights are too few for {depth} blocks")
        # Without memory first: shapes in a damaged file may describe a network of any size.
        with torch.device("meta"):
            network = cls(dim, depth, state["blocks.0.mlp.fc1.weight"].shape[0], positions)
        for name, value in network.state_dict().items():
            if state[name].shape != value.shape:
                raise RuntimeError(f"{name} is {tuple(state[name].shape)}, expected {tuple(value.shape)}")
        network.to_empty(device="cpu").load_state_dict(state)
        return network

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](x)
        rows, columns = patches.shape[2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = tokens + self._positions(int(rows), int(columns))
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def _positions(self, rows: int, columns: int) -> Tensor:
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].view(1, side, side, self.dim).permute(0, 3, 1, 2)
        factors = ((rows + _OFFSET) / side, (columns + _OFFSET) / side)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
