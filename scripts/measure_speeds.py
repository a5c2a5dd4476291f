"""What the embedded models cost in products of matrices: seedsbench/assets/speeds.json, for plan=true.

    python scripts/measure_speeds.py             # print
    python scripts/measure_speeds.py --write     # ... and replace the file

A cell's network, features and real images are timed in turn with `bench.probe`'s product, and the ratios
kept (the median of the rounds); another machine multiplies them by its own product. They hold for `heun` at
default settings. Needs a quiet machine: numpy and torch suffer differently from other programs.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from omegaconf import DictConfig

from seedsbench import registry
from seedsbench.bench.estimate import SPEEDS
from seedsbench.bench.identity import identity_of
from seedsbench.bench.measure import forget, measured
from seedsbench.bench.probe import probe
from seedsbench.composing import compose, composing


def embedded() -> dict[tuple[str, str], DictConfig]:
    """A cell of each (model, regime) that needs no files from elsewhere."""
    found = {}
    for model, regime in itertools.product(registry.names("model"), registry.names("regime")):
        cell = [f"model={model}", f"regime={regime}", "solver=heun", "device=cpu", "study=none"]
        found[model, regime] = compose(cell)
    return {key: cfg for key, cfg in found.items() if identity_of(cfg) is not None}


def relative(cfg: DictConfig) -> list[float]:
    """What a cell takes, (evaluation, features, real image), in products of this moment."""
    forget()
    before = probe()
    seconds = measured(cfg)
    product = (before + probe()) / 2
    return [value / product for value in seconds]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, in turn (5)")
    parser.add_argument("--write", action="store_true", help="replace the file that plan=true reads")
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    with composing([]):
        for (model, regime), cfg in embedded().items():
            ratios = [relative(cfg) for _ in range(arguments.rounds)]
            medians = [float(f"{statistics.median(column):.3g}") for column in zip(*ratios, strict=True)]
            found.setdefault(model, {})[regime] = medians
            print(f"{model:18} {regime:6}" + "".join(f"{value:10.4g}" for value in medians), flush=True)
    if arguments.write:
        SPEEDS.write_text(json.dumps(found, indent=1) + "\n")
        made_on = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        print(f"written, from {made_on}")


if __name__ == "__main__":
    main()
