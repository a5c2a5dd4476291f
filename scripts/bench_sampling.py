"""What sampling costs beside the network, and what each way of running the network gains and changes.

    python scripts/bench_sampling.py                  # tables on the terminal
    python scripts/bench_sampling.py --quick          # ... within five minutes on two cores
    python scripts/bench_sampling.py --write          # ... and in results/benchmarks.md
    python scripts/bench_sampling.py --device cuda

The network is CIFAR-10's DDPM++ of Karras et al. 2022 (55.7M parameters) with random weights; a cell's
sampling (`seedsbench.bench.sampling.generate`: start, noise, preconditioning, solver, checks) is compared
with its evaluations times a bare forward pass of the same batch, precision and layout. Forward passes before
and after each cell are its measure, round after round, and medians are reported: ratios within one run hold
on a busy machine too. What of the cost is ours is measured more finely with a network that does nothing. On
a CPU it is processor time on one thread that counts. The second table runs one
solver in every mode, in turn with strict fp32.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from sections import publish
from torch import Tensor, nn
from tqdm import tqdm

import seedsbench
from seedsbench.api import noise_levels
from seedsbench.bench.batching import fastest
from seedsbench.bench.precision import tensor_cores, variant
from seedsbench.bench.sampling import Plan, generate
from seedsbench.denoisers.base import Denoiser, FixedBatch
from seedsbench.denoisers.networks.song_unet import SongUNet, SongUNetConfig
from seedsbench.denoisers.precond import PRECONDITIONERS
from seedsbench.denoisers.preconditioned import Preconditioned
from seedsbench.diffusion.grid import EDM
from seedsbench.diffusion.schedule import Linear
from seedsbench.report.table import markdown_table

SOLVERS = ("euler", "heun", "seeds1", "seeds3", "dpmpp_2m")
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "dtype=float32": {"dtype": torch.float32},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "compile": {"compile": True},
    "tf32 compile": {"precision": "tf32", "compile": True},
    "bf16 compile": {"precision": "bf16", "compile": True},
    "fp16 compile": {"precision": "fp16", "compile": True},
}
ON_CPU = ("fp32", "dtype=float32", "bf16", "compile")
MODE_SOLVER = "dpmpp_2m"
HEADING = "## Cost of sampling"


@dataclass(frozen=True)
class Bench:
    """The denoiser, where it is, and how much of it is measured."""

    denoiser: Denoiser
    device: str
    batch: int
    nfe: int
    rounds: int

    def plan(self, name: str, mode: str = "fp32") -> Plan:
        """A cell's plan: the solver with as many steps as the budget buys."""
        solver = seedsbench.solver(name)
        sigmas, fitted = noise_levels(self.denoiser, Linear(), EDM(), solver.steps_for(self.nfe))
        return replace(Plan(solver, fitted, sigmas, labels="none"), **MODES[mode])

    def cell(self, plan: Plan) -> tuple[float, int, Tensor]:
        """Seconds of one batch, evaluations of the network it took, and the samples."""
        found: list[Any] = []

        def draw() -> None:
            batches = generate(
                self.denoiser, plan, torch.arange(self.batch), batch_size=self.batch, device=self.device
            )
            found[:] = list(batches)

        seconds = timed(draw, self.device)
        return seconds, int(found[0].nfe.max()), found[0].x

    def forward(self, plan: Plan) -> float:
        """Seconds of a bare forward pass of the plan's network."""
        run = variant(
            self.denoiser, self.device, precision=plan.precision, compiled=plan.compile, size=self.batch
        )
        inner: Any = run.denoiser if isinstance(run, FixedBatch) else run
        network = inner.network
        x = torch.zeros(self.batch, *self.denoiser.image_shape, device=self.device)
        c_noise = torch.zeros((), device=self.device)
        with torch.inference_mode(), tensor_cores(plan.precision == "tf32"):
            return timed(lambda: network(x, c_noise, None), self.device)


class Nothing(nn.Module):
    """A network that returns its input."""

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return x


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds of a call: of this process on a CPU, until the device is done elsewhere."""
    if device == "cpu":
        started = time.process_time()
        call()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - started


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
    return fastest(lambda size: min(replace(bench, batch=size).forward(plan) for _ in range(3)), most)


def overheads(bench: Bench) -> list[list[str]]:
    """Of each solver: evaluations, what a cell costs over them, and our share in per cent of them."""
    plans = {name: bench.plan(name) for name in SOLVERS}
    ratios: dict[str, list[float]] = {name: [] for name in SOLVERS}
    ours: dict[str, list[float]] = {name: [] for name in SOLVERS}
    nfes: dict[str, int] = {}
    idle = replace(bench, denoiser=bench.denoiser.with_network(lambda network: Nothing()))
    idle.cell(plans["euler"])
    bench.forward(plans["euler"])
    for _ in tqdm(range(bench.rounds), unit="round", disable=None):
        before = bench.forward(plans["euler"])
        for name, plan in plans.items():
            seconds, nfes[name], _ = bench.cell(plan)
            after = bench.forward(plan)
            evaluations = nfes[name] * (before + after) / 2
            ratios[name].append(seconds / evaluations)
            ours[name].append(100 * idle.cell(plan)[0] / evaluations)
            before = after
    return [
        [name, str(nfes[name]), spread(ratios[name]), f"{statistics.median(ours[name]):.2f} %"]
        for name in SOLVERS
    ]


def modes(bench: Bench, names: list[str]) -> list[list[str]]:
    """Of each mode: speed over strict fp32, cost over its own forward pass, deviation of the samples."""
    strict, lines = bench.plan(MODE_SOLVER), []
    reference = bench.cell(strict)[2].double()
    for name in tqdm(names, unit="mode", disable=None):
        plan = bench.plan(MODE_SOLVER, name)
        x = bench.cell(plan)[2].double()  # and compiles
        speeds, costs = [], []
        for _ in range(bench.rounds):
            plain, own, forward = bench.cell(strict)[0], bench.cell(plan), bench.forward(plan)
            speeds.append(plain / own[0])
            costs.append(own[0] / own[1] / forward)
        rms = float((x - reference).square().mean().sqrt() / reference.square().mean().sqrt())
        most = float((x - reference).abs().max() * 127.5)
        lines.append([name, spread(speeds), spread(costs), f"{rms:.1e}", f"{most:.2g}"])
    return lines


def spread(values: list[float]) -> str:
    """Median and, in brackets, the ends."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def report(bench: Bench, names: list[str], command: str) -> str:
    """The section of results/benchmarks.md."""
    where = torch.cuda.get_device_name() if bench.device != "cpu" else f"{platform.machine()}, one thread"
    told = (
        f"`{command}`: DDPM++ for CIFAR-10 (55.7M parameters, random weights), {bench.batch} samples at a "
        f"time, at most {bench.nfe} evaluations, {where}, torch {torch.__version__}; medians of "
        f"{bench.rounds} rounds and their range. Cost: of a cell's sampling, noise included, over its "
        "evaluations times a bare forward pass (target: 1.03 on a CPU, 1.05 on a GPU). Ours: the same cell "
        "with a network that does nothing, over the same."
    )
    second = (
        f"Modes, {MODE_SOLVER}: speed over strict fp32 in turn with it; cost as above, of the mode's own "
        "forward pass; deviation of the samples from strict fp32's, rms over rms, and the largest in grey "
        "levels of 255."
    )
    solvers = markdown_table(["solver", "NFE", "cost", "ours"], overheads(bench))
    ways = markdown_table(["mode", "speed", "cost", "deviation", "grey levels"], modes(bench, names))
    return "\n".join([HEADING, "", told, "", *solvers, "", second, "", *ways, ""])


def main() -> None:
    """Measure and print; with --write put the section into results/benchmarks.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modes", nargs="*", help=f"of {', '.join(MODES)}; all, if none is given")
    parser.add_argument("--quick", action="store_true", help="small batches and few rounds; no compilation")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=None, help="samples at a time; the fastest if not given")
    parser.add_argument("--nfe", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--write", action="store_true", help="write results/benchmarks.md")
    arguments = parser.parse_args()
    on_cpu = arguments.device == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    names = arguments.modes or list(ON_CPU if on_cpu else MODES)
    if arguments.quick and not arguments.modes:
        names = [name for name in names if "compile" not in name]
    network = ddpmpp(arguments.device)
    most = (1 if arguments.quick else 8) if on_cpu else 1024
    batch = arguments.batch or best_batch(network, arguments.device, most)
    denoiser = FixedBatch(network, batch) if on_cpu else network
    nfe = arguments.nfe or (4 if arguments.quick and on_cpu else 18)
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    command = " ".join(["python", f"scripts/{Path(__file__).name}", *sys.argv[1:]])
    section = report(Bench(denoiser, arguments.device, batch, nfe, rounds), names, command)
    publish(section, write=arguments.write)


if __name__ == "__main__":
    main()
