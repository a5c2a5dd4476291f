"""CIFAR-10 checkpoints of torchcfm (Tong et al. 2024), .pt: a guided-diffusion U-Net of the velocity.

A file is what training saved: `net_model`, `ema_model`, the state of the optimiser and the step.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from seedsbench.denoisers.checkpoints.guided import attention_heads, guided_config
from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.states import is_state, network_of, understood, without_prefix
from seedsbench.denoisers.networks.guided_unet import GuidedUNet
from seedsbench.denoisers.networks.unet_blocks import check_size
from seedsbench.denoisers.preconditioning.karras import FlowPreconditioner, Preconditioned

STATES = {"ema": "ema_model", "raw": "net_model"}
"""Where the weights of each kind are."""


def load_torchcfm(
    path: str | Path,
    *,
    image_size: int,
    num_heads: int = -1,
    num_head_channels: int = -1,
    use_new_attention_order: bool = False,
    weights: Literal["ema", "raw"] = "ema",
) -> Preconditioned:
    """The denoiser in a torchcfm .pt, on the CPU; labels are the classes of training.

    Of its methods otcfm, icfm and fm, whose paths are straight. Nothing in a file tells a network of `si`,
    whose path is not. num_heads, num_head_channels: one of them; the latter prevails. weights: averaged (ema)
    or not.

    Raises FileNotFoundError, and ValueError for another kind of file or hints that do not fit it.
    """
    heads = attention_heads(num_heads, num_head_channels)
    content = read_torch(path)
    found: Any = content.get(STATES[weights]) if isinstance(content, dict) else None
    if not is_state(found):
        raise CheckpointError(f"{path} has no state dict {STATES[weights]}: torchcfm's training saves one")
    state = without_prefix(found)
    with understood(path):
        config = guided_config(state, new_attention_order=use_new_attention_order, **heads)
    network = network_of(partial(GuidedUNet, config), state, path)
    check_size(image_size, len(config.channels))
    if config.out_channels != config.in_channels:
        raise CheckpointError(
            f"{path} maps {config.in_channels} channels to {config.out_channels}: a velocity has as many"
        )
    return Preconditioned(
        network,
        FlowPreconditioner(data_first=True, time_scale=1.0),
        img_channels=config.in_channels,
        img_resolution=image_size,
        label_dim=config.classes,
    )
