"""Checkpoints of OpenAI's improved-diffusion and guided-diffusion (.pt): one bare state dict.

The architecture is read off the names and shapes of the weights. Heads, their order, schedule and number
of timesteps leave no trace there and must be told; they go by the names of the authors' flags. The
flags that the file does tell may be given too, and are then checked against it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seedsbench.denoisers.checkpoints.guided_layout import guided_config
from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.states import (
    check_resolution,
    is_state,
    network_of,
    understood,
    without_prefix,
)
from seedsbench.denoisers.networks.guided_unet import GuidedUNet, GuidedUNetConfig
from seedsbench.denoisers.preconditioning.denoiser import Preconditioned
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.diffusion.schedule import Discrete

Numbers = str | int | float | Sequence[float]


def load_guided(
    path: str | Path,
    *,
    image_size: int,
    use_new_attention_order: bool,
    noise_schedule: Literal["linear", "cosine"],
    num_heads: int = -1,
    num_head_channels: int = -1,
    num_heads_upsample: int = -1,
    diffusion_steps: int = 1000,
    rescale_timesteps: bool | None = None,
    predict_xstart: bool = False,
    timestep_respacing: Numbers = "",
    use_fp16: bool = False,
    fractional_timesteps: bool = False,
    num_channels: int | None = None,
    num_res_blocks: int | None = None,
    channel_mult: Numbers = "",
    attention_resolutions: Numbers | None = None,
    class_cond: bool | None = None,
    learn_sigma: bool | None = None,
    use_scale_shift_norm: bool | None = None,
    resblock_updown: bool | None = None,
) -> Preconditioned:
    """The denoiser in a model*.pt or ema_*.pt file, on the CPU; labels are the classes of training.

    use_new_attention_order: True for guided-diffusion's ImageNet-64, False for its other models and for
        all of improved-diffusion. Nothing in a file tells, and the wrong one only makes images worse.
    num_heads, num_head_channels: one of them; the latter prevails. num_heads_upsample: -1 is num_heads.
    rescale_timesteps: needed unless diffusion_steps is 1000; improved-diffusion's own default is True.
    timestep_respacing: noise levels are rounded to so many of those of training: "250", "ddim25", or
        numbers for equal sections, "10,20". use_fp16: run the torso in float16.
    fractional_timesteps: see DiscreteNoisePrediction.fractional.
    num_channels ... resblock_updown: known from the file; an error if they disagree with it.

    Raises FileNotFoundError, and CheckpointError for another kind of file or flags that do not fit it.
    """
    heads = _heads(num_heads, num_head_channels, num_heads_upsample)
    network = _network(path, heads, _flag("use_new_attention_order", use_new_attention_order))
    config = network.config
    check_resolution(path, image_size, len(config.channels))
    given = {
        "num_channels": num_channels,
        "num_res_blocks": num_res_blocks,
        "channel_mult": _numbers(channel_mult) or None,
        "attention_resolutions": None if attention_resolutions is None else _numbers(attention_resolutions),
        "class_cond": class_cond,
        "learn_sigma": learn_sigma,
        "use_scale_shift_norm": use_scale_shift_norm,
        "resblock_updown": resblock_updown,
    }
    _check_given(path, config, image_size, given)
    spacing = timestep_respacing, _flag("fractional_timesteps", fractional_timesteps)
    return Preconditioned(
        network.to_half_torso() if _flag("use_fp16", use_fp16) else network,
        _preconditioner(noise_schedule, diffusion_steps, rescale_timesteps, predict_xstart, *spacing),
        img_channels=config.in_channels,
        img_resolution=image_size,
        label_dim=config.classes,
    )


def _network(path: str | Path, heads: dict[str, int], new_attention_order: bool) -> GuidedUNet:
    content = read_torch(path)
    if not is_state(content):
        kind = type(content).__name__
        raise CheckpointError(f"{path} holds {kind}: a guided-diffusion checkpoint is one bare state dict")
    state = without_prefix(content)
    with understood(path):
        config = guided_config(state, new_attention_order=new_attention_order, **heads)
    return network_of(partial(GuidedUNet, config), state, path)


def respaced(timesteps: int, respacing: Numbers) -> tuple[int, ...]:
    """Indices of 0 .. timesteps - 1 that a respaced process keeps (Nichol and Dhariwal 2021, section 4).

    "n": n evenly spaced ones, both ends among them. "a,b,...": that many in each of equal sections.
    "ddimn": every k-th from 0, with the k that gives n of them. Empty: all.

    Raises CheckpointError where that many cannot be had.
    """
    if isinstance(respacing, str) and respacing.startswith("ddim"):
        wanted = _numbers(respacing.removeprefix("ddim"))
        strides = [k for k in range(1, timesteps) if [len(range(0, timesteps, k))] == wanted]
        if not strides:
            raise CheckpointError(f"timestep_respacing={respacing!r}: no stride gives that of {timesteps}")
        return tuple(range(0, timesteps, strides[0]))
    sections, start, kept = _numbers(respacing), 0, []
    for n, count in enumerate(sections):
        size = timesteps // len(sections) + (n < timesteps % len(sections))
        if count != int(count) or not 1 <= count <= size:
            raise CheckpointError(
                f"timestep_respacing={respacing!r}: {count} of a section of {size} timesteps"
            )
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        kept += [start + round(stride * i) for i in range(int(count))]
        start += size
    return tuple(kept)


def _preconditioner(
    noise_schedule: str,
    diffusion_steps: int,
    rescale_timesteps: bool | None,
    predict_xstart: bool,
    timestep_respacing: Numbers,
    fractional: bool,
) -> DiscreteNoisePrediction:
    """The noise levels of training and how the network is told them."""
    if rescale_timesteps is None and diffusion_steps != 1000:
        raise CheckpointError(
            f"diffusion_steps={diffusion_steps}: give rescale_timesteps too, the file does not tell it"
        )
    # The authors' linear betas sum to the same for every number of steps.
    scale = 1000 / diffusion_steps
    try:
        if noise_schedule == "linear":
            schedule = Discrete(
                num_train_timesteps=diffusion_steps, beta_start=1e-4 * scale, beta_end=0.02 * scale
            )
        elif noise_schedule == "cosine":
            schedule = Discrete(num_train_timesteps=diffusion_steps, beta_schedule="squaredcos_cap_v2")
        else:
            raise ValueError(f"noise_schedule={noise_schedule!r} must be linear or cosine")
        return DiscreteNoisePrediction(
            schedule,
            label_scale=scale if rescale_timesteps else 1.0,
            fractional=fractional,
            predicts="sample" if _flag("predict_xstart", predict_xstart) else "epsilon",
            kept=respaced(diffusion_steps, timestep_respacing),
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _heads(num_heads: int, num_head_channels: int, num_heads_upsample: int) -> dict[str, int]:
    if num_heads < 1 and num_head_channels < 1:
        raise CheckpointError(
            f"num_heads={num_heads}, num_head_channels={num_head_channels}: give one of them, "
            "the file does not tell the heads of its attentions"
        )
    upsample = num_heads if num_heads_upsample == -1 else num_heads_upsample
    return {"heads": num_heads, "heads_up": upsample, "head_channels": max(num_head_channels, 0)}


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise CheckpointError(f"{name}={value!r} must be true or false")
    return value


def _numbers(value: Numbers) -> list[float]:
    """A flag's numbers: "32,16,8", 250 or [1, 2]."""
    try:
        if isinstance(value, str):
            return [float(part) for part in value.split(",") if part.strip()]
        parts = value if isinstance(value, Sequence) else [value]
        if any(isinstance(part, bool) for part in parts):
            raise ValueError("true and false are no numbers")
        return [float(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{value!r} must be numbers, such as 32,16,8") from error


def _check_given(path: str | Path, config: GuidedUNetConfig, image_size: int, given: dict[str, Any]) -> None:
    """Compare the flags given (None: not given) with what the weights tell."""
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise CheckpointError(
            f"{path} maps {config.in_channels} channels to {config.out_channels}: this is no network of "
            "images alone (super-resolution and classifiers are not read)"
        )
    found = {
        "num_channels": config.width,
        "num_res_blocks": config.blocks,
        "channel_mult": [channels / config.width for channels in config.channels],
        "attention_resolutions": [image_size // 2**n for n in config.attention_levels],
        "class_cond": config.classes > 0,
        "learn_sigma": config.out_channels != config.in_channels,
        "use_scale_shift_norm": config.scale_shift,
        "resblock_updown": config.resample_in_blocks,
    }
    if given["attention_resolutions"] is not None:
        # A resolution that no level has is no error of the authors' flags, nor here.
        sizes = [image_size // 2**n for n in range(len(config.channels))]
        given["attention_resolutions"] = [r for r in sizes if r in given["attention_resolutions"]]
    for name, value in given.items():
        if value is not None and value != found[name]:
            raise CheckpointError(f"{path}: {name}={value} was given, but its weights are for {found[name]}")
