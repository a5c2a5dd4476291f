"""Checkpoints of OpenAI's improved-diffusion and guided-diffusion (.pt): one bare state dict.

The architecture is read off the names and shapes of the weights. Heads, their order, schedule and number
of timesteps leave no trace there and must be told; they go by the names of the authors' flags. The
flags that the file does tell may be given too, and are then checked against it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.states import bare_state, network_of, numbered, understood
from seedsbench.denoisers.networks.guided_unet import GuidedUNet, GuidedUNetConfig
from seedsbench.denoisers.networks.unet_blocks import check_size
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.preconditioning.karras import Preconditioned
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

    Raises FileNotFoundError, and ValueError for another kind of file or flags that do not fit it.
    """
    heads = attention_heads(num_heads, num_head_channels, num_heads_upsample)
    state = bare_state(read_torch(path), path, "guided-diffusion")
    with understood(path):
        config = guided_config(state, new_attention_order=use_new_attention_order, **heads)
    network = network_of(partial(GuidedUNet, config), state, path)
    check_size(image_size, len(config.channels))
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
    if rescale_timesteps is None and diffusion_steps != 1000:
        raise ValueError(f"diffusion_steps={diffusion_steps}: give rescale_timesteps too, no file tells it")
    scale = 1000 / diffusion_steps
    preconditioner = DiscreteNoisePrediction(
        _schedule(noise_schedule, diffusion_steps),
        label_scale=scale if rescale_timesteps else 1.0,
        fractional=fractional_timesteps,
        predicts="sample" if predict_xstart else "epsilon",
        kept=respaced(diffusion_steps, timestep_respacing),
    )
    return Preconditioned(
        network.to_half_torso() if use_fp16 else network,
        preconditioner,
        img_channels=config.in_channels,
        img_resolution=image_size,
        label_dim=config.classes,
    )


def attention_heads(num_heads: int, num_head_channels: int, num_heads_upsample: int = -1) -> dict[str, int]:
    """The flags as GuidedUNetConfig has them; ValueError where neither of the first two is given."""
    if num_heads < 1 and num_head_channels < 1:
        raise ValueError(
            f"num_heads={num_heads}, num_head_channels={num_head_channels}: give one of them, "
            "the file does not tell the heads of its attentions"
        )
    upsample = num_heads if num_heads_upsample == -1 else num_heads_upsample
    return {"heads": num_heads, "heads_up": upsample, "head_channels": max(num_head_channels, 0)}


def guided_config(
    state: Mapping[str, Tensor], *, heads: int, heads_up: int, head_channels: int, new_attention_order: bool
) -> GuidedUNetConfig:
    """All of the configuration that weights tell, with the rest as given.

    Raises KeyError, or ValueError where weights and heads do not go together.
    """
    first = state["input_blocks.0.0.weight"]
    count = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("input_blocks."))
    # Means have no weights: at most every second number is left out.
    if count > 2 * (there := numbered(state, "input_blocks")):
        raise ValueError(f"input_blocks.{count - 1} is numbered beyond its {there} blocks")
    blocks, style = _blocks_a_level(state, count)
    levels = count // (blocks + 1)
    starts = [1 + n * (blocks + 1) for n in range(levels)]
    channels = tuple(state[f"input_blocks.{i}.0.in_layers.2.weight"].shape[0] for i in starts)
    embedding = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    return GuidedUNetConfig(
        in_channels=first.shape[1],
        out_channels=state["out.2.weight"].shape[0],
        width=state["time_embed.0.weight"].shape[1],
        channels=channels,
        blocks=blocks,
        attention_levels=tuple(n for n, i in enumerate(starts) if f"input_blocks.{i}.1.qkv.weight" in state),
        classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else 0,
        heads=heads,
        heads_up=heads_up,
        head_channels=head_channels,
        new_attention_order=new_attention_order,
        scale_shift=embedding == 2 * channels[0],
        resample_in_blocks=style == "blocks",
        resample_with_convolution=style == "convolution",
    )


def _blocks_a_level(state: Mapping[str, Tensor], count: int) -> tuple[int, str]:
    """Residual blocks of a level on the way down, and how levels are resampled."""
    for i in range(count):
        if f"input_blocks.{i}.0.op.weight" in state:
            return i - 1, "convolution"
        # Means have no weights: their place among the keys stays empty.
        if not any(f"input_blocks.{i}.0.{kind}" in state for kind in ("weight", "in_layers.2.weight")):
            return i - 1, "mean"
        # On the way up a group that ends in a second residual block is the last of its level.
        if any(f"output_blocks.{i}.{j}.in_layers.2.weight" in state for j in (1, 2)):
            return i, "blocks"
    return count - 1, "convolution"


def _schedule(name: str, steps: int) -> Discrete:
    if name == "cosine":
        return Discrete(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2")
    # The authors' linear betas sum to the same for every number of steps.
    scale = 1000 / steps
    return Discrete(num_train_timesteps=steps, beta_start=1e-4 * scale, beta_end=0.02 * scale)


def respaced(timesteps: int, respacing: Numbers) -> tuple[int, ...]:
    """Indices of 0 .. timesteps - 1 that a respaced process keeps (Nichol and Dhariwal 2021, section 4).

    "n": n evenly spaced ones, both ends among them. "a,b,...": that many in each of equal sections.
    "ddimn": every k-th from 0, with the k that gives n of them. Empty: all.

    Raises ValueError where that many cannot be had.
    """
    if isinstance(respacing, str) and respacing.startswith("ddim"):
        wanted = _numbers(respacing.removeprefix("ddim"))
        strides = [k for k in range(1, timesteps) if [len(range(0, timesteps, k))] == wanted]
        if not strides:
            raise ValueError(f"timestep_respacing={respacing!r}: no stride gives that of {timesteps}")
        return tuple(range(0, timesteps, strides[0]))
    sections, start, kept = _numbers(respacing), 0, []
    for n, count in enumerate(sections):
        size = timesteps // len(sections) + (n < timesteps % len(sections))
        if count != int(count) or not 1 <= count <= size:
            raise ValueError(f"timestep_respacing={respacing!r}: {count} of a section of {size} timesteps")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        kept += [start + round(stride * i) for i in range(int(count))]
        start += size
    return tuple(kept)


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
        raise ValueError(f"{value!r} must be numbers, such as 32,16,8") from error


def _check_given(path: str | Path, config: GuidedUNetConfig, image_size: int, given: dict[str, Any]) -> None:
    """Compare the flags given (None: not given) with what the weights tell."""
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise CheckpointError(
            f"{path} maps {config.in_channels} channels to {config.out_channels}: this is no network of "
            "images alone (super-resolution and classifiers are not read)"
        )
    sizes = [image_size // 2**n for n in range(len(config.channels))]
    if given["attention_resolutions"] is not None:
        # A resolution that no level has is no error of the authors' flags, nor here.
        given["attention_resolutions"] = [r for r in sizes if r in given["attention_resolutions"]]
    found = {
        "num_channels": config.width,
        "num_res_blocks": config.blocks,
        "channel_mult": [channels / config.width for channels in config.channels],
        "attention_resolutions": [sizes[n] for n in config.attention_levels],
        "class_cond": config.classes > 0,
        "learn_sigma": config.out_channels != config.in_channels,
        "use_scale_shift_norm": config.scale_shift,
        "resblock_updown": config.resample_in_blocks,
    }
    for name, value in given.items():
        if value is not None and value != found[name]:
            raise CheckpointError(f"{path}: {name}={value} was given, but its weights are for {found[name]}")
