"""Cells in process: compose a configuration as Hydra does, run it, compare rows."""

import copy
import dataclasses
import json
import os
from collections import defaultdict
from functools import cache
from typing import Any

from hydra.core.hydra_config import HydraConfig

from seedsbench import registry
from seedsbench.bench.cell import Config
from seedsbench.bench.rows.run_key import scientific
from seedsbench.bench.rows.store import run_key
from seedsbench.bench.run import problem_of, run_cell
from seedsbench.cli.compose import Bases, compose_each
from seedsbench.cli.compose import composing as _composing

QUICK = ("model=gaussian_mixture", "solver=euler", "nfe=6", "samples=20", "device=cpu")
# Fields that say when, where and how fast a row was made, not what came out.
CIRCUMSTANCES = {
    *("time_utc", "invocation", "command", "batch_size", "images_per_second"),
    *("seconds_sampling", "seconds_features", "seconds_scoring", "seconds_floor"),
}


# Keys with a type in the schema, which converts their text as Hydra's own overrides would.
TYPED = {field.name for field in dataclasses.fields(Config) if field.type is not Any}
_BASES: dict[tuple[str, ...], Bases] = defaultdict(dict)  # what was composed with these folders beside ours


def compose(*overrides, config_dirs=()):
    """The configuration of a cell: QUICK with overrides on top (a repeated key replaces)."""
    os.environ.setdefault("SEEDSBENCH_STUDY", "2020-01-01_00-00-00")
    chosen = dict(override.split("=", 1) for override in (*QUICK, *overrides))
    choices = tuple(f"{key}={value}" for key, value in chosen.items() if key not in TYPED)
    cfg = copy.deepcopy(_composed(choices, tuple(map(str, config_dirs))))
    for key in TYPED & set(chosen):
        cfg[key] = chosen[key]
    HydraConfig.instance().set_config(cfg)
    return cfg


@cache
def _composed(overrides, config_dirs):
    with _composing([*config_dirs, *map(str, registry.conf_dirs()[1:])]):  # and those of --solver-dir
        return compose_each([list(overrides)], _BASES[config_dirs])[0]


def run(folder, *overrides, config_dirs=(), invocation="test"):
    """The row of one cell, its study in `folder` (named "study" unless the overrides say)."""
    cfg = compose("study=study", *overrides, f"results_dir={folder}", config_dirs=config_dirs)
    return run_cell(cfg, cfg.seed, command="seedsbench ...", invocation=invocation)


def key_of(*overrides):
    """The run_key of a cell on the CPU."""
    cfg = compose(*overrides)
    return run_key(scientific(cfg, problem_of(cfg, "cpu"), cfg.seed))


def rows_of(study):
    """run_key -> row of every result in a study folder."""
    return {path.stem: json.loads(path.read_text()) for path in (study / "rows").glob("*.json")}


def same(row):
    """What must not depend on circumstances."""
    return {key: value for key, value in row.items() if key not in CIRCUMSTANCES}


BROKEN_MODULE = '''
"""A mixture whose network returns NaN below a noise level."""

from dataclasses import replace

import torch

from seedsbench.bench.problems.base import mixture_problem
from seedsbench.denoisers.base import FixedBatch


class Broken(FixedBatch):
    def __call__(self, x, sigma, labels=None):
        return super().__call__(x, sigma, labels) * torch.where(sigma < 1.0, torch.nan, 1.0)


def broken_problem(regime, device="cpu"):
    problem = mixture_problem(regime, "broken", [[0.3, -0.2]], [1.0], 0.5)
    return replace(problem, denoiser=Broken(problem.denoiser))
'''


def write_broken_model(folder):
    """A --config-dir with model=broken."""
    return write_choices(folder, "model", "broken_network", BROKEN_MODULE, {"broken": "broken_problem"})


def write_choices(folder, group, module, code, choices):
    """A --config-dir with a module of this code, and choices: name -> what of the module, and its options."""
    (folder / group).mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    for name, text in choices.items():
        (folder / group / f"{name}.yaml").write_text(f"_target_: {module}.{text}\n")
    return folder


def config_dir(monkeypatch, folder, group, module, code, choices):
    """write_choices() in a folder of its own, which this process finds too."""
    written = write_choices(folder / "conf", group, module, code, choices)
    monkeypatch.syspath_prepend(written)
    monkeypatch.setenv("SEEDSBENCH_CONF", str(written))
    return written
