"""W&B sweep files and experiments: every command they stand for is one that can run."""

import itertools
import math
from pathlib import Path
from random import Random

import pytest
import yaml

from scripts.make_sweeps import SWEEPS, sweep_text
from seedsbench import registry
from seedsbench.cli.command import parse, with_experiment
from tests.support.cells import check, python, rows_of
from tests.support.machine import ROOT
from tests.support.wandb_reader import offline_runs

CELLS = {"embedded_pareto": 96, "seeds_ablation": 72, "seeds1_ablation": 9, "cifar10_regimes": 32}
QUICK = ["model=gaussian_mixture", "samples=20", "device=cpu"]


def checked(words):
    return check(with_experiment(parse(words)), "2025-01-01_00-00-00")


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_CONF", "")


@pytest.fixture(params=SWEEPS)
def name(request):
    return request.param


@pytest.fixture
def sweep(name):
    return yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())


def assignments(sweep):
    """What an agent may be handed, as name -> value: every combination, of an interval three numbers."""
    choices = []
    for parameter in sweep["parameters"].values():
        if "min" in parameter:
            low, high = parameter["min"], parameter["max"]
            choices.append([low, (2 * low + high) / 3, high])
        else:
            choices.append(parameter.get("values") or [parameter["value"]])
    return [dict(zip(sweep["parameters"], values, strict=True)) for values in itertools.product(*choices)]


def command_of(sweep, assignment):
    """The command line of an agent, as wandb 0.31 builds it (test_wandb_accepts_... checks that)."""
    filled = {"${env}": ["/usr/bin/env"], "${program}": [sweep["program"]]}
    filled["${args_no_hyphens}"] = [f"{name}={value}" for name, value in assignment.items()]
    return [word for part in sweep["command"] for word in filled.get(part, [part])]


def test_every_sweep_file_is_what_its_experiment_gives(name):
    assert (ROOT / "sweeps" / f"{name}.yaml").read_text() == sweep_text(name), "run scripts/make_sweeps.py"
    assert {path.stem for path in (ROOT / "sweeps").glob("*.yaml")} == set(SWEEPS)


@pytest.mark.slow
def test_every_choice_of_a_sweep_is_a_command_that_can_run(name, sweep):
    found = assignments(sweep)
    assert len(found) == CELLS.get(name, 9)
    seen = set()
    Random(0).shuffle(found)  # so that each brings more than one choice that is new
    for assignment in found:
        words = command_of(sweep, assignment)
        assert words[:2] == ["/usr/bin/env", "seedsbench"]
        # options of a solver matter beside that solver; others were composed before
        new = set(words[2:]) | {(assignment["solver"], word) for word in words if word.startswith("solver.")}
        if new <= seen:
            continue
        seen |= new
        cell = checked(words[2:])[0][0].cell
        assert cell.tracker["_target_"] == "seedsbench.tracking.wandb.WandB"
        assert cell.study_folder == Path("results") / sweep["parameters"]["study"]["value"]


def test_wandb_accepts_a_sweep_and_its_own_agent_builds_the_same_commands(name, sweep):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    assert sweep["name"] == name
    assert len(sweep["description"]) > 20
    assert "seedsbench -m" not in sweep["description"], "what it is, not how it is run without W&B"
    assert sweep["metric"] == {"name": "fid", "goal": "minimize"}
    assert (sweep["method"] == "bayes") == (name == "churn_search")
    assert utils.load_sweep_config(str(ROOT / "sweeps" / f"{name}.yaml")) == sweep
    for assignment in assignments(sweep)[:20]:
        args = {key: {"value": value} for key, value in assignment.items()}
        built = utils.create_sweep_command_args({"args": args})["args_no_hyphens"]
        assert command_of(sweep, assignment)[2:] == built


@pytest.mark.slow
def test_a_stand_in_for_the_agent_runs_a_cell_to_its_end(tmp_path):
    """A tiny cell of the embedded sweep, run offline as the agent would; the run is the agent's own."""
    pytest.importorskip("wandb")
    sweep = yaml.safe_load((ROOT / "sweeps" / "seeds_ablation.yaml").read_text())
    assignment = assignments(sweep)[0] | dict(word.split("=") for word in QUICK) | {"nfe": 7}
    parameters = tmp_path / "parameters.yaml"
    handed = {name: {"value": value} for name, value in assignment.items()}
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **handed}))
    agents = {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "agentrun"}
    words = command_of(sweep, assignment)[2:]
    agents["WANDB_SWEEP_PARAM_PATH"] = str(parameters)
    python("-m", "seedsbench", *words, folder=tmp_path, **agents)
    study = tmp_path / "results" / "seeds_ablation"
    (row,) = rows_of(study).values()
    assert (row["status"], row["solver_params"]["c2"]) == ("done", 0.25)
    cell, whole = sorted(offline_runs(study), key=lambda found: found.job_type)
    assert (cell.id, cell.sweep, cell.summary["fid"]) == ("agentrun", "sweep1", row["fid"])
    assert (cell.config["solver"], cell.config["solver_c2"]) == ("seeds2", 0.25)
    assert (whole.job_type, whole.sweep) == ("study", "")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "tuned" else ())
        for name in registry.names("experiment")
        if name != "churn_optuna"
    ],
)
def test_an_experiment_can_run(name):
    assert checked(["-m", f"experiment={name}"])[0][0].cell.study_folder.parent == Path("results")


@pytest.mark.slow
def test_optuna_searches_and_a_cell_without_score_does_not_end_it(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs hydra-optuna-sweeper")
    words = ["-m", "experiment=churn_optuna", *QUICK, "nfe=choice(2,7)", "hydra.sweeper.n_trials=5"]
    python("-m", "seedsbench", *words, folder=tmp_path)
    study = tmp_path / "results" / "churn_optuna"
    rows = list(rows_of(study).values())
    assert len(rows) == 5
    assert {row["status"] for row in rows} == {"done", "skipped"}
    best = yaml.safe_load((study / "optimization_results.yaml").read_text())["best_value"]
    assert math.isclose(best, min(row["fid"] for row in rows if row["status"] == "done"))
