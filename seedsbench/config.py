"""The top level of the configuration: types, defaults and checks. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from seedsbench.checks import Range, check_options, nearest

NUMERICS_VERSION = 1
"""Bumped by hand when the same configuration legitimately gives other numbers; part of every run_key."""

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float64", "float32")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
LABELS = ("balanced", "random", "none")
BOOLEANS = ("afs", "compile", "published", "force", "offline", "plan", "dry_run", "debug")
OF_CELLS = {"splits": Annotated[int, Range(1, 1000)], "floor_sets": Annotated[int, Range(1, 1000)]}
"""Options of the metrics group that say how a cell is scored, whatever the yardstick."""


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
