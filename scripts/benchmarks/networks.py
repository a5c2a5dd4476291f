"""Time of one forward pass of our networks, as a ratio to a plain implementation of the same network.

    python scripts/benchmarks/networks.py  # CIFAR-10's DDPM++ and NCSN++, ImageNet-64's ADM
    python scripts/benchmarks/networks.py --quick               # CIFAR-10's two, one sample at a time
    python scripts/benchmarks/networks.py --write               # ... and in results/benchmarks.md
    python scripts/benchmarks/networks.py ddpmpp --batch 1 8 --rounds 9
    python scripts/benchmarks/networks.py --device cuda --batch 64 --half

Plain means: the papers' formulas with torch's operations as they come, in NCHW: attention by two matrix
products and a softmax, resampling by grouped convolutions, one new tensor an operation. It reads the
weights of our module, so the two compute the same numbers (the last column says how nearly). They take
turns, in another order each round: ours, and plain itself once more, between two runs of plain, whose mean
is the measure. Medians of the rounds' ratios and their ranges are printed: below 1 is faster than plain, and
what plain is off 1 against itself is noise. On one thread of a CPU it is processor time that counts, which
holds on a busy machine too.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scripts.benchmarks.interleave import between, seconds, spread
from scripts.benchmarks.publish import command, machine, options, publish
from seedsbench.denoisers.networks.unet import DhariwalUNet, DhariwalUNetConfig, SongUNet, SongUNetConfig
from seedsbench.denoisers.networks.unet_blocks import (
    ResampledConv,
    Resampler,
    StridedConv,
)
from seedsbench.diffusion.noise import Philox
from seedsbench.report.table import markdown_table

HEADING = "## Networks"
NETWORKS: dict[str, Callable[[], SongUNet | DhariwalUNet]] = {
    "ddpmpp": lambda: SongUNet(SongUNetConfig(32, 3, 3, channel_mult=(2, 2, 2))),
    "ncsnpp": lambda: SongUNet(
        SongUNetConfig(
            32,
            3,
            3,
            channel_mult=(2, 2, 2),
            embedding_type="fourier",
            channel_mult_noise=2,
            encoder_type="residual",
            resample_filter=(1, 3, 3, 1),
        )
    ),
    "adm": lambda: DhariwalUNet(DhariwalUNetConfig(64, 3, 3, label_dim=1000)),
}


def plain(
    network: SongUNet | DhariwalUNet, x: Tensor, c_noise: Tensor, labels: Tensor | None = None
) -> Tensor:
    """The network's output by plain operations on its weights."""
    embedding = network.embed(c_noise.to(x.dtype).reshape(-1), labels, None)
    h, states, pyramid = x, [], x
    image: Any = None
    for name, layer in network.enc.items():
        if name.endswith("_aux_down"):
            pyramid = _resampled(layer, pyramid)
        elif name.endswith("_aux_skip"):
            h = states[-1] = h + layer(pyramid)
        elif name.endswith("_aux_residual"):
            h = states[-1] = pyramid = (h + _resampled(layer, pyramid)) * 0.5**0.5
        else:
            h = layer(h) if name.endswith("_conv") else _block(layer, h, embedding)
            states.append(h)
    normed = h
    for name, layer in network.dec.items():
        if name.endswith("_aux_up"):
            image = _resampled(layer, image)
        elif name.endswith("_aux_norm"):
            normed = layer(h)
        elif name.endswith("_aux_conv"):
            image = layer(nnf.silu(normed)) + (0 if image is None else image)
        else:
            h = _block(layer, torch.cat([h, states.pop()], 1) if "_block" in name else h, embedding)
    if isinstance(network, DhariwalUNet):
        return network.out_conv(nnf.silu(network.out_norm(h)))
    return image


def _block(block: Any, x: Tensor, embedding: Tensor) -> Tensor:
    h = _resampled(block.conv0, nnf.silu(block.norm0(x)))
    modulation = block.affine(embedding)[:, :, None, None]
    if block.style.scale_shift:
        scale, shift = modulation.chunk(2, dim=1)
        h = nnf.silu(block.norm1(h) * (1 + scale) + shift)
    else:
        h = nnf.silu(block.norm1(h + modulation))
    h = (block.conv1(h) + (x if block.skip is None else _resampled(block.skip, x))) * block.style.rescale
    if not block.heads:
        return h
    batch, channels, height, width = h.shape
    qkv = block.qkv(block.norm2(h)).reshape(batch, block.heads, channels // block.heads, 3, height * width)
    q, k, v = qkv.unbind(3)
    weights = (q.transpose(2, 3) @ k * (channels // block.heads) ** -0.5).softmax(dim=3)
    mixed = (v @ weights.transpose(2, 3)).reshape(h.shape)
    return (h + block.proj(mixed)) * block.style.rescale


def _resampled(layer: Any, x: Tensor) -> Tensor:
    """The layer's resampling (a grouped convolution), and its convolution where it has one."""
    if not isinstance(layer, Resampler):
        return layer(x)
    taps, channels = layer.resample_filter.shape[-1], x.shape[1]
    weight = layer.resample_filter.to(x.dtype).repeat(channels, 1, 1, 1)
    padding = (taps - 1) // 2
    if isinstance(layer, StridedConv):
        h = nnf.conv2d(x, layer.weight, None, padding=1 + padding)
        h = nnf.conv2d(
            h, layer.resample_filter.to(x.dtype).repeat(h.shape[1], 1, 1, 1), stride=2, groups=h.shape[1]
        )
        assert layer.bias is not None
        return h + layer.bias[:, None, None]
    if layer.direction == "down":
        h = nnf.conv2d(x, weight, stride=2, padding=padding, groups=channels)
    else:
        h = nnf.conv_transpose2d(x, 4 * weight, stride=2, padding=padding, groups=channels)
    if isinstance(layer, ResampledConv):
        return nnf.conv2d(h, layer.weight, layer.bias, padding=layer.padding)
    return h


def fill(network: nn.Module) -> None:
    """Weights from counter-based noise: about variance-preserving layers, norms about 1."""
    for index, (name, value) in enumerate(network.state_dict().items()):
        if name.endswith("resample_filter"):
            continue
        noise = Philox(torch.tensor([index]), tuple(value.shape), dtype=torch.float32).normal()[0]
        fan_in = max(1, value[0].numel()) if value.ndim > 1 else 100
        norm = "norm" in name.split(".")[-2] and name.endswith("weight")
        value.copy_(16 * noise if name.endswith("freqs") else norm + noise * fan_in**-0.5)


def measure(name: str, batch: int, rounds: int, device: str, half: bool) -> list[str]:
    """A row of the table: network, batch, milliseconds, ratios of ours and of plain, largest difference."""
    dtype = torch.float16 if half else torch.float32
    ours = NETWORKS[name]().eval().requires_grad_(False)
    fill(ours)
    ours = ours.to(device, dtype)
    ours = ours.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    reference = NETWORKS[name]().eval().requires_grad_(False)
    reference.load_state_dict(ours.state_dict())
    reference = reference.to(device, dtype).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    config = ours.config
    shape = (config.in_channels, config.img_resolution, config.img_resolution)
    x = Philox(torch.arange(batch), shape, dtype=torch.float32).normal().to(device, dtype)
    c_noise = torch.linspace(-1.5, 1.0, batch, device=device, dtype=dtype)
    ways = {"ours": lambda: ours(x, c_noise), "plain": lambda: plain(reference, x, c_noise)}
    ratios: dict[str, list[float]] = {way: [] for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        first, second = ways["ours"](), ways["plain"]()  # and warms up
        difference = float((first - second).abs().max() / second.abs().max())
        turns = between(
            list(ways),
            lambda way: seconds(ways[way], device),
            lambda: seconds(ways["plain"], device),
            rounds,
        )
        for way, taken, base in turns:
            ratios[way].append(taken / base)
            times[way].append(1000 * taken)
    own, other = (f"{statistics.median(times[way]):.1f}" for way in ("ours", "plain"))
    both = [spread(ratios[way]) for way in ("ours", "plain")]
    return [name, str(batch), own, other, *both, f"{difference:.0e}"]


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick="ddpmpp and ncsnpp at batch 1")
    made.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; default: all"
    )
    made.add_argument("--batch", type=int, nargs="+", help="samples at a time: 1 and 4 (--quick: 1)")
    made.add_argument("--rounds", type=int, default=9, help="9")
    made.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    made.add_argument("--threads", type=int, default=1, help="of a CPU: 1")
    made.add_argument("--half", action="store_true", help="float16 weights and activations")
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    made = parser()
    arguments = made.parse_args()
    quick, device = arguments.quick, arguments.device
    networks = arguments.networks or (["ddpmpp", "ncsnpp"] if quick else list(NETWORKS))
    unknown = [name for name in networks if name not in NETWORKS]
    if unknown:
        made.error(f"no network {unknown[0]!r}: choose from {', '.join(NETWORKS)}")
    torch.set_num_threads(arguments.threads)
    rows = [
        measure(name, batch, arguments.rounds, device, arguments.half)
        for name in networks
        for batch in arguments.batch or ([1] if quick else [1, 4])
    ]
    header = ["network", "batch", "ms", "plain ms", "ours/plain", "plain/plain", "difference"]
    told = (
        f"`{command(made, arguments)}`: a forward pass between two of a plain form of the same network, "
        f"medians and ranges of {arguments.rounds} rounds, {machine(device)}, {arguments.threads} thread(s), "
        f"torch {torch.__version__}. Target: a ratio of at most 1. **Noise is what `plain/plain` shows**, "
        "the plain form measured against itself in the same way: a ratio of ours within its range is not "
        "told from 1."
    )
    section = "\n".join([HEADING, "", told, "", *markdown_table(header, rows)])
    publish(section, write=arguments.write, device=device)


if __name__ == "__main__":
    main()
