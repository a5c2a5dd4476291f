"""The architecture of OpenAI's diffusion U-Nets, from the keys and shapes of a state dict."""

from collections.abc import Mapping

from torch import Tensor

from seedsbench.denoisers.networks.guided_unet import GuidedUNetConfig


def guided_config(
    state: Mapping[str, Tensor], *, heads: int, heads_up: int, head_channels: int, new_attention_order: bool
) -> GuidedUNetConfig:
    """All of the configuration that weights tell, with the rest as given.

    Raises KeyError, or ValueError where weights and heads do not go together.
    """
    first = state["input_blocks.0.0.weight"]
    count = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("input_blocks."))
    blocks, style = _blocks_a_level(state, count)
    levels = count // (blocks + 1)
    starts = [1 + n * (blocks + 1) for n in range(levels)]
    weights = [state[f"input_blocks.{i}.0.in_layers.2.weight"] for i in starts]
    embedding, channels = state["input_blocks.1.0.emb_layers.1.weight"].shape[0], weights[0].shape[0]
    return GuidedUNetConfig(
        in_channels=first.shape[1],
        out_channels=state["out.2.weight"].shape[0],
        width=state["time_embed.0.weight"].shape[1],
        channels=tuple(weight.shape[0] for weight in weights),
        blocks=blocks,
        attention_levels=tuple(n for n, i in enumerate(starts) if f"input_blocks.{i}.1.qkv.weight" in state),
        classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else 0,
        heads=heads,
        heads_up=heads_up,
        head_channels=head_channels,
        new_attention_order=new_attention_order,
        scale_shift=embedding == 2 * channels,
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
