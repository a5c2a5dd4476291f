"""Every file of conf/ composes, and what it describes can be built."""

import dataclasses
import shutil
import zipfile
from collections import defaultdict

import pytest
import torch
from hydra.utils import get_object

from seedsbench import registry
from seedsbench.bench.problems.build import problem_of
from seedsbench.cli.command import GROUPS
from seedsbench.diffusion.grid import Grid
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Solver
from tests.support.cells import compose, model_files, python
from tests.support.machine import ROOT

CHOICES = [(group, name) for group in GROUPS for name in registry.names(group)]
KINDS = {"solver": Solver, "schedule": Schedule, "grid": Grid}
# A choice that cannot stand alone, and what it needs beside it.
NEEDS = {
    ("grid", "explicit"): ["grid.sigmas=[80,1,0.1]"],
    ("grid", "searched"): ["grid.grids=[[80,1,0.1]]"],
    ("grid", "discrete"): ["schedule=discrete"],
}
# Models that need no file from outside; of the others see bench/problems/test_checkpoint.py.
BUILT_IN = [name for name, model in model_files().items() if not {"files", "path"} & model.keys()]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_builds(group, name):
    if name.endswith("_optuna"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs hydra-optuna-sweeper")
    cfg = compose(f"{group}={name}", *NEEDS.get((group, name), []))
    if group != "experiment":
        assert cfg.choices[group] == name
        assert getattr(cfg, group)
    if group in KINDS:
        assert isinstance(registry.build(getattr(cfg, group)), KINDS[group])
    if group == "tracker":
        assert {"log_row", "finish_study"} <= set(dir(registry.build(cfg.tracker)))


def test_every_yaml_is_in_a_group_that_the_command_line_checks():
    groups = {path.parent.name for path in registry.conf_dir().glob("*/*.yaml")}
    assert groups <= set(GROUPS)


@pytest.mark.parametrize(
    ("model", "regime"),
    [
        (m, r)
        for m in BUILT_IN
        for r in model_files()[m].get("trainings", ["vp", "ve", "iddpm", "edm", "flow"])
    ],
)
def test_every_model_builds_in_every_regime_and_denoises(model, regime):
    problem = problem_of(compose(f"model={model}", f"regime={regime}"), "cpu")
    denoiser = problem.denoiser
    x = torch.zeros(2, *denoiser.image_shape, dtype=torch.float64)
    sigma = denoiser.round_sigma(torch.tensor(1.0, dtype=torch.float64))
    assert denoiser(x, sigma).isfinite().all()
    assert problem.reference.mu.shape == (problem.features.dim,)
    assert denoiser.sigma_min < 0.1
    assert denoiser.sigma_max > 50


@pytest.mark.parametrize(
    ("regime", "schedule", "grid"),
    [
        ("vp", {"beta_d": 19.9, "beta_min": 0.1}, {"sigma_min": 0.010486, "sigma_max": 152.17}),
        ("ve", {}, {"sigma_min": 0.02, "sigma_max": 100.0}),
        ("iddpm", {}, {"sigma_min": 0.002, "sigma_max": 81.0, "C_1": 0.001, "C_2": 0.008, "M": 1000}),
        ("edm", {}, {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}),
        ("flow", {}, {"start": 0.999, "shift": 1.0}),
    ],
)
def test_a_regime_selects_its_schedule_and_grid_with_edms_constants(regime, schedule, grid):
    cfg, named = compose(f"regime={regime}"), "linear" if regime in ("iddpm", "edm") else regime
    rule = "flow_uniform" if regime == "flow" else regime
    assert (cfg.regime.name, cfg.choices["schedule"], cfg.choices["grid"]) == (regime, named, rule)
    assert {name: cfg.schedule[name] for name in schedule} == schedule
    assert {name: cfg.grid[name] for name in grid} == pytest.approx(grid, rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        (("regime=vp", "grid=edm"), ("vp", "vp", "edm")),
        (("grid=edm", "regime=vp"), ("vp", "vp", "edm")),
        (("regime=ve", "schedule=linear"), ("ve", "linear", "ve")),
    ],
)
def test_schedule_and_grid_of_a_regime_can_be_overridden_alone(overrides, chosen):
    cfg = compose(*overrides)
    assert (cfg.regime.name, cfg.choices["schedule"], cfg.choices["grid"]) == chosen


def test_yaml_options_are_the_fields_of_the_class():
    for name in registry.names("solver"):
        options = set(registry.load("solver", name)) - {"_target_"}
        fields = {field.name for field in dataclasses.fields(registry.build(registry.load("solver", name)))}
        assert options == fields, f"{name}: every option is in the YAML, with its default"


def test_every_command_is_a_function():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(commands) >= {"seedsbench", "seedsbench-report"}
    for target in commands.values():
        assert callable(get_object(target.replace(":", ".")))


def test_the_built_wheel_holds_conf_and_weights(tmp_path):
    pytest.importorskip("hatchling")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("seedsbench", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source / name)
    python("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, folder=source)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {f"seedsbench/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")} <= held
    assets = {path for path in (ROOT / "seedsbench" / "assets").rglob("*") if path.is_file()}
    assert {path.relative_to(ROOT).as_posix() for path in assets} <= held
    assert wheel.stat().st_size < 12 * 2**20
    data = {name for name in held if not name.endswith(".py")}  # modules may be called checkpoints
    assert not any("checkpoint" in name or name.startswith(("tests", "conf")) for name in data)


def test_no_two_solvers_are_the_same_configuration():
    """Rows are named by what they compute: of two equal ones a sweep would keep one."""
    found = defaultdict(list)
    for name in registry.names("solver"):
        found[str(sorted(registry.load("solver", name).items()))].append(name)
    assert not [names for names in found.values() if len(names) > 1]
