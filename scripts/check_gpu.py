"""Does what runs on CUDA keep its promises? Answered on one card in at most eight minutes, with verdicts.

    python scripts/check_gpu.py                          # a Markdown section on the terminal
    python scripts/check_gpu.py --write                  # ... and in results/benchmarks.md
    python scripts/check_gpu.py --minutes 4              # what does not fit is said to be left out
    python scripts/check_gpu.py --device cpu             # what of it a CPU can check, as without a GPU

Needs torch and the other dependencies; seedsbench itself need not be installed. Each part is a process of its
own with its share of the time, and what one leaves over goes to the next; a part that fails stops no other.
Exit code 1 if a verdict is FAILED.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from scripts.benchmarks.publish import publish
from seedsbench.report.table import markdown_table

ROOT = Path(__file__).resolve().parents[1]
GREY_LEVEL = 1 / 127.5
"""One of 255, of values in [-1, 1]."""


class Found(NamedTuple):
    """What a part found: lines of Markdown, and verdicts."""

    lines: list[str]
    verdicts: list[str]


def verdict(good: bool, said: str) -> str:
    """The line of a verdict."""
    return f"{'ok' if good else 'FAILED'}: {said}"


def memory(device: str) -> Found:
    """A batch that does not fit is halved until it does, under a real limit, and gives the same samples."""
    from scripts.benchmarks.sampling import Bench, ddpmpp, generate

    bench = Bench(ddpmpp(device), device, batch=1, nfe=3, rounds=1)
    plan, indices = bench.plan("heun"), torch.arange(1024)
    (few,) = generate(bench.denoiser, plan, indices[:16], batch_size=16, device=device)
    torch.cuda.set_per_process_memory_fraction(2e9 / torch.cuda.get_device_properties(device).total_memory)
    batches = list(generate(bench.denoiser, plan, indices, batch_size=len(indices), device=device))
    whole = len(batches) > 1 and torch.equal(torch.cat([batch.indices for batch in batches]), indices)
    off = float((batches[0].x[:16] - few.x).abs().max())
    sizes = f"{len(indices)} samples at a time, in 2 GB, became {len(batches[0].indices)}"
    full = verdict(whole, f"out of memory: {sizes}, and none is missing")
    near = verdict(
        off < GREY_LEVEL, f"out of memory: values differ from a small batch's by at most {off:.1e}"
    )
    return Found([], [full, near])


def images(device: str) -> Found:
    """The same noise, and the same samples but for the rounding of kernels, as on the CPU."""
    import seedsbench
    from seedsbench.denoisers.embedded import load_glyphs
    from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS

    samples, nfe = (8, 5) if device == "cpu" else (32, 20)
    indices, shape, lines, worst = torch.arange(samples), (3, 16, 16), [], 0.0
    torch.backends.cudnn.allow_tf32 = False  # as the benchmark runs precision=fp32
    start = seedsbench.noise.latents(indices, shape, seed=0)
    there = seedsbench.noise.latents(indices, shape, seed=0, device=device)
    noise = float(((there.cpu() - start).abs() / start.abs()).max())
    for regime in GLYPH_UNETS:
        for solver in ("heun", "seeds3"):
            ways = ((load_glyphs(regime), start), (load_glyphs(regime, device), there))
            first, second = (seedsbench.sample(d, z, solver=solver, nfe=nfe).x.cpu() for d, z in ways)
            rms, most = float((second - first).square().mean().sqrt()), float((second - first).abs().max())
            worst = max(worst, most)
            lines.append([regime, solver, f"{rms / GREY_LEVEL:.1e}", f"{most / GREY_LEVEL:.1e}"])
    header = ["regime", "solver", "rms, grey levels of 255", "largest"]
    levels = f"{worst / GREY_LEVEL:.2g} grey levels of 255"
    same = verdict(noise < 1e-15, f"noise: differs from the CPU's by at most {noise:.1e} of itself")
    near = verdict(worst < GREY_LEVEL, f"images: values differ from the CPU's by at most {levels}")
    return Found(markdown_table(header, lines), [same, near])


def sweep(device: str) -> Found:
    """The embedded sweep on the CPU and on the device: FIDs differ by less than those of two seeds do."""
    quick, whole = ["solver=heun", "nfe=5", "samples=32"], ["solver=seeds1,seeds3,heun", "nfe=10,20"]
    choices = quick if device == "cpu" else [*whole, "samples=1000"]
    fids: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        for study, where in (("cpu", "cpu"), ("device", device)):
            place = [f"device={where}", f"study={study}", f"results_dir={folder}"]
            python("-m", "seedsbench", "-m", "seed=0,1,2", *choices, *place)
            for path in sorted(Path(folder).glob(f"{study}/rows/*.json")):  # by key, which no device changes
                row = json.loads(path.read_text())
                fids[row["solver"], row["nfe_budget"]].setdefault(study, []).append(row["fid"])
    return compared(fids)


def compared(fids: dict[tuple[str, int], dict[str, list[float]]]) -> Found:
    """FIDs by (solver, budget), of the studies "cpu" and "device" and a number of seeds each in one order."""
    lines, missed = [], []
    for (solver, nfe), found in sorted(fids.items()):
        apart = max(abs(one - two) for one, two in zip(found["cpu"], found["device"], strict=True))
        error = statistics.stdev(found["cpu"])
        means = [f"{statistics.mean(found[study]):.4f}" for study in ("cpu", "device")]
        lines.append([solver, str(nfe), *means, f"{apart:.1e}", f"{error:.4f}"])
        if not apart <= error:
            missed.append(f"{solver} at {nfe}")
    header = ["solver", "NFE", "FID, CPU", "FID, device", "largest difference", "error (of seeds)"]
    said = "sweep: FIDs of the CPU and the device differ by less than their error"
    said += f", but not {', '.join(missed)}" if missed else ""
    return Found(markdown_table(header, lines), [verdict(bool(lines) and not missed, said)])


def tests(device: str) -> Found:
    """The tests marked gpu; on a CPU, whether they can be collected."""
    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()]
    words = ["--collect-only"] if device == "cpu" else ["-rfEs"]
    told = python("-m", "pytest", *sorted(files), "-m", "gpu", "-p", "no:cacheprovider", *words, check=False)
    (*_, last) = [line.strip("= ") for line in told.splitlines() if " in " in line] or ["nothing ran"]
    good = re.match(r"\d+(/\d+ tests collected| passed)", last) and "skipped" not in last
    if not good:
        print(told, file=sys.stderr)
    return Found([], [verdict(bool(good), f"tests marked gpu: {last}")])


def cost(device: str) -> Found:
    """What sampling costs over the bare network, and each way of running that, by its benchmark."""
    words = ["tf32", "bf16", "bf16+compile", "--device", device, "--batch", "64", "--rounds", "3"]
    section = python("scripts/benchmarks/sampling.py", *words)
    costs = column(section, "solver", "cost")
    noise = costs.pop("(the network alone)")
    worst, bound = max(costs, key=lambda solver: costs[solver]), 1.05 * max(1, noise)
    said = (
        f"cost: {costs[worst]:.3f} times the bare network at most, {worst} (target 1.05, noise {noise:.3f})"
    )
    return Found(section.splitlines()[2:], [verdict(costs[worst] <= bound, said)])


def edm(device: str) -> Found:
    """From latents to FID beside the way EDM's scripts work, by its benchmark."""
    words = ["--device", device, "--samples", "512", "--steps", "18", "--batch", "256", "--rounds", "1"]
    section = python("scripts/benchmarks/vs_edm.py", *words, "--modes", "tf32", "bf16", "bf16+compile")
    ratios = column(section, "way", "ratio")
    told = ", ".join(f"{way} {ratio:g}" for way, ratio in ratios.items() if way != "today's way")
    said = f"latents to FID: times as fast as EDM's way: {told} (strict fp32 must be no slower)"
    return Found(section.splitlines()[2:], [verdict(ratios["fp32"] >= 1, said)])


def column(section: str, first: str, name: str) -> dict[str, float]:
    """Row -> number of one column, in the Markdown table whose first column is called `first`."""
    table = section[section.index(f"| {first} ") :].split("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: float(row[header.index(name)].split()[0]) for row in rows}


def python(*words: str, check: bool = True) -> str:
    """Run python and return what it prints; its progress goes to the terminal. RuntimeError if it fails."""
    print(f"  python {' '.join(words)}", file=sys.stderr, flush=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words[:2])} ended with {done.returncode}: {done.stdout[-300:]}")
    return done.stdout


# In the order in which they run: the part, its share of the time, whether a CPU can do it in seconds.
PARTS = {
    "memory": (memory, 0.06, False),
    "images": (images, 0.08, True),
    "sweep": (sweep, 0.16, True),
    "tests": (tests, 0.30, True),
    "cost": (cost, 0.18, False),
    "edm": (edm, 0.22, False),
}


def run_part(name: str, device: str, seconds: float) -> Found:
    """A part in a process group of its own, ended when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = [sys.executable, __file__, "--part", name, "--device", device, "--out", str(out)]
        process = subprocess.Popen(words, stdout=sys.stderr, start_new_session=True)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Found([], [f"{name}: left out, not done in the {seconds:.0f} s that were left for it"])
        if not out.is_file():
            return Found([], [verdict(False, f"{name}: exit code {code}, see above")])
        return Found(*json.loads(out.read_text()))


def check(names: list[str], device: str, minutes: float) -> tuple[list[str], list[str]]:
    """Markdown and the verdicts of these parts."""
    lines, verdicts, end = [], [], time.monotonic() + 60 * minutes
    if device == "cpu":
        verdicts = [f"{name}: left out, needs a GPU" for name in names if not PARTS[name][2]]
        names = [name for name in names if PARTS[name][2]]
    for i, name in enumerate(names):
        share = PARTS[name][1] / sum(PARTS[other][1] for other in names[i:])
        seconds = share * (end - time.monotonic())
        print(f"{name} on {device}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
        found = run_part(name, device, seconds)
        lines += ["", *found.lines] if found.lines else []
        verdicts += found.verdicts
    return lines, verdicts


def main() -> None:
    """Run the parts, print the section and the verdicts; with --write put them into results/benchmarks.md."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", help="cuda where there is a GPU, else cpu")
    made.add_argument("--minutes", type=float, default=8, help="for all of it: 8")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="all, in this order")
    made.add_argument("--write", action="store_true", help="put the section into results/benchmarks.md")
    made.add_argument("--part", help=argparse.SUPPRESS)
    made.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = made.parse_args()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.part:
        arguments.out.write_text(json.dumps(PARTS[arguments.part][0](device)))
        return
    card = "no GPU, what a CPU can check" if device == "cpu" else torch.cuda.get_device_name(device)
    lines, verdicts = check(arguments.parts, device, arguments.minutes)
    told = f"`python scripts/check_gpu.py`, torch {torch.__version__}; images and sweep: the embedded models."
    section = [f"## Checked on {card}", "", told, *lines, "", *(f"- {line}" for line in verdicts)]
    publish("\n".join(section), write=arguments.write)
    raise SystemExit(any(line.startswith("FAILED") for line in verdicts))


if __name__ == "__main__":
    main()
