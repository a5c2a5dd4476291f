"""Score SDE's class `ncsnpp` with options that SongUNet does not have, as our NCSNpp."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from seedsbench.denoisers.checkpoints.score_sde.modules import PREFIX, Entry, shape_of
from seedsbench.denoisers.networks.ncsnpp import NCSNpp, NCSNppConfig


def ncsnpp_config(found: Sequence[Entry], *, fir: bool | None, skip_rescale: bool) -> NCSNppConfig:
    """The NCSNpp with the same layers. fir: as in song_config.

    Raises ValueError where the list does not tell.
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
    return NCSNppConfig(
        img_channels=next(entry for entry in found if entry.kind == "convolution").inputs,
        width=shape.width,
        channels=shape.channels,
        blocks=shape.blocks,
        attended=shape.attended,
        embedding=shape.embedding,
        biggan=biggan,
        fir=bool(fir or filtered),
        rescale=skip_rescale,
        pyramid=pyramid,
        image_sum=sum(entry.kind == "norm" for entry in found) > 1,
    )


def ncsnpp_state(config: NCSNppConfig, found: Sequence[Entry]) -> dict[str, Tensor]:
    """The state dict of NCSNpp(config): the weights under their own names, and the filters."""
    with torch.device("meta"):
        network = NCSNpp(config)
    state = {k: v for k, v in network.state_dict().items() if k.endswith("resample_filter")}
    for entry in found:
        state |= {f"{PREFIX}{entry.index}.{key}": value for key, value in entry.tensors.items()}
    return state


def _pyramid(found: Sequence[Entry]) -> Literal["none", "residual", "sum", "cat"]:
    for entry, after in pairwise(found):
        if entry.kind == "resample" or "Conv2d_0.weight" in entry.tensors:
            return "residual"
        if entry.kind == "pyramid":
            same = after.kind != "block" or after.inputs == entry.tensors["Conv_0.weight"].shape[0]
            return "sum" if same else "cat"
    return "none"
