"""Weights of score SDE's class `ddpm` under the names of our DDIMUNet, which computes the same."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from seedsbench.denoisers.checkpoints.score_sde.modules import Entry, next_of, prefixed, renamed, shape_of
from seedsbench.denoisers.networks.ddim_unet import DDIMUNetConfig

BLOCK = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "temb_proj",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "NIN_0": "nin_shortcut",
}
ATTENTION = {"GroupNorm_0": "norm", "NIN_0": "q", "NIN_1": "k", "NIN_2": "v", "NIN_3": "proj_out"}


def ddpm_config(found: Sequence[Entry]) -> DDIMUNetConfig:
    """The DDIMUNet with the same layers. On the way up, attention follows only a level's last block.

    Raises ValueError for a network that it cannot be.
    """
    if found[0].kind != "linear":
        raise ValueError("conditional=false is not read: this network is told no noise level")
    resamplers = sum(entry.kind == "resample" for entry in found)
    # A missing number is a resampler without weights.
    gaps = found[-1].index + 1 - len(found)
    shape = shape_of(found, 1 + (resamplers or gaps) // 2, own_blocks=False)
    return DDIMUNetConfig(
        img_channels=next(entry for entry in found if entry.kind == "convolution").inputs,
        width=shape.width,
        multiples=tuple(channels // shape.width for channels in shape.channels),
        blocks=shape.blocks,
        attention_levels=shape.attended,
        resample_with_convolution=resamplers > 0,
        attention_after_every_up_block=False,
    )


def ddpm_state(config: DDIMUNetConfig, found: Sequence[Entry]) -> dict[str, Tensor]:
    """The state dict of DDIMUNet(config) from the modules of the network, in their order.

    Raises ValueError where an entry is not the module that the configuration has in its place.
    """
    rest, last = iter(found), len(config.multiples) - 1
    state = prefixed("temb.dense.0", next_of(rest, "linear")) | prefixed(
        "temb.dense.1", next_of(rest, "linear")
    )
    state |= prefixed("conv_in", next_of(rest, "convolution"))
    for n in range(last + 1):
        for m in range(config.blocks):
            state |= _block(f"down.{n}.block.{m}", rest)
            if n in config.attention_levels:
                state |= _attention(f"down.{n}.attn.{m}", rest)
        if n < last and config.resample_with_convolution:
            state |= prefixed(f"down.{n}.downsample", renamed(next_of(rest, "resample"), {"Conv_0": "conv"}))
    state |= _block("mid.block_1", rest) | _attention("mid.attn_1", rest) | _block("mid.block_2", rest)
    for n in reversed(range(last + 1)):
        for m in range(config.blocks + 1):
            state |= _block(f"up.{n}.block.{m}", rest)
        if n in config.attention_levels:
            state |= _attention(f"up.{n}.attn.{config.blocks}", rest)
        if n > 0 and config.resample_with_convolution:
            state |= prefixed(f"up.{n}.upsample", renamed(next_of(rest, "resample"), {"Conv_0": "conv"}))
    state |= prefixed("norm_out", next_of(rest, "norm")) | prefixed("conv_out", next_of(rest, "convolution"))
    left = list(rest)
    if left:
        raise ValueError(f"{len(left)} modules are left over, the first a {left[0].kind} at {left[0].index}")
    return state


def _block(name: str, rest: Iterator[Entry]) -> dict[str, Tensor]:
    return prefixed(name, _as_convolutions(renamed(next_of(rest, "block"), BLOCK)))


def _attention(name: str, rest: Iterator[Entry]) -> dict[str, Tensor]:
    return prefixed(name, _as_convolutions(renamed(next_of(rest, "attention"), ATTENTION)))


def _as_convolutions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The matrices (inputs, outputs) of NIN layers as 1x1 convolutions."""
    found = {}
    for key, value in tensors.items():
        if key.endswith(".W"):
            found[f"{key.removesuffix('W')}weight"] = value.T[:, :, None, None]
        else:
            found[f"{key.removesuffix('b')}bias" if key.endswith(".b") else key] = value
    return found
