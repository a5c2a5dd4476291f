"""What sampling costs beside the network, and what each way of running the network gains and changes.

    python scripts/benchmarks/sampling.py                  # tables on the terminal; it says how long it takes
    python scripts/benchmarks/sampling.py --quick          # ... within five minutes on two cores
    python scripts/benchmarks/sampling.py --write          # ... and in results/benchmarks.md
    python scripts/benchmarks/sampling.py --device cuda

The network is CIFAR-10's DDPM++ of Karras et al. 2022 (55.7M parameters) with random weights; a cell's
sampling (`seedsbench.bench.sampling.generate`: start, noise, preconditioning, solver, checks) is compared
with its evaluations times a bare forward pass of the same batch, precision and layout. Every cell lies
between two measurements of the forward pass, and their mean is its measure; the order changes from round to
round. Medians and ranges are printed. In each table one line compares a thing with itself, in just the same
way: what it is off 1 is noise. What of the cost is ours is measured more finely with a network that does
nothing. On a CPU it is processor time on one thread that counts. The second table runs one solver in every
mode, between runs in strict fp32.

The batch is the fastest one a sample, found by trying, unless --batch is given. Modes that go through
torch.compile take minutes each before anything is measured; --quick leaves them out unless they are named.
"""

import argparse
import math
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

import seedsbench
from scripts.benchmarks.interleave import between, seconds, spread
from scripts.benchmarks.publish import command, foretell, machine, options, publish
from seedsbench.api import noise_levels
from seedsbench.bench.batching import fastest
from seedsbench.bench.cell import Cell
from seedsbench.bench.precision import tensor_cores, variant
from seedsbench.bench.sampling import SamplingPlan, generate
from seedsbench.denoisers.base import Denoiser, FixedBatch
from seedsbench.denoisers.networks.unet import SongUNet, SongUNetConfig
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, Preconditioned
from seedsbench.diffusion.grid import EDM
from seedsbench.diffusion.schedule import Linear
from seedsbench.report.table import markdown_table

SOLVERS = ("euler", "heun", "seeds1", "seeds3", "dpmpp_2m")
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "dtype=float32": {"dtype": "float32"},
    "fp32+compile": {"compile": True},
    "tf32": {"precision": "tf32"},
    "tf32+compile": {"precision": "tf32", "compile": True},
    "bf16": {"precision": "bf16"},
    "bf16+compile": {"precision": "bf16", "compile": True},
    "fp16": {"precision": "fp16"},
    "fp16+compile": {"precision": "fp16", "compile": True},
}
BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""What /proc/cpuinfo calls a CPU's units for products of bfloat16."""
MODE_SOLVER = "dpmpp_2m"
ITSELF = "(the network alone)"
HEADING = "## Cost of sampling"


@dataclass(frozen=True)
class Bench:
    """The denoiser, where it is, and how much of it is measured."""

    denoiser: Denoiser
    device: str
    batch: int
    nfe: int
    rounds: int

    def plan(self, name: str, mode: str = "fp32") -> SamplingPlan:
        """A cell's plan: the solver with as many steps as the budget buys."""
        solver = seedsbench.solver(name)
        sigmas, fitted = noise_levels(self.denoiser, Linear(), EDM(), solver.steps_for(self.nfe))
        return SamplingPlan(solver, fitted, sigmas, Cell(labels="none", samples=self.batch, **MODES[mode]))

    def cell(self, plan: SamplingPlan) -> tuple[float, int, Tensor]:
        """Seconds of one batch, evaluations of the network it took, and the samples."""
        found: list[Any] = []

        def draw() -> None:
            batches = generate(
                self.denoiser, plan, torch.arange(self.batch), batch_size=self.batch, device=self.device
            )
            found[:] = list(batches)

        taken = seconds(draw, self.device)
        return taken, int(found[0].nfe.max()), found[0].x

    def forward(self, plan: SamplingPlan, times: int = 0) -> float:
        """Seconds of a bare forward pass of the plan's network: the mean of so many, or of a measure's."""
        times, cell = times or max(1, self.nfe // 4), plan.cell
        run = variant(
            self.denoiser, self.device, precision=cell.precision, compiled=cell.compile, size=self.batch
        )
        inner: Any = run.denoiser if isinstance(run, FixedBatch) else run
        network = inner.network
        x = torch.zeros(self.batch, *self.denoiser.image_shape, device=self.device)
        c_noise = torch.zeros((), device=self.device)
        with torch.inference_mode(), tensor_cores(cell.precision == "tf32"):

            def passes() -> None:
                for _ in range(times):
                    network(x, c_noise, None)

            return seconds(passes, self.device) / times


class Nothing(nn.Module):
    """A network that returns its input."""

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return x


def ddpmpp(device: str) -> Preconditioned:
    """The network with random weights, preconditioned as EDM's, in the layout of files read from disk."""
    torch.manual_seed(0)
    network: Any = SongUNet(SongUNetConfig(32, 3, 3, channel_mult=(2, 2, 2), augment_dim=9))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    return Preconditioned(network, PRECONDITIONERS["edm"], img_channels=3, img_resolution=32)


def best_batch(denoiser: Preconditioned, device: str, most: int) -> int:
    """The batch of the fastest forward pass a sample."""
    bench = Bench(denoiser, device, batch=1, nfe=2, rounds=1)
    plan = bench.plan("euler")
    return fastest(lambda size: min(replace(bench, batch=size).forward(plan, 1) for _ in range(3)), most)


def bf16_units() -> list[str]:
    """This CPU's units for bfloat16, by their flags; none where nothing tells."""
    told = Path("/proc/cpuinfo")
    flags = told.read_text() if told.is_file() else ""
    return [flag for flag in BF16_FLAGS if flag in flags]


def default_modes(device: str, *, quick: bool, units: list[str]) -> list[str]:
    """All on a GPU; on a CPU those it can run, bf16 compiled only with units for it. Quick: none compiled."""
    names = list(MODES)
    if device == "cpu":
        names = ["fp32", "dtype=float32", "fp32+compile", "bf16"] + ["bf16+compile"] * bool(units)
    return [name for name in names if not (quick and "compile" in name)]


def overheads(bench: Bench) -> tuple[list[list[str]], str]:
    """Of each solver: evaluations, what a cell costs over them, our share in per cent; and the noise."""
    plans = {name: bench.plan(name) for name in SOLVERS}
    network = bench.plan("euler")
    idle = replace(bench, denoiser=bench.denoiser.with_network(lambda network: Nothing()))
    for plan in plans.values():
        idle.cell(plan)
    pass_ = min(bench.forward(network) for _ in range(2))
    foretell("solvers", bench.rounds * pass_ * (len(plans) + 1) * (bench.nfe + max(1, bench.nfe // 4)))

    def measure(name: str) -> tuple[int, float, float]:
        """Evaluations, seconds of the cell, and with a network that does nothing."""
        if name == ITSELF:
            return bench.nfe, bench.nfe * bench.forward(network, bench.nfe), math.nan
        taken, nfe, _ = bench.cell(plans[name])
        return nfe, taken, idle.cell(plans[name])[0]

    nfes: dict[str, int] = {}
    ratios: dict[str, list[float]] = {name: [] for name in (*SOLVERS, ITSELF)}
    ours: dict[str, list[float]] = {name: [] for name in (*SOLVERS, ITSELF)}
    for name, (nfe, taken, own), forward in between(
        list(ratios), measure, lambda: bench.forward(network), bench.rounds
    ):
        nfes[name] = nfe
        ratios[name].append(taken / (nfe * forward))
        ours[name].append(100 * own / (nfe * forward))
    shares = {name: f"{statistics.median(ours[name]):.2f} %" for name in SOLVERS} | {ITSELF: ""}
    lines = [[name, str(nfes[name]), spread(ratios[name]), shares[name]] for name in ratios]
    return lines, spread(ratios[ITSELF])


def modes(bench: Bench, names: list[str]) -> tuple[list[list[str]], str]:
    """Of each mode: speed over strict fp32, cost over its own forward pass, deviation; and the noise."""
    plans = {name: bench.plan(MODE_SOLVER, name) for name in dict.fromkeys(["fp32", *names])}
    strict = plans["fp32"]
    reference = bench.cell(strict)[2].double()
    deviations, cells = {}, {}
    for name, plan in plans.items():
        bench.cell(plan)  # and compiles
        cells[name], _, x = bench.cell(plan)
        bench.forward(plan)
        rms = float((x - reference).square().mean().sqrt() / reference.square().mean().sqrt())
        deviations[name] = [f"{rms:.1e}", f"{float((x - reference).abs().max() * 127.5):.2g}"]
    whole = 1.5 * sum(cells.values()) + (len(cells) + 1) * cells["fp32"]
    foretell("modes", bench.rounds * whole)

    def measure(name: str) -> tuple[float, float]:
        """Seconds of the mode's cell, and its cost over its own forward passes, before and after."""
        before = bench.forward(plans[name])
        taken, nfe, _ = bench.cell(plans[name])
        return taken, taken / nfe * 2 / (before + bench.forward(plans[name]))

    speeds: dict[str, list[float]] = {name: [] for name in plans}
    costs: dict[str, list[float]] = {name: [] for name in plans}
    for name, (taken, cost), plain in between(
        list(plans), measure, lambda: bench.cell(strict)[0], bench.rounds
    ):
        speeds[name].append(plain / taken)
        costs[name].append(cost)
    lines = [[name, spread(speeds[name]), spread(costs[name]), *deviations[name]] for name in plans]
    return lines, spread(speeds["fp32"])


def report(bench: Bench, names: list[str], ran: str, why: str) -> str:
    """The section of results/benchmarks.md. why: that batch."""
    where = machine(bench.device) + ", one thread" * (bench.device == "cpu")
    costs, noise = overheads(bench)
    solvers = markdown_table(["solver", "NFE", "cost", "ours"], costs)
    gains, itself = modes(bench, names)
    ways = markdown_table(["mode", "speed", "cost", "deviation", "grey levels"], gains)
    told = (
        f"`{ran}`: DDPM++ for CIFAR-10 (55.7M parameters, random weights), {bench.batch} sample(s) at a time "
        f"({why}), at most {bench.nfe} evaluations, {where}, torch {torch.__version__}; medians of "
        f"{bench.rounds} rounds and their range. Cost: of a cell's sampling, noise included, over its "
        "evaluations times a bare forward pass, the mean of just before and just after (target: 1.03 on a "
        "CPU, 1.05 on a GPU). Ours: the same cell with a network that does nothing, over the same. **Noise: "
        f"the network alone, measured like a cell, costs {noise} times itself;** a cost within that range of "
        "1 is not told from 1 by this column, and one below 1 is nothing but noise."
    )
    second = (
        f"Modes, {MODE_SOLVER}: speed over strict fp32, the mean of just before and just after; cost as "
        "above, of the mode's own forward pass; deviation of the samples from strict fp32's, rms over rms, "
        f"and the largest in grey levels of 255. **Noise: fp32 has {itself} times its own speed.**"
    )
    if bench.device == "cpu":
        units = " and ".join(bf16_units())
        second += f" This CPU has units for bf16 ({units})." if units else " This CPU has no units for bf16."
    return "\n".join([HEADING, "", told, "", *solvers, "", second, "", *ways, ""])


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = options(__file__, __doc__, quick="on a CPU one sample of 4 evaluations; 4 rounds; no compilation")
    told = f"beside fp32, of {', '.join(MODES)}; default: all that suit the device"
    made.add_argument("modes", nargs="*", metavar="MODE", help=told)
    made.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    made.add_argument("--batch", type=int, help="samples at a time; the fastest if not given")
    made.add_argument(
        "--nfe", type=int, help="evaluations at most: 10 on a CPU (--quick: 4, the least), 18 on a GPU"
    )
    made.add_argument("--rounds", type=int, help="of measuring: 8 (--quick: 4)")
    return made


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    made = parser()
    arguments = made.parse_args()
    unknown = [name for name in arguments.modes if name not in MODES]
    if unknown:
        made.error(f"no mode {unknown[0]!r}: choose from {', '.join(MODES)}")
    if arguments.nfe is not None and arguments.nfe < 4:
        made.error(f"--nfe {arguments.nfe}: seeds3 needs 4 at least")
    device, quick = arguments.device, arguments.quick
    on_cpu = device == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    names = arguments.modes or default_modes(device, quick=quick, units=bf16_units())
    network = ddpmpp(device)
    most = (1 if quick else 8) if on_cpu else 1024
    batch = arguments.batch or best_batch(network, device, most)
    denoiser = FixedBatch(network, batch) if on_cpu else network
    nfe = arguments.nfe or ((4 if quick else 10) if on_cpu else 18)
    rounds = arguments.rounds or (4 if quick else 8)
    bench = Bench(denoiser, device, batch, nfe, rounds)
    why = "as asked" if arguments.batch else f"the fastest a sample, of 1 to {most}"
    section = report(bench, names, command(made, arguments), why)
    publish(section, write=arguments.write, device=device)


if __name__ == "__main__":
    main()
