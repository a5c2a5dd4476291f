"""Checkpoints of the DDIM authors: CelebA-64 (the model of SEEDS' best FID there), CIFAR-10, LSUN.

A file is what training saved, the list [model, optimizer, epoch, step, averages], or the bare state dict
that conversions leave. The architecture is read off the names and shapes of the weights; the resolution
and the noise schedule are not in the file.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.states import is_state, network_of, understood, without_prefix
from seedsbench.denoisers.networks.ddim_unet import DDIMUNet, DDIMUNetConfig
from seedsbench.denoisers.networks.unet_blocks import check_size
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.preconditioning.karras import Preconditioned
from seedsbench.diffusion.schedule import Discrete


def load_ddim(
    path: str | Path,
    *,
    img_resolution: int,
    beta_schedule: Literal["linear", "quad", "sigmoid", "const", "jsd"] = "linear",
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    timesteps: int = 1000,
    weights: Literal["ema", "raw"] = "ema",
    fractional_timesteps: bool = False,
) -> Preconditioned:
    """The unconditional denoiser in a .ckpt or .pth of the DDIM authors; float32, on the CPU.

    img_resolution: pixels of the training images (64 for CelebA, 32 for CIFAR-10).
    beta_schedule, beta_start, beta_end, timesteps: of training; quad is linear in sqrt(beta). jsd leaves no
        signal at its last timestep: noise levels are rounded to the others.
    weights: "ema" or, from a list that training saved, "raw".
    fractional_timesteps: see DiscreteNoisePrediction.fractional.

    Raises FileNotFoundError, and ValueError for another kind of file or hints that do not fit it.
    """
    state = _state(read_torch(path), weights, path)
    with understood(path):
        config = ddim_config(state)
    network = network_of(partial(DDIMUNet, config), state, path)
    check_size(img_resolution, len(config.multiples))
    schedule = Discrete(
        num_train_timesteps=timesteps,
        beta_start=beta_start,
        beta_end=beta_end,
        beta_schedule="scaled_linear" if beta_schedule == "quad" else beta_schedule,
    )
    kept = tuple(range(timesteps - 1)) if beta_schedule == "jsd" else ()
    return Preconditioned(
        network,
        DiscreteNoisePrediction(schedule, fractional=fractional_timesteps, kept=kept),
        img_channels=config.img_channels,
        img_resolution=img_resolution,
    )


def ddim_config(state: Mapping[str, Tensor]) -> DDIMUNetConfig:
    """The architecture that a state dict of this family has, from its keys and shapes.

    Raises KeyError or IndexError where a key that every such network has is missing.
    """
    width, channels = state["conv_in.weight"].shape[:2]
    levels = sum(f"down.{n}.block.0.conv1.weight" in state for n in range(64))
    outputs = [state[f"down.{n}.block.0.conv1.weight"].shape[0] for n in range(levels)]
    return DDIMUNetConfig(
        img_channels=channels,
        width=width,
        multiples=tuple(out // width for out in outputs),
        blocks=sum(f"down.0.block.{m}.conv1.weight" in state for m in range(64)),
        attention_levels=tuple(n for n in range(levels) if f"down.{n}.attn.0.q.weight" in state),
        # With one level there is nothing to resample, and no key to tell.
        resample_with_convolution="down.0.downsample.conv.weight" in state,
        noise_parameters=len(state["logvar"]) if "logvar" in state else 0,
    )


def _state(content: Any, weights: str, path: str | Path) -> dict[str, Tensor]:
    """The state dict wanted, of whatever outer structure, without the prefix of DataParallel."""
    if is_state(content):
        if weights == "raw":
            raise CheckpointError(
                f"{path} holds one bare state dict (averages, as published): use weights=ema"
            )
        return without_prefix(content)
    if not isinstance(content, list | tuple) or not content or not is_state(content[0]):
        raise CheckpointError(
            f"{path} holds {type(content).__name__}: a DDIM checkpoint is a list that begins with a state "
            "dict, or a bare state dict"
        )
    if weights == "raw":
        return without_prefix(content[0])
    if len(content) < 2 or not is_state(content[-1]):
        raise CheckpointError(f"{path} was saved without averaged weights (EMA): use weights=raw")
    return without_prefix(content[-1])
