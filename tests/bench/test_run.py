"""One cell: a configuration in, a row out, whatever happens in between."""

import math
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

import seedsbench
from seedsbench.bench import scoring
from seedsbench.bench.machine import device_of
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows import run_key as science
from seedsbench.bench.rows.run_key import run_key
from seedsbench.diffusion.process import Process
from tests.support.cells import BROKEN_MODULE, compose, config_dir, key_of, rows_of, run, same

# design.md, section 4: what outside checks read.
PROMISED = [
    *("run_key", "status", "reason", "model", "regime", "schedule", "grid", "solver", "solver_params"),
    *("nfe_budget", "nfe", "n_steps", "samples", "seed", "fid", "fid_floor", "is_mean", "is_std"),
    *("seconds_sampling", "seconds_features", "seconds_scoring", "images_per_second"),
]
# style.md, section 4.4, and issue 2: what else a row must tell.
FURTHER = [
    *("order", "stochastic", "extractor", "extractor_id", "reference_id", "model_id", "numerics_version"),
    *("labels", "final", "dtype", "time_utc", "device", "threads", "batch_size", "world_size", "command"),
    *("version_seedsbench", "version_torch", "version_numpy", "version_python", "invocation"),
    *("commit", "device_name"),
]


def test_a_finished_row_has_every_promised_field(tmp_path):
    row = run(tmp_path, "solver=seeds2", "nfe=12")
    assert set(PROMISED + FURTHER) <= set(row)
    assert (row["status"], row["reason"]) == ("done", None)
    assert (row["model"], row["regime"], row["schedule"], row["grid"], row["solver"]) == (
        *("gaussian_mixture", "edm", "linear", "edm", "seeds2"),
    )
    assert row["solver_params"]["c2"] == 0.5
    assert "_target_" not in row["solver_params"]
    assert (row["nfe_budget"], row["nfe"], row["nfe_max"], row["n_steps"]) == (12, 11.0, 11, 5)
    for name in ("fid", "fid_floor", "is_mean", "is_std", "seconds_sampling", "images_per_second"):
        assert math.isfinite(row[name]), name
    assert (row["order"], row["stochastic"], row["weak_order"]) == (2, True, 2)
    assert row["version_seedsbench"] == seedsbench.__version__
    assert rows_of(tmp_path / "study") == {row["run_key"]: row}


def test_rows_that_came_to_nothing_have_the_same_fields(tmp_path):
    skipped, failed = run(tmp_path, "nfe=1"), run(tmp_path, "labels=7")
    for row in (skipped, failed):
        assert set(PROMISED) <= set(row)
        assert row["fid"] is None
        assert row["reason"]


SAME_NUMBERS = ["device=auto", "batch_size=3", "batch_size=auto", "results_dir=/elsewhere", "study=other"]
SAME_NUMBERS += ["force=true", "debug=true", "tracker=jsonl", "repeats=3", "plan=true", "precision=fp32"]
SAME_NUMBERS += ["compile=false", "seeding=philox"]


def test_a_run_key_does_not_depend_on_where_and_how_a_cell_runs():
    assert {override: key_of(override) for override in SAME_NUMBERS} == dict.fromkeys(SAME_NUMBERS, key_of())


OTHER_NUMBERS = ["nfe=7", "samples=21", "seed=1", "labels=random", "labels=none", "labels=1", "final=euler"]
OTHER_NUMBERS += ["final=stop", "dtype=float32", "solver=heun", "regime=vp", "grid=logsnr", "grid.rho=6"]
OTHER_NUMBERS += ["grid.sigma_max=70", "schedule=ve", "model=gaussian", "model.std=0.2", "metrics.splits=5"]
OTHER_NUMBERS += ["precision=bf16", "precision=tf32", "compile=true", "seeding=edm", "solver=seeds3"]
SEEDS3 = ["c2=0.3", "c3=0.7", "eta=0.5", "prediction=noise", "variant=b"]


def test_whatever_may_change_numbers_gives_another_run_key():
    cells = [[], ["precision=bf16", "compile=true"], *([override] for override in OTHER_NUMBERS)]
    cells += [["solver=seeds3", f"solver.{option}"] for option in SEEDS3]
    keys = {key_of(*overrides): overrides for overrides in cells}
    assert list(keys.values()) == cells


def test_a_run_key_depends_on_the_weights_and_the_numerics_version(monkeypatch):
    cfg = compose()
    problem = problem_of(cfg, "cpu")
    others = [replace(problem, model_id="other"), replace(problem, reference_id="other")]
    keys = {run_key(cfg, which) for which in (problem, *others)}
    monkeypatch.setattr(science, "NUMERICS_VERSION", science.NUMERICS_VERSION + 1)
    assert len(keys | {run_key(cfg, problem)}) == 4


@pytest.mark.parametrize("solver", ["heun", "seeds3", "karras_sde", "dpmpp_2m"])
@pytest.mark.parametrize("labels", ["balanced", pytest.param("random", marks=pytest.mark.slow)])
def test_rows_do_not_depend_on_the_batch_size(tmp_path, solver, labels):
    overrides = [f"solver={solver}", f"labels={labels}", "samples=70", "nfe=8"]
    rows = [run(tmp_path / str(size), *overrides, f"batch_size={size}") for size in (1, 7, 64)]
    assert [same(row) for row in rows] == [same(rows[0])] * 3


def test_another_seed_gives_other_numbers(tmp_path):
    fids = {run(tmp_path, f"seed={seed}")["fid"] for seed in (0, 1, 2**64 - 1)}
    assert len(fids) == 3


EXPLICIT = ["solver=heun", "grid=explicit", "grid.sigmas=[80,5,1,0.1]"]


@pytest.mark.parametrize(
    ("overrides", "nfe", "least"),
    [
        *(([], nfe, 2) for nfe in (0, 1)),
        (["solver=heun", "final=denoise"], 2, 3),
        (["solver=seeds3", "final=stop"], 2, 3),
        (EXPLICIT, 6, 7),
    ],
)
def test_a_budget_that_fits_no_step_is_skipped_with_the_smallest_that_works(
    tmp_path, evaluations, overrides, nfe, least
):
    row = run(tmp_path, *overrides, f"nfe={nfe}")
    assert (row["status"], evaluations.samples) == ("skipped", 0)
    assert f"nfe={nfe}" in row["reason"]
    assert f"smallest budget that works is {least}" in row["reason"]
    assert run(tmp_path, *overrides, f"nfe={least}")["nfe"] == least


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model=gaussian", "labels=3"], "labels=3 on an unconditional model: use labels=none"),
        (["model=gaussian", "labels=random"], "labels=random on an unconditional model: use labels=none"),
        (["labels=3"], "labels=3: the model has classes 0..2"),
        (["labels=-1"], "labels=-1: the model has classes 0..2"),
        (["regime.name=edn"], "unknown regime.name 'edn'. Did you mean 'edm'?"),
        (["model.std=-1"], "mixture_problem: std=-1 must lie in [1e-06, 10]"),
        (["model.weights=[0.5,0.5]"], "weights have shape (2,)"),
    ],
)
def test_what_the_model_cannot_do_is_a_failed_row_before_any_evaluation(
    tmp_path, evaluations, overrides, reason
):
    row = run(tmp_path, *overrides)
    assert (row["status"], evaluations.samples) == ("failed", 0)
    assert reason in row["reason"]
    assert "\n" not in row["reason"]


def test_nan_fails_the_cell_naming_step_and_sigma(tmp_path, monkeypatch):
    choices = {"broken": "broken_problem"}
    folder = config_dir(monkeypatch, tmp_path, "model", "broken_network", BROKEN_MODULE, choices)
    row = run(tmp_path, "model=broken", "samples=5", config_dirs=[folder])
    assert row["status"] == "failed"
    # EDM's levels of 5 steps: 80, 24.4, 5.84, 0.96, ...: the first evaluation below 1 is step 4's.
    assert "5 of 5 samples became non-finite in step 4 of 5, leaving sigma=0.9" in row["reason"]
    assert rows_of(tmp_path / "study")[row["run_key"]]["status"] == "failed"
    with pytest.raises(ArithmeticError, match="step 4 of 5"):
        run(tmp_path, "model=broken", "debug=true", config_dirs=[folder])


def test_an_unexpected_error_is_a_failed_row_with_its_type(tmp_path, monkeypatch):
    monkeypatch.setattr(Process, "predict", Mock(side_effect=KeyError("bug")))
    assert run(tmp_path)["reason"] == "KeyError: 'bug'"


def test_an_interrupt_is_no_failed_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(Process, "predict", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert rows_of(tmp_path / "study") == {}


def test_asking_for_cuda_where_there_is_none_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == "cpu"
    with pytest.raises(ValueError, match=r"device=cuda:1.*use device=cpu or auto"):
        device_of("cuda:1")


def test_the_floor_does_not_depend_on_how_many_images_are_made_at_a_time(monkeypatch):
    problem = problem_of(compose("model=glyphs"), "cpu")
    whole = scoring.fid_floor(problem, 300, "balanced", 1)
    monkeypatch.setattr(scoring, "FLOOR_BATCH", 1)
    monkeypatch.setattr(scoring, "_FLOORS", {})
    assert scoring.fid_floor(problem, 300, "balanced", 1) == whole
