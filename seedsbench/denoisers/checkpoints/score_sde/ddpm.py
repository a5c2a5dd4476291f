"""Score SDE's class `ddpm` as our DDIMUNet, which computes the same."""

from collections.abc import Sequence
from functools import partial

from seedsbench.denoisers.checkpoints.score_sde.modules import InOrder, Layout, ModuleEntry, shape_of
from seedsbench.denoisers.networks.ddim_unet import DDIMUNet, DDIMUNetConfig

_BLOCK = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "temb_proj",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "NIN_0": "nin_shortcut",
}
_ATTENTION = {"GroupNorm_0": "norm", "NIN_0": "q", "NIN_1": "k", "NIN_2": "v", "NIN_3": "proj_out"}
_RESAMPLER = {"Conv_0": "conv"}


def ddpm_layout(found: Sequence[ModuleEntry]) -> Layout:
    """The DDIMUNet with the same layers. On the way up, attention follows only a level's last block.

    Raises ValueError for a network that it cannot be.
    """
    if found[0].kind != "linear":
        raise ValueError("conditional=false is not read: this network is told no noise level")
    resamplers = sum(entry.kind == "resample" for entry in found)
    # A missing number is a resampler without weights.
    gaps = found[-1].index + 1 - len(found)
    shape = shape_of(found, 1 + (resamplers or gaps) // 2, own_blocks=False)
    levels, resampled = range(len(shape.channels)), resamplers > 0
    config = DDIMUNetConfig(
        img_channels=shape.img_channels,
        width=shape.width,
        multiples=tuple(channels // shape.width for channels in shape.channels),
        blocks=shape.blocks,
        attention_levels=shape.attended,
        resample_with_convolution=resampled,
        attention_after_every_up_block=False,
    )
    rest = InOrder(found)
    state = rest.take("linear", "temb.dense.0") | rest.take("linear", "temb.dense.1")
    state |= rest.take("convolution", "conv_in")
    for n in levels:
        for m in range(config.blocks):
            state |= rest.take("block", f"down.{n}.block.{m}", _BLOCK)
            if n in config.attention_levels:
                state |= rest.take("attention", f"down.{n}.attn.{m}", _ATTENTION)
        if resampled and n < levels[-1]:
            state |= rest.take("resample", f"down.{n}.downsample", _RESAMPLER)
    state |= rest.take("block", "mid.block_1", _BLOCK)
    state |= rest.take("attention", "mid.attn_1", _ATTENTION)
    state |= rest.take("block", "mid.block_2", _BLOCK)
    for n in reversed(levels):
        for m in range(config.blocks + 1):
            state |= rest.take("block", f"up.{n}.block.{m}", _BLOCK)
        if n in config.attention_levels:
            state |= rest.take("attention", f"up.{n}.attn.{config.blocks}", _ATTENTION)
        if resampled and n > 0:
            state |= rest.take("resample", f"up.{n}.upsample", _RESAMPLER)
    state |= rest.take("norm", "norm_out") | rest.take("convolution", "conv_out")
    rest.finish()
    return Layout(shape, partial(DDIMUNet, config), state)
