"""W&B sweep files and experiments: every command they stand for is one that can run."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from omegaconf import OmegaConf

from seedsbench import registry
from seedsbench.cli.check import Usage, parse, preflight, with_experiment
from tests.support.cells import rows_of
from tests.support.wandb_reader import offline_runs

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
OTHERS = set(registry.names("experiment")) - {path.stem for path in SWEEPS} - {"churn_optuna"}
CELLS = {"embedded_pareto": 96, "seeds_ablation": 72, "seeds1_ablation": 9, "churn_search": 8}
CELLS |= {"cifar10_regimes": 32}
QUICK = ["model=gaussian_mixture", "samples=20", "device=cpu"]


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_STUDY", "2025-01-01_00-00-00")
    monkeypatch.setenv("SEEDSBENCH_CONF", "")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def read(path):
    return OmegaConf.to_container(OmegaConf.load(path))


def values_of(parameter):
    """What an agent may be handed for a parameter: all values, or a few of a distribution."""
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return parameter["values"]
    low, high = parameter["min"], parameter["max"]
    return [low, (2 * low + high) / 3, high]


def assignments(sweep):
    """Every combination of a sweep (of a search: its corners and thirds) as name -> value."""
    names = list(sweep["parameters"])
    for values in itertools.product(*(values_of(sweep["parameters"][name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def command_of(sweep, assignment):
    """The command line of an agent, as wandb 0.31 builds it (test_wandbs_own_agent_... checks that)."""
    filled = {"${env}": ["/usr/bin/env"], "${program}": [sweep["program"]]}
    filled["${args_no_hyphens}"] = [f"{name}={value}" for name, value in assignment.items()]
    return [word for part in sweep["command"] for word in filled.get(part, [part])]


def skip_without_models(sweep):
    for group in ("model", "metrics"):
        for name in values_of(sweep["parameters"].get(group, {"values": []})):
            if name not in registry.names(group):
                pytest.skip(f"needs {group}={name}, which this checkout has not")


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_choice_of_a_sweep_is_a_command_that_can_run(path):
    sweep = read(path)
    found = list(assignments(sweep))
    assert path.stem == "churn_search" or len(found) == CELLS[path.stem]
    skip_without_models(sweep)
    seen = set()
    Random(0).shuffle(found)  # so that each brings more than one choice that is new
    for assignment in found:
        words = command_of(sweep, assignment)
        assert words[:2] == ["/usr/bin/env", "seedsbench"]
        new = {word for word in words[2:] if word not in seen}
        # options of a solver matter beside that solver; others were composed before
        pairs = {(assignment["solver"], word) for word in words[2:] if word.startswith("solver.")}
        if not new and pairs <= seen:
            continue
        seen |= new | pairs
        checked = preflight(with_experiment(parse(words[2:])))
        assert checked.tracker["_target_"] == "seedsbench.tracking.wandb.WandB"
        assert checked.study == Path("results") / sweep["parameters"]["study"]["value"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_what_wandb_accepts_and_minimises_a_score_that_is_logged(path):
    sweep = read(path)
    assert sweep["metric"] == {"name": "fid", "goal": "minimize"}
    assert sweep["program"] == "seedsbench"
    assert sweep["command"] == ["${env}", "${program}", "${args_no_hyphens}"]
    assert (sweep["method"] == "bayes") == any("min" in p for p in sweep["parameters"].values())
    pytest.importorskip("wandb")
    from wandb.sdk.launch.sweeps.utils import load_sweep_config

    assert load_sweep_config(str(path)) == sweep


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_wandbs_own_agent_builds_the_same_command(path):
    pytest.importorskip("wandb")
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    sweep = read(path)
    for assignment in itertools.islice(assignments(sweep), 20):
        args = {name: {"value": value} for name, value in assignment.items()}
        built = utils.create_sweep_command_args({"args": args})["args_no_hyphens"]
        assert command_of(sweep, assignment)[2:] == built


@pytest.mark.slow
def test_a_stand_in_for_the_agent_runs_a_cell_to_its_end(tmp_path):
    """A tiny cell of the embedded sweep, run offline as the agent would; the run is the agent's own."""
    pytest.importorskip("wandb")
    sweep = read(ROOT / "sweeps" / "seeds_ablation.yaml")
    assignment = next(iter(assignments(sweep))) | dict(word.split("=") for word in QUICK) | {"nfe": 7}
    program = tmp_path / "bin" / "seedsbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m seedsbench "$@"\n')
    program.chmod(0o755)
    parameters = tmp_path / "parameters.yaml"
    written = {name: {"value": value} for name, value in assignment.items()}
    OmegaConf.save(OmegaConf.create({"wandb_version": 1}), parameters)
    with parameters.open("a") as file:
        file.writelines(f"{name}: {{value: {value['value']}}}\n" for name, value in written.items())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEEDSBENCH_")}
    environment = kept | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_RUN_ID": "agentrun",
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
    }
    result = subprocess.run(
        command_of(sweep, assignment),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    study = tmp_path / "results" / "seeds_ablation"
    (row,) = rows_of(study).values()
    assert (row["status"], row["solver_params"]["c2"]) == ("done", 0.25)
    cell, whole = sorted(offline_runs(study), key=lambda found: found.job_type)
    assert (cell.id, cell.sweep, cell.summary["fid"]) == ("agentrun", "sweep1", row["fid"])
    assert cell.config["cfg"]["solver"]["c2"] == 0.25
    assert cell.config["cfg"]["solver"]["_target_"].endswith("Seeds2")
    assert (whole.job_type, whole.sweep) == ("study", "")


@pytest.mark.parametrize("name", [*sorted(OTHERS), "seeds1_ablation"])
def test_an_experiment_can_run(name):
    checked = preflight(with_experiment(parse(["-m", f"experiment={name}"])))
    assert checked.study.parent == Path("results")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_an_experiment_too_with_the_same_choices(path):
    sweep, params = read(path), registry.sweep_of(path.stem)
    assert f"experiment={path.stem}" in path.read_text()
    told = {
        name: parameter for name, parameter in sweep["parameters"].items() if name not in ("study", "tracker")
    }
    fixed = registry.load("experiment", path.stem)
    assert fixed["study"] == sweep["parameters"]["study"]["value"]
    for name, parameter in told.items():
        if path.stem == "churn_search" and "min" in parameter:
            numbers = [float(value) for value in params[name].split(",")]
            assert parameter["min"] <= min(numbers) <= max(numbers) <= parameter["max"]
            continue
        given = params[name].split(",") if name in params else [str(fixed[name])]
        assert given == [str(value) for value in values_of(parameter)], name


def test_an_interval_without_a_searching_sweeper_is_refused():
    with pytest.raises(Usage, match=r"interval needs a sweeper that searches.*write solver\.eta=a,b"):
        preflight(parse(["-m", *QUICK, "solver=seeds3", "solver.eta=interval(0, 1)"]))


@pytest.mark.slow
def test_optuna_searches_and_a_cell_without_score_does_not_end_it(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs hydra-optuna-sweeper")
    words = ["-m", "experiment=churn_optuna", *QUICK, "nfe=choice(2,7)", "hydra.sweeper.n_trials=5"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(
        [sys.executable, "-m", "seedsbench", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    rows = list(rows_of(tmp_path / "results" / "churn_optuna").values())
    assert len(rows) == 5, result.stderr
    assert {row["status"] for row in rows} == {"done", "skipped"}
    best = OmegaConf.load(tmp_path / "results" / "churn_optuna" / "optimization_results.yaml")
    done = [row["fid"] for row in rows if row["status"] == "done"]
    assert math.isclose(best.best_value, min(done))
