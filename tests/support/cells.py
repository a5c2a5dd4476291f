"""Cells in process: compose them as the command does, run them, compare rows."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import cache

import torch
from omegaconf import OmegaConf

from seedsbench import registry
from seedsbench.bench.cell import Cell
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.run_key import run_key
from seedsbench.bench.run import run_cell
from seedsbench.bench.sampling import generate, plan_of
from seedsbench.cli import check as checking
from seedsbench.cli.command import GROUPS, read
from seedsbench.cli.compose import compose_each, composing, compositions
from tests.support import machine

QUICK = ("model=gaussian_mixture", "solver=euler", "nfe=6", "samples=20", "device=cpu")
# Fields that say when, where and how fast a row was made, not what came out.
CIRCUMSTANCES = {
    *("time_utc", "invocation", "command", "batch_size", "images_per_second"),
    *("seconds_sampling", "seconds_features", "seconds_scoring", "seconds_floor"),
}
# Keys that can be set on a composed cell; models' files refer to `offline`.
VALUES = {field.name for field in dataclasses.fields(Cell)} - {*GROUPS} - {"offline"}


def compose(*overrides, config_dirs=()):
    """A cell: QUICK with overrides on top (a repeated key replaces), its study named for a time."""
    given = dict(override.split("=", 1) for override in (*QUICK, *overrides))
    words = tuple(f"{key}={value}" for key, value in given.items() if key not in VALUES)
    folders = [*map(str, config_dirs), *map(str, registry.conf_dirs()[1:])]  # and those of --solver-dir
    values = {key: read(f"{key}={value}").value() for key, value in given.items() if key in VALUES}
    return dataclasses.replace(_composed(words, os.pathsep.join(folders)), **values)


@cache
def _composed(words, folders):
    before = os.environ.get("SEEDSBENCH_CONF", "")
    registry.use_folders(folders)
    try:
        with composing():
            return compose_each([words], study="2020-01-01_00-00-00")[0].cell
    finally:
        os.environ["SEEDSBENCH_CONF"] = before


def check(command, study="study"):
    """A command checked as `seedsbench` does it: its cells as composed, and the text of a plan or dry run."""
    composed = compositions(command, study)
    return composed, checking.check(composed, command)


def run(folder, *overrides, config_dirs=(), invocation="test"):
    """The row of one cell, its study in `folder` (named "study" unless the overrides say)."""
    cell = compose("study=study", *overrides, f"results_dir='{folder}'", config_dirs=config_dirs)
    return run_cell(cell, command="seedsbench ...", invocation=invocation)


def key_of(*overrides):
    """The run_key of a cell on the CPU."""
    cell = compose(*overrides)
    return run_key(cell, problem_of(cell, "cpu"))


def samples_of(cell, problem):
    """The cell's samples, (samples, C, H, W)."""
    plan, indices = plan_of(cell, problem), torch.arange(cell.samples)
    return torch.cat([b.x for b in generate(problem.denoiser, plan, indices, batch_size=cell.batch_size)])


def python(*arguments, folder, code=0, **environment):
    """What a Python of its own said in a folder; it must have ended with this exit code."""
    command, clean = [sys.executable, *arguments], machine.environment(**environment)
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=1200)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def model_files():
    """name -> what conf/model/<name>.yaml says, its links to other groups left as text."""
    paths = {name: registry.conf_dir() / "model" / f"{name}.yaml" for name in registry.names("model")}
    return {name: OmegaConf.to_container(OmegaConf.load(path)) for name, path in paths.items()}


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

from seedsbench.bench.problems.analytic import mixture_problem
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
