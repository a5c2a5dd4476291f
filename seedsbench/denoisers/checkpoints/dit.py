"""Checkpoints of DiT (Peebles and Xie 2023) and SiT (Ma et al. 2024), .pt: one bare state dict, same network.

The architecture is read off the names and shapes of the weights, heads by the width of the published sizes.
What the network predicts, and with it how it is told the time, leaves no trace.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.states import bare_state, network_of, numbered, understood
from seedsbench.denoisers.networks.dit import DiT, DiTConfig
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.preconditioning.karras import FlowPreconditioner, Preconditioned, Preconditioner
from seedsbench.diffusion.schedule import Discrete

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Attention heads of the published networks S, B, L and XL, by their width."""


def load_dit(
    path: str | Path,
    *,
    prediction: Literal["velocity", "epsilon"],
    num_heads: int | None = None,
    fractional_timesteps: bool | None = None,
) -> Preconditioned:
    """The denoiser in a DiT or SiT .pt, on the CPU; labels are the classes of training, a zero row is none.

    prediction: "velocity" on the straight path, of SiT; "epsilon" at 1000 linear betas, of DiT.
    num_heads: needed for a width that no published network has.
    fractional_timesteps: of epsilon, see DiscreteNoisePrediction.fractional; false by default.

    Raises FileNotFoundError, and ValueError for another kind of file or hints that do not fit it.
    """
    preconditioner = _preconditioner(prediction, fractional_timesteps)
    state = bare_state(read_torch(path), path, "DiT")
    with understood(path):
        config = dit_config(state, num_heads)
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise CheckpointError(
            f"{path} maps {config.in_channels} channels to {config.out_channels}: "
            "expected as many, or twice as many"
        )
    return Preconditioned(
        network_of(partial(DiT, config), state, path),
        preconditioner,
        img_channels=config.in_channels,
        img_resolution=config.size,
        label_dim=config.classes,
    )


def _preconditioner(prediction: str, fractional: bool | None) -> Preconditioner:
    if prediction == "epsilon":
        return DiscreteNoisePrediction(Discrete(), fractional=bool(fractional))
    if fractional is not None:
        raise ValueError(
            "fractional_timesteps is for prediction=epsilon: a velocity has no timesteps, leave it out"
        )
    return FlowPreconditioner(data_first=True, time_scale=1.0)


def dit_config(state: Mapping[str, Tensor], heads: int | None = None) -> DiTConfig:
    """The architecture that a state dict of this family has, from its keys and shapes.

    heads: None for those of the published sizes. Raises KeyError where a key that every such network has is
    missing, and ValueError where numbers do not go together.
    """
    width, channels, patch = state["x_embedder.proj.weight"].shape[:3]
    heads = HEADS.get(width) if heads is None else heads
    if heads is None:
        raise ValueError(
            f"no published network has width {width}: give num_heads, the file does not tell them"
        )
    tokens = state["pos_embed"].shape[1]
    if (side := math.isqrt(tokens)) ** 2 != tokens:
        raise ValueError(f"pos_embed has {tokens} tokens, which make no square")
    return DiTConfig(
        in_channels=channels,
        out_channels=len(state["final_layer.linear.bias"]) // patch**2,
        size=side * patch,
        patch=patch,
        width=width,
        depth=numbered(state, "blocks"),
        heads=heads,
        classes=len(state["y_embedder.embedding_table.weight"]) - 1,
    )
