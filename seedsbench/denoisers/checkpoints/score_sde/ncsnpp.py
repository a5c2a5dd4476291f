"""Score SDE's class `ncsnpp`: as our SongUNet where that has its options, else as our NCSNpp.

SongUNet, which computes the same, has those of all published NCSN++ and DDPM++.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from seedsbench.denoisers.checkpoints.score_sde.modules import (
    PREFIX,
    InOrder,
    Layout,
    ModuleEntry,
    Shape,
    shape_of,
)
from seedsbench.denoisers.networks.ncsnpp import NCSNpp, NCSNppConfig
from seedsbench.denoisers.networks.unet import SongUNet, SongUNetConfig
from seedsbench.denoisers.networks.unet_blocks import StridedConv, UNetBlock

_Pyramid = Literal["none", "residual", "sum", "cat"]
_BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
}


def ncsnpp_layout(
    found: Sequence[ModuleEntry], *, image_size: int, fir: bool | None, skip_rescale: bool
) -> Layout:
    """The network of ours with the same layers.

    fir: whether it resamples with the filter [1, 3, 3, 1] (else 2x2 means); None: as the list tells.

    Raises ValueError where the list does not tell, and for modules that the network does not have.
    """
    blocks = [entry for entry in found if entry.kind == "block"]
    biggan = any("Conv_2.weight" in block.tensors for block in blocks)
    # Resampling between blocks has no weights: numbers are missing in the list.
    changes = sum(b.resamples for b in blocks) if biggan else found[-1].index + 1 - len(found)
    shape = shape_of(found, 1 + changes // 2, own_blocks=biggan)
    pyramid = _pyramid(found)
    filtered = any("Conv2d_0.weight" in entry.tensors for entry in found)
    if fir is None and not filtered:
        raise ValueError("it does not tell whether it resamples by FIR: give fir (NCSN++ true, DDPM++ false)")
    if pyramid == "residual" and fir is not None and fir != filtered:
        raise ValueError(f"fir={fir} was given, but its residual input is of the other kind")
    fir = bool(fir or filtered)
    image_sum = sum(entry.kind == "norm" for entry in found) > 1
    of_ddpm = any("NIN_0.W" in block.tensors for block in blocks) or any(e.kind == "resample" for e in found)
    plain_song = skip_rescale and changes > 0 and biggan and not of_ddpm and pyramid != "cat"
    if plain_song and shape.embedding is not None:
        return _song_layout(found, shape, pyramid, image_size=image_size, fir=fir, image_sum=image_sum)
    config = NCSNppConfig(
        img_channels=shape.img_channels,
        width=shape.width,
        channels=shape.channels,
        blocks=shape.blocks,
        attended=shape.attended,
        embedding=shape.embedding,
        biggan=biggan,
        fir=fir,
        rescale=skip_rescale,
        pyramid=pyramid,
        image_sum=image_sum,
    )
    with torch.device("meta"):
        filters = _filters(NCSNpp(config))
    own = {f"{PREFIX}{entry.index}.{key}": value for entry in found for key, value in entry.tensors.items()}
    return Layout(shape, partial(NCSNpp, config), filters | own)


def _pyramid(found: Sequence[ModuleEntry]) -> _Pyramid:
    """How coarser levels get the input image."""
    for entry, after in pairwise(found):
        if entry.kind == "resample" or "Conv2d_0.weight" in entry.tensors:
            return "residual"
        if entry.kind == "pyramid":
            same = after.kind != "block" or after.inputs == entry.tensors["Conv_0.weight"].shape[0]
            return "sum" if same else "cat"
    return "none"


def _song_layout(
    found: Sequence[ModuleEntry],
    shape: Shape,
    pyramid: _Pyramid,
    *,
    image_size: int,
    fir: bool,
    image_sum: bool,
) -> Layout:
    encoders: dict[str, Literal["standard", "skip", "residual"]] = {"residual": "residual", "sum": "skip"}
    config = SongUNetConfig(
        img_resolution=image_size,
        in_channels=shape.img_channels,
        out_channels=[entry for entry in found if entry.kind == "convolution"][-1].outputs,
        model_channels=shape.width,
        channel_mult=tuple(channels // shape.width for channels in shape.channels),
        channel_mult_emb=next(entry for entry in found if entry.kind == "linear").outputs // shape.width,
        num_blocks=shape.blocks,
        attn_resolutions=tuple(image_size >> level for level in shape.attended),
        embedding_type=shape.embedding or "positional",
        channel_mult_noise=2 if shape.embedding == "fourier" else 1,
        encoder_type=encoders.get(pyramid, "standard"),
        decoder_type="skip" if image_sum else "standard",
        resample_filter=(1, 3, 3, 1) if fir else (1, 1),
    )
    with torch.device("meta"):
        network = SongUNet(config)
    state, rest = _filters(network), InOrder(found)
    if shape.embedding == "fourier":
        state["map_noise.freqs"] = rest.take("fourier")["W"]
    for name in ("map_layer0", "map_layer1"):
        state |= rest.take("linear", name)
    for part, layers in (("enc", network.enc), ("dec", network.dec)):
        for name, layer in layers.items():
            state |= _song_layer(f"{part}.{name}", layer, rest)
    rest.finish()
    return Layout(shape, partial(SongUNet, config), state)


def _song_layer(name: str, layer: nn.Module, rest: InOrder) -> dict[str, Tensor]:
    """The tensors of one layer of SongUNet's encoder or decoder."""
    if isinstance(layer, UNetBlock):
        return rest.take("block", name, _BLOCK) | (_song_attention(name, rest) if layer.heads else {})
    if isinstance(layer, StridedConv):
        return rest.take("pyramid", name, {"Conv2d_0": ""})
    if name.endswith("_aux_skip"):
        return rest.take("pyramid", name, {"Conv_0": ""})
    if isinstance(layer, nn.Conv2d):
        return rest.take("convolution", name)
    if isinstance(layer, nn.GroupNorm):
        return rest.take("norm", name)
    return {}  # resamplers of images have no weights


def _song_attention(name: str, rest: InOrder) -> dict[str, Tensor]:
    """NIN_j holds (inputs, outputs) matrices; channel c of q, k, v is channel 3c, 3c + 1, 3c + 2 of qkv."""
    tensors = rest.take("attention")
    weight = torch.stack([tensors[f"NIN_{j}.W"].T for j in range(3)], dim=1).flatten(0, 1)
    bias = torch.stack([tensors[f"NIN_{j}.b"] for j in range(3)], dim=1).flatten()
    return {
        f"{name}.norm2.weight": tensors["GroupNorm_0.weight"],
        f"{name}.norm2.bias": tensors["GroupNorm_0.bias"],
        f"{name}.qkv.weight": weight[:, :, None, None],
        f"{name}.qkv.bias": bias,
        f"{name}.proj.weight": tensors["NIN_3.W"].T[:, :, None, None],
        f"{name}.proj.bias": tensors["NIN_3.b"],
    }


def _filters(network: nn.Module) -> dict[str, Tensor]:
    """The resampling filters, which score SDE's files do not hold."""
    return {k: v for k, v in network.state_dict().items() if k.endswith("resample_filter")}
