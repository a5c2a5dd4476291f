"""Weights of score SDE's NCSN++ and DDPM++ under the names of our SongUNet, which computes the same."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from seedsbench.denoisers.checkpoints.score_sde.modules import (
    Entry,
    next_of,
    prefixed,
    renamed,
    shape_of,
)
from seedsbench.denoisers.networks.song_unet import SongUNet, SongUNetConfig
from seedsbench.denoisers.networks.unet_blocks import StridedConv, UNetBlock

BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
}


def is_song(found: Sequence[Entry], skip_rescale: bool) -> bool:
    """Whether SongUNet has the options of a network: those of all published NCSN++ and DDPM++."""
    resampling = [entry for entry in found if entry.resamples]
    sums = {
        e.index: e.tensors["Conv_0.weight"].shape[0]
        for e in found
        if e.kind == "pyramid" and "Conv_0.weight" in e.tensors
    }
    concatenated = any(
        entry.index in sums and after.kind == "block" and after.inputs != sums[entry.index]
        for entry, after in pairwise(found)
    )
    plain = any(
        entry.kind == "resample" or "NIN_0.W" in entry.tensors for entry in found if entry.kind != "attention"
    )
    return (
        skip_rescale
        and bool(resampling)
        and found[0].kind != "convolution"
        and not plain
        and not concatenated
    )


def song_config(found: Sequence[Entry], image_size: int, fir: bool | None) -> SongUNetConfig:
    """The SongUNet with the same layers.

    fir: whether it resamples with the filter [1, 3, 3, 1] (else 2x2 means); None: as the list tells.

    Raises ValueError where the list does not tell.
    """
    shape = shape_of(found, 1 + sum(entry.resamples for entry in found) // 2, own_blocks=True)
    pyramid = [entry for entry in found if entry.kind == "pyramid"]
    residual = bool(pyramid) and "Conv2d_0.weight" in pyramid[0].tensors
    if fir is None and not residual:
        raise ValueError("it does not tell whether it resamples by FIR: give fir (NCSN++ true, DDPM++ false)")
    if residual and fir is False:
        raise ValueError("fir=false was given, but its residual input is of the kind with FIR")
    convolutions = [entry for entry in found if entry.kind == "convolution"]
    embedding = next(entry for entry in found if entry.kind == "linear").outputs
    return SongUNetConfig(
        img_resolution=image_size,
        in_channels=convolutions[0].inputs,
        out_channels=convolutions[-1].outputs,
        model_channels=shape.width,
        channel_mult=tuple(channels // shape.width for channels in shape.channels),
        channel_mult_emb=embedding // shape.width,
        num_blocks=shape.blocks,
        attn_resolutions=tuple(image_size >> level for level in shape.attended),
        embedding_type=shape.embedding or "positional",
        channel_mult_noise=2 if shape.embedding == "fourier" else 1,
        encoder_type="residual" if residual else "skip" if pyramid else "standard",
        decoder_type="skip" if sum(entry.kind == "norm" for entry in found) > 1 else "standard",
        resample_filter=(1, 3, 3, 1) if fir or residual else (1, 1),
    )


def song_state(config: SongUNetConfig, found: Sequence[Entry]) -> dict[str, Tensor]:
    """The state dict of SongUNet(config) from the modules of a score SDE network, in their order.

    Filters, which those networks do not store, come from the configuration.

    Raises ValueError where an entry is not the module that the configuration has in its place.
    """
    with torch.device("meta"):
        network = SongUNet(config)
    rest = iter(found)
    state = {k: v for k, v in network.state_dict().items() if k.endswith("resample_filter")}
    if network.map_noise is not None:
        state["map_noise.freqs"] = next_of(rest, "fourier")["W"]
    for name in ("map_layer0", "map_layer1"):
        state |= prefixed(name, next_of(rest, "linear"))
    for part, layers in (("enc", network.enc), ("dec", network.dec)):
        for name, layer in layers.items():
            state |= prefixed(f"{part}.{name}", _layer(name, layer, rest))
    left = list(rest)
    if left:
        raise ValueError(f"{len(left)} modules are left over, the first a {left[0].kind} at {left[0].index}")
    return state


def _layer(name: str, layer: nn.Module, rest: Iterator[Entry]) -> dict[str, Tensor]:
    """Tensors of one layer of the encoder or decoder, by their names in it."""
    if isinstance(layer, UNetBlock):
        tensors = renamed(next_of(rest, "block"), BLOCK)
        return tensors | (_attention(next_of(rest, "attention")) if layer.heads else {})
    if isinstance(layer, StridedConv):
        return renamed(next_of(rest, "pyramid"), {"Conv2d_0": ""})
    if name.endswith("_aux_skip"):
        return renamed(next_of(rest, "pyramid"), {"Conv_0": ""})
    if isinstance(layer, nn.Conv2d):
        return dict(next_of(rest, "convolution"))
    if isinstance(layer, nn.GroupNorm):
        return dict(next_of(rest, "norm"))
    return {}  # resamplers of images have no weights


def _attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """NIN_j holds (inputs, outputs) matrices; channel c of q, k, v is channel 3c, 3c + 1, 3c + 2 of qkv."""
    weight = torch.stack([tensors[f"NIN_{j}.W"].T for j in range(3)], dim=1).flatten(0, 1)
    bias = torch.stack([tensors[f"NIN_{j}.b"] for j in range(3)], dim=1).flatten()
    return {
        "norm2.weight": tensors["GroupNorm_0.weight"],
        "norm2.bias": tensors["GroupNorm_0.bias"],
        "qkv.weight": weight[:, :, None, None],
        "qkv.bias": bias,
        "proj.weight": tensors["NIN_3.W"].T[:, :, None, None],
        "proj.bias": tensors["NIN_3.b"],
    }
