"""The top level of the configuration: types, defaults and checks. Imports no torch."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from omegaconf import MISSING, OmegaConf

from seedsbench.checks import NO_NETWORK, Range, check_options, nearest

NUMERICS_VERSION = 1
"""Bumped by hand when the same configuration legitimately gives other numbers; part of every run_key."""

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float64", "float32")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
LABELS = ("balanced", "random", "none")
FORMULAS = ("mixture_problem", "finite_glyphs_problem")
"""Builders of `seedsbench.bench.problems.base` whose models are formulas."""
BOOLEANS = ("afs", "compile", "published", "force", "offline", "plan", "dry_run", "debug")
OF_CELLS = {"splits": Annotated[int, Range(1, 1000)], "floor_sets": Annotated[int, Range(1, 1000)]}
"""Options of the metrics group that say how a cell is scored, whatever the yardstick."""
MOST_NFE = MOST_REPEATS = 10**6

# For conf/config.yaml, where Hydra makes folders.
OmegaConf.register_new_resolver("expanduser", os.path.expanduser, replace=True)


@dataclass
class Config:
    """Schema of `conf/config.yaml`; Hydra checks names and types of overrides against it.

    Groups (model, regime, schedule, grid, solver, metrics, tracker) are checked by the classes they
    name, so that no central schema grows with each solver. Where a type would turn one value into another
    (bool takes -5 for true), `check_config` looks at what was given.
    """

    model: Any = MISSING
    regime: Any = MISSING
    schedule: Any = MISSING
    grid: Any = MISSING
    solver: Any = MISSING
    metrics: Any = MISSING
    tracker: Any = MISSING
    nfe: int = 20
    samples: int = 2000
    seed: int = 0
    repeats: int = 1
    labels: Any = "balanced"
    final: str = "denoise"
    afs: Any = False
    batch_size: Any = 256
    device: str = "auto"
    dtype: str = "float64"
    precision: str = "fp32"
    compile: Any = False
    seeding: str = "philox"
    study: str = "${oc.env:SEEDSBENCH_STUDY}"
    results_dir: str = "results"
    published: Any = False
    force: Any = False
    offline: Any = False
    plan: Any = False
    dry_run: Any = False
    debug: Any = False
    save_every: float = 60.0
    choices: Any = field(default_factory=dict)


def study_folder(cfg: Any) -> Path:
    """`<results_dir>/<study>`, where ~ is the user's home."""
    return Path(os.path.expanduser(cfg.results_dir)) / cfg.study


def check_config(cfg: Any) -> None:
    """Raise ValueError, in one line, for a value that no cell could run with.

    A budget of at least 1 that is too small for a solver is no such value: it makes a row that says so.
    """
    if not 1 <= cfg.nfe <= MOST_NFE:
        raise ValueError(f"nfe={cfg.nfe} must lie in [1, {MOST_NFE}]: network evaluations for one sample")
    if cfg.samples < 2:
        raise ValueError(f"samples={cfg.samples}: a covariance needs at least 2 samples")
    if cfg.samples > 2**32:
        raise ValueError(f"samples={cfg.samples}: the noise is numbered for at most 2**32 samples")
    size = cfg.batch_size
    if size != "auto" and (type(size) is not int or not 1 <= size <= 2**32):
        raise ValueError(f"batch_size={size} must be at least 1, or auto, and at most 2**32")
    if not cfg.save_every >= 0:
        raise ValueError(f"save_every={cfg.save_every} must be a number of seconds from 0 up, or .inf")
    if not 1 <= cfg.repeats <= MOST_REPEATS:
        raise ValueError(f"repeats={cfg.repeats} must be at least 1, and at most {MOST_REPEATS}")
    if not 0 <= cfg.seed <= 2**64 - cfg.repeats:
        raise ValueError(f"seed={cfg.seed} must lie in [0, 2**64), and so must seed + repeats - 1")
    _one_of("final", cfg.final, ("denoise", "euler", "stop"))
    _one_of("dtype", cfg.dtype, DTYPES)
    _one_of("precision", cfg.precision, PRECISIONS)
    _one_of("seeding", cfg.seeding, ("philox", "edm"))
    _one_of("device", str(cfg.device).split(":")[0], DEVICES)
    if isinstance(cfg.labels, bool) or not isinstance(cfg.labels, int):
        _one_of("labels", "none" if cfg.labels is None else str(cfg.labels), LABELS, " or a class number")
    check_options("metrics", OF_CELLS, cfg.metrics)
    for key in BOOLEANS:
        if type(cfg[key]) is not bool:
            raise ValueError(f"{key}={cfg[key]} must be true or false")
    if not str(cfg.results_dir).strip():
        raise ValueError("results_dir is empty: give a folder, as results_dir=results")
    if not str(cfg.study).strip() or "/" in str(cfg.study) or str(cfg.study) in (".", ".."):
        raise ValueError(f"study={cfg.study!r} must be one folder name, without '/'")


def _one_of(key: str, value: str, options: tuple[str, ...], more: str = "") -> None:
    if value not in options:
        hint = nearest(value, options, what=key)
        raise ValueError(f"{key}={value!r}: {hint} (one of {', '.join(options)}{more})")


def check_network(cfg: Any) -> None:
    """Raise ValueError where a cell's network is to run another way, and its model has none."""
    module, _, name = str(cfg.model.get("_target_")).rpartition(".")
    formula = module == "seedsbench.bench.problems.base" and name in FORMULAS
    if formula and (cfg.precision != "fp32" or cfg.compile):
        raise ValueError(f"model={cfg.hydra.runtime.choices.model} {NO_NETWORK}")


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError where no device of this kind ("cpu", "cuda", "cuda:1") has this precision."""
    if precision in ("tf32", "fp16") and not device.startswith("cuda"):
        raise ValueError(f"precision={precision} needs device=cuda: on {device} use fp32 or bf16")
