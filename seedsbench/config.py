"""The top level of the configuration: types, defaults and checks. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from seedsbench.checks import NO_NETWORK, nearest

NUMERICS_VERSION = 1
"""Bumped by hand when the same configuration legitimately gives other numbers; part of every run_key."""

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float64", "float32")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
LABELS = ("balanced", "random", "none")
FORMULAS = ("mixture_problem", "finite_glyphs_problem")
"""Builders of `seedsbench.bench.problems` whose models are formulas."""


@dataclass
class Config:
    """Schema of `conf/config.yaml`; Hydra checks names and types of overrides against it.

    Groups (model, regime, schedule, grid, solver, metrics, tracker) are checked by the classes they
    name, so that no central schema grows with each solver.
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
    afs: bool = False
    batch_size: Any = 256
    device: str = "auto"
    dtype: str = "float64"
    precision: str = "fp32"
    compile: bool = False
    seeding: str = "philox"
    study: str = "${oc.env:SEEDSBENCH_STUDY}"
    results_dir: str = "results"
    published: bool = False
    force: bool = False
    offline: bool = False
    plan: bool = False
    dry_run: bool = False
    debug: bool = False
    save_every: float = 60.0
    choices: Any = field(default_factory=dict)


def check_config(cfg: Any) -> None:
    """Raise ValueError, in one line, for a value that no cell could run with.

    A budget too small for a solver is no such value: it makes a row that says so.
    """
    if cfg.samples < 2:
        raise ValueError(f"samples={cfg.samples}: a covariance needs at least 2 samples")
    if cfg.samples > 2**32:
        raise ValueError(f"samples={cfg.samples}: the noise is numbered for at most 2**32 samples")
    if cfg.batch_size != "auto" and (type(cfg.batch_size) is not int or cfg.batch_size < 1):
        raise ValueError(f"batch_size={cfg.batch_size} must be at least 1, or auto")
    if not cfg.save_every >= 0:
        raise ValueError(f"save_every={cfg.save_every} must be a number of seconds from 0 up, or .inf")
    if cfg.repeats < 1:
        raise ValueError(f"repeats={cfg.repeats} must be at least 1")
    if not 0 <= cfg.seed <= 2**64 - cfg.repeats:
        raise ValueError(f"seed={cfg.seed} must lie in [0, 2**64), and so must seed + repeats - 1")
    _one_of("final", cfg.final, ("denoise", "euler", "stop"))
    _one_of("dtype", cfg.dtype, DTYPES)
    _one_of("precision", cfg.precision, PRECISIONS)
    _one_of("seeding", cfg.seeding, ("philox", "edm"))
    _one_of("device", str(cfg.device).split(":")[0], DEVICES)
    if isinstance(cfg.labels, bool) or not isinstance(cfg.labels, int):
        _one_of("labels", "none" if cfg.labels is None else str(cfg.labels), LABELS, " or a class number")
    for key, value in cfg.metrics.items():
        if key in ("splits", "floor_sets") and (type(value) is not int or value < 1):
            raise ValueError(f"metrics.{key}={value} must be an integer of at least 1")
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
    formula = module == "seedsbench.bench.problems" and name in FORMULAS
    if formula and (cfg.precision != "fp32" or cfg.compile):
        raise ValueError(f"model={cfg.hydra.runtime.choices.model} {NO_NETWORK}")


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError where no device of this kind ("cpu", "cuda", "cuda:1") has this precision."""
    if precision in ("tf32", "fp16") and not device.startswith("cuda"):
        raise ValueError(f"precision={precision} needs device=cuda: on {device} use fp32 or bf16")
