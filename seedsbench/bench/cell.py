"""A cell: everything that a row is asked for with, typed. It is the schema of `conf/config.yaml` too."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import MISSING

from seedsbench.checks import NO_NETWORK, Range, check_options, nearest

NUMERICS_VERSION = 2
"""Bumped by hand when the same configuration legitimately gives other numbers; part of every run_key."""

CELL_OPTIONS: dict[str, Any] = {
    "splits": Annotated[int, Range(1, 1000)],
    "floor_sets": Annotated[int, Range(1, 1000)],
    "extrapolate": bool,
}
"""Options of the metrics group that say how a cell is scored, whatever the extractor."""
MAX_NFE = 10**6
MAX_REPEATS = 10**4

_ALLOWED = {
    "final": ("denoise", "euler", "stop"),
    "dtype": ("float64", "float32"),
    "precision": ("fp32", "tf32", "bf16", "fp16"),
    "seeding": ("philox", "edm"),
}
DEVICES = ("auto", "cpu", "cuda")
LABELS = ("balanced", "random", "none")
FLAGS = ("afs", "compile", "keep_statistics", "published", "force", "offline", "plan", "dry_run", "debug")
MOST_SAMPLES = 2**32

Options = dict[str, Any]
"""A group's file: `_target_` and its options."""

if TYPE_CHECKING:
    from seedsbench.solvers.base import Final

    Flag = bool
    Labels = str | int
    BatchSize = int | str
    Number = int | str
else:  # Hydra would convert what it knows the type of, as -5 to true: Cell.check sees what was given
    Flag = Labels = BatchSize = Number = Any
    Final = str


@dataclass(frozen=True)
class Regime:
    """Which of a model's networks is sampled; the file of that name also chooses a schedule and a grid."""

    name: str = MISSING


@dataclass(frozen=True)
class Cell:
    """One row, or `repeats` of them with consecutive seeds. `conf/config.yaml` says what each key means.

    Groups (model, regime, schedule, grid, solver, guidance, metrics, tracker) are checked by the classes they
    name, so that no central schema grows with each solver. choices: the name of the file chosen in each.
    varied: the words of its command that differ between the command's cells, for titles alone.
    """

    model: Options = MISSING
    regime: Regime = field(default_factory=Regime)
    schedule: Options = MISSING
    grid: Options = MISSING
    solver: Options = MISSING
    guidance: Options = MISSING
    metrics: Options = MISSING
    tracker: Options = MISSING
    nfe: int = 20
    samples: int = 2000
    seed: int = 0
    repeats: int = 1
    labels: Labels = "balanced"
    final: Final = "denoise"
    afs: Flag = False
    batch_size: BatchSize = 256
    device: str = "auto"
    dtype: str = "float64"
    precision: str = "fp32"
    compile: Flag = False
    seeding: str = "philox"
    study: str | None = None
    results_dir: str = "results"
    keep_statistics: Flag = False
    keep_samples: Number = 0
    published: Flag = False
    force: Flag = False
    offline: Flag = False
    plan: Flag = False
    dry_run: Flag = False
    debug: Flag = False
    save_every: float = 60.0
    log_progress: float = 60.0
    choices: dict[str, str] = field(default_factory=dict)
    varied: list[str] = field(default_factory=list)

    @property
    def study_folder(self) -> Path:
        """`<results_dir>/<study>`, where ~ is the user's home."""
        assert self.study is not None
        return Path(os.path.expanduser(self.results_dir)) / self.study

    @property
    def kept_samples(self) -> int:
        """How many of its samples are left as images: the first so many."""
        kept = self.keep_samples
        return self.samples if isinstance(kept, str) else min(kept, self.samples)

    def check(self) -> None:
        """Raise ValueError, in one line, for a value that no cell could run with.

        A budget of at least 1 that is too small for a solver is no such value: it makes a row that says so.
        """
        if not 1 <= self.nfe <= MAX_NFE:
            raise ValueError(f"nfe={self.nfe} must lie in [1, {MAX_NFE}]: network evaluations for one sample")
        if self.samples < 2:
            raise ValueError(f"samples={self.samples}: a covariance needs at least 2 samples")
        if self.samples > MOST_SAMPLES:
            raise ValueError(f"samples={self.samples}: the noise is numbered for at most 2**32 samples")
        size = self.batch_size
        if size != "auto" and (type(size) is not int or not 1 <= size <= 2**32):
            raise ValueError(f"batch_size={size} must be at least 1, or auto, and at most 2**32")
        kept = self.keep_samples
        if kept != "all" and (type(kept) is not int or not 0 <= kept <= MOST_SAMPLES):
            raise ValueError(f"keep_samples={kept} must be a number of images from 0 up, or all")
        if not self.save_every >= 0:
            raise ValueError(f"save_every={self.save_every} must be a number of seconds from 0 up, or .inf")
        if not self.log_progress > 0:
            raise ValueError(f"log_progress={self.log_progress} must be a number of seconds above 0, or .inf")
        if self.keep_statistics and self.metrics.get("extractor") == "none":
            raise ValueError("keep_statistics=true keeps those of features, and these metrics have none")
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise ValueError(f"repeats={self.repeats} must be at least 1, and at most {MAX_REPEATS}")
        if not 0 <= self.seed <= 2**64 - self.repeats:
            raise ValueError(f"seed={self.seed} must lie in [0, 2**64), and so must seed + repeats - 1")
        for key, allowed in _ALLOWED.items():
            _one_of(key, getattr(self, key), allowed)
        _one_of("device", self.device.split(":")[0], DEVICES)
        if isinstance(self.labels, bool) or not isinstance(self.labels, int):
            _one_of("labels", str(self.labels), LABELS, " or a class number")
        check_options("metrics", CELL_OPTIONS, self.metrics)
        for key in FLAGS:
            if type(value := getattr(self, key)) is not bool:
                raise ValueError(f"{key}={value} must be true or false")
        if not self.results_dir.strip():
            raise ValueError("results_dir is empty: give a folder, as results_dir=results")
        study = self.study or ""
        if not study.strip() or "/" in study or study in (".", ".."):
            raise ValueError(f"study={study!r} must be one folder name, without '/'")
        if self.model.get("network") is False and (self.precision != "fp32" or self.compile):
            raise ValueError(f"model={self.choices['model']} {NO_NETWORK}")


def _one_of(key: str, value: str, allowed: tuple[str, ...], more: str = "") -> None:
    if value not in allowed:
        hint = nearest(value, allowed, what=key)
        raise ValueError(f"{key}={value!r}: {hint} (one of {', '.join(allowed)}{more})")


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError where no device of this kind ("cpu", "cuda", "cuda:1") has this precision."""
    if precision in ("tf32", "fp16") and not device.startswith("cuda"):
        raise ValueError(f"precision={precision} needs device=cuda: on {device} use fp32 or bf16")
