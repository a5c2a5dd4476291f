"""Every file of conf/ composes, and what it describes can be built."""

import dataclasses
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from seedsbench import registry
from seedsbench.bench.problems.build import problem_of
from seedsbench.cli.command import GROUPS
from seedsbench.diffusion.grid import Grid
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Solver
from tests.support.cells import compose

ROOT = Path(__file__).parents[2]
CHOICES = [(group, name) for group in GROUPS for name in registry.names(group)]
# A choice that cannot stand alone, and what it needs beside it.
NEEDS = {("grid", "explicit"): ["grid.sigmas=[80,1,0.1]"], ("grid", "discrete"): ["schedule=discrete"]}
# Models that need no file from outside; of the others see test_checkpoint_problems.py.
BUILT_IN = [
    path.stem
    for path in sorted((registry.conf_dir() / "model").glob("*.yaml"))
    if OmegaConf.load(path)["_target_"].startswith("seedsbench.bench.problems.base.")
]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group, name):
    if name.endswith("_optuna"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs hydra-optuna-sweeper")
    cfg = compose(f"{group}={name}")
    if group != "experiment":
        assert cfg.choices[group] == name
        assert getattr(cfg, group)


def test_every_yaml_is_in_a_group_that_the_command_line_checks():
    groups = {path.parent.name for path in registry.conf_dir().glob("*/*.yaml")}
    assert groups <= set(GROUPS)


@pytest.mark.parametrize(("group", "base"), [("solver", Solver), ("schedule", Schedule), ("grid", Grid)])
def test_every_solver_schedule_and_grid_builds(group, base):
    for name in registry.names(group):
        cfg = compose(f"{group}={name}", *NEEDS.get((group, name), []))
        assert isinstance(registry.build(getattr(cfg, group)), base), name


@pytest.mark.parametrize("regime", ["vp", "ve", "iddpm", "edm"])
@pytest.mark.parametrize("model", BUILT_IN)
def test_every_model_builds_in_every_regime_and_denoises(model, regime):
    problem = problem_of(compose(f"model={model}", f"regime={regime}"), "cpu")
    denoiser = problem.denoiser
    x = torch.zeros(2, *denoiser.image_shape, dtype=torch.float64)
    sigma = denoiser.round_sigma(torch.tensor(1.0, dtype=torch.float64))
    assert denoiser(x, sigma).isfinite().all()
    assert problem.reference.mu.shape == (problem.features.dim,)
    assert denoiser.sigma_min < 0.1
    assert denoiser.sigma_max > 50


def test_a_tracker_of_every_name_builds():
    for name in registry.names("tracker"):
        tracker = registry.build(compose(f"tracker={name}").tracker)
        assert hasattr(tracker, "log_row")
        assert hasattr(tracker, "finish_study")


@pytest.mark.parametrize(
    ("regime", "schedule", "grid", "low", "high"),
    [
        ("vp", "vp", "vp", 0.010486, 152.17),
        ("ve", "ve", "ve", 0.02, 100.0),
        ("iddpm", "linear", "iddpm", 0.002, 81.0),
        ("edm", "linear", "edm", 0.002, 80.0),
    ],
)
def test_a_regime_selects_its_schedule_grid_and_range(regime, schedule, grid, low, high):
    cfg = compose(f"regime={regime}")
    chosen = cfg.choices
    assert (cfg.regime.name, chosen.schedule, chosen.grid) == (regime, schedule, grid)
    assert cfg.grid["sigma_min"] == pytest.approx(low, rel=1e-4)
    assert cfg.grid["sigma_max"] == pytest.approx(high, rel=1e-4)


def test_edms_exact_constants_are_in_the_yamls():
    assert OmegaConf.to_container(compose("regime=vp").schedule)["beta_d"] == 19.9
    assert compose("regime=vp").schedule.beta_min == 0.1
    grid = compose("regime=iddpm").grid
    assert (grid.C_1, grid.C_2, grid.M) == (0.001, 0.008, 1000)
    assert compose("regime=edm").grid.rho == 7.0


@pytest.mark.parametrize("overrides", [("regime=vp", "grid=edm"), ("grid=edm", "regime=vp")])
def test_a_vp_network_on_the_edm_grid_is_one_override(overrides):
    cfg = compose(*overrides)
    chosen = cfg.choices
    assert (cfg.regime.name, chosen.schedule, chosen.grid) == ("vp", "vp", "edm")


def test_the_schedule_too_can_be_overridden_alone():
    chosen = compose("regime=ve", "schedule=linear").hydra.runtime.choices
    assert (chosen.schedule, chosen.grid) == ("linear", "ve")


def test_yaml_options_are_the_fields_of_the_class():
    for name in registry.names("solver"):
        options = set(registry.load("solver", name)) - {"_target_"}
        fields = {field.name for field in dataclasses.fields(registry.build(registry.load("solver", name)))}
        assert options == fields, f"{name}: every option is in the YAML, with its default"


def test_the_wheel_is_configured_to_hold_conf():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = config["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"conf": "seedsbench/conf"}
    assert config["project"]["scripts"]["seedsbench"] == "seedsbench.cli.main:main"
    assert config["project"]["scripts"]["seedsbench-report"] == "seedsbench.report.main:main"


def test_the_built_wheel_holds_conf_and_weights(tmp_path):
    pytest.importorskip("hatchling")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("seedsbench", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"seedsbench/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert expected <= held
    assert "seedsbench/assets/glyphs/features.safetensors" in held
    data = {name for name in held if not name.endswith(".py")}  # modules may be called checkpoints
    assert not any("checkpoint" in name or name.startswith(("tests", "conf")) for name in data)


def test_no_two_solvers_are_the_same_configuration():
    """Rows are named by what they compute: of two equal ones a sweep would keep one."""
    found = {}
    for name in registry.names("solver"):
        configuration = str(sorted(registry.load("solver", name).items()))
        assert configuration not in found, f"{name} is {found[configuration]} by another name"
        found[configuration] = name
