"""Commands that cannot run: each is refused in one line that says what would work, before anything runs."""

import dataclasses
from pathlib import Path

import pytest
import torch

from seedsbench import registry
from seedsbench.bench.cell import FLAGS, Cell
from seedsbench.bench.problems.build import known_classes, problem_of
from seedsbench.cli.command import GROUPS, Usage, parse, use_config_dirs, with_experiment
from tests.support.cells import check, compose

FIRST = registry.names("solver")[0]


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_CONF", "")


def accept(*arguments):
    use_config_dirs(command := parse(arguments))
    return check(with_experiment(command), "2025-01-01_00-00-00")


def refusal(*arguments):
    """The one line that refuses a command; fails if it is accepted."""
    model = [] if "model=" in " ".join(arguments) else ["model=gaussian_mixture"]
    with pytest.raises(Usage) as caught:
        accept(*model, *arguments)
    assert "\n" not in str(caught.value)
    assert not Path("results").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Names.
        ("solver=elur", "unknown solver 'elur'. Did you mean 'euler'"),
        ("solver=SEEDS3", "unknown solver 'SEEDS3'"),
        ("solver=", f"unknown solver ''. Known: {FIRST}, "),
        ("solver=null", f"unknown solver 'None'. Known: {FIRST}, "),
        ("-m solver=euler,elur", "unknown solver 'elur'"),
        ("model=gausian", "unknown model 'gausian'. Did you mean 'gaussian'"),
        ("regime=edn", "unknown regime 'edn'. Did you mean 'edm'?"),
        ("schedule=lin", "unknown schedule 'lin'. Did you mean 'linear'?"),
        ("grid=eddm", "unknown grid 'eddm'. Did you mean 'edm'"),
        ("metrics=inseption", "unknown metrics 'inseption'. Did you mean 'inception'?"),
        ("tracker=json", "unknown tracker 'json'. Did you mean 'jsonl'"),
        ("experiment=nothing_like_it", "unknown experiment 'nothing_like_it'"),
        ("nffe=10", "unknown option 'nffe'. Did you mean 'nfe'"),
        ("sample=10", "unknown option 'sample'. Did you mean 'samples'"),
        ("solver.cc2=0.4", "unknown option 'solver.cc2'. Did you mean 'solver.c2'"),
        ("solver=euler solver.c2=0.4", "unknown option 'solver.c2'. Known: (solver=euler has no options)"),
        ("solver=seeds3 solver.S_churn=3", "unknown option 'solver.S_churn'. Did you mean 'solver."),
        ("-m solver=seeds3,euler solver.c2=0.2", "unknown option 'solver.c2'"),
        ("grid.sigma_mx=70", "unknown option 'grid.sigma_mx'. Did you mean 'grid.sigma_max'"),
        ("model.stdd=1", "unknown option 'model.stdd'. Did you mean 'model.std'"),
        ("+model.foo=1", "mixture_problem: unknown option 'foo'. Known: means, name, std, weights"),
        ("+model.device=cuda", "mixture_problem: unknown option 'device'"),
        ("~model.std", "mixture_problem: missing a required argument: 'std'"),
        ("+metrics.foo=1", "unknown option of metrics 'foo'. Known: extrapolate, floor_sets, splits"),
        ("tracker.file=x", "unknown option 'tracker.file'. Known: (tracker=none has no options)"),
        ("choices.solver=x", "unknown option 'choices'"),
        # How a command is written.
        ("nfe", "cannot read 'nfe': write key=value"),
        ("=5", "cannot read '=5': write key=value"),
        ("]", "cannot read ']': write key=value"),
        ("nfe=5,6", "nfe=5,6 names several values: add -m"),
        ("solver=euler,heun", "solver=euler,heun names several values: add -m"),
        ("nfe=range(5,9)", "names several values: add -m"),
        ("solver=euler solver=heun", "solver is given 2 times: for several values write -m solver=a,b"),
        ("nfe=5 nfe=6", "nfe is given 2 times"),
        ("-m solver=seeds3 solver.eta=interval(0,1)", "hydra/sweeper=optuna, or write solver.eta=a,b"),
        ("-m solver=glob(zzz*)", "solver=glob(zzz*) matches nothing"),
        ("--bogus", "unknown flag '--bogus'"),
        ("-x", "unknown flag '-x'"),
        ("--cfg=everything", "invalid choice: 'everything'"),
        ("--config-dir", "expected one argument"),
        ("--config-dir=nowhere", "--config-dir nowhere: no such folder"),
        # Values of the top level.
        ("nfe=abc", "nfe=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("nfe=1.5", "could not be converted to Integer"),
        ("nfe=", "could not be converted to Integer"),
        ("-m nfe=5,x", "nfe=x: Value 'x'"),
        ("-m nfe=0,5", "nfe=0 must lie in [1, 1000000]: network evaluations for one sample"),
        ("nfe=1000001", "nfe=1000001 must lie in [1, 1000000]"),
        ("force=perhaps", "force=perhaps must be true or false"),
        ("-m afs=false,2", "afs=2 must be true or false"),
        ("samples=1", "samples=1: a covariance needs at least 2 samples"),
        ("-m samples=20,1", "samples=1: a covariance"),
        ("samples=1e3", "could not be converted to Integer"),
        ("samples=4294967297", "at most 2**32 samples"),
        ("seed=-1", "seed=-1 must lie in [0, 2**64)"),
        ("seed=18446744073709551616", "must lie in [0, 2**64)"),
        ("batch_size=0", "batch_size=0 must be at least 1"),
        ("batch_size=4294967297", "batch_size=4294967297 must be at least 1, or auto, and at most 2**32"),
        ("repeats=0", "repeats=0 must be at least 1"),
        ("repeats=10001", "repeats=10001 must be at least 1, and at most 10000"),
        ("final=denoize", "Did you mean 'denoise'? (one of denoise, euler, stop)"),
        ("dtype=float16", "(one of float64, float32)"),
        ("device=gpu", "(one of auto, cpu, cuda)"),
        ("study=a/b", "one folder name"),
        ("results_dir=", "results_dir is empty"),
        # Classes.
        ("labels=balance", "Did you mean 'balanced'? (one of balanced, random, none or a class number)"),
        ("labels=1.5", "or a class number"),
        ("model=glyphs labels=12", "labels=12: the model has classes 0..9"),
        ("model=glyphs labels=-1", "labels=-1: the model has classes 0..9"),
        ("model=gaussian_mixture labels=3", "labels=3: the model has classes 0..2"),
        ("model=gaussian labels=0", "labels=0 on an unconditional model: use labels=none"),
        ("model=glyphs_finite labels=random", "labels=random on an unconditional model"),
        ("model=imagenet64 metrics=inception labels=1000", "labels=1000: the model has classes 0..999"),
        ("-m model=glyphs,gaussian_mixture labels=1,10", "labels=10: the model has classes 0..9"),
        # Options of what is chosen; test_option_ranges.py has every one of them.
        ("-m solver=seeds2 solver.c2=0.5,2", "Seeds2: c2=2 must lie in [0.001, 1]"),
        ("solver=seeds2 solver.c2=half", "Seeds2: c2='half' must be a number"),
        ("solver=seeds3 solver.prediction=dta", "must be one of data, noise, edm"),
        ("solver=seeds3 solver.c2=0.5 solver.c3=0.5", "c2=0.5 and c3=0.5 must be at least 0.001 apart"),
        ("solver=karras_ve solver.rk_order=true", "rk_order=True must be"),
        ("schedule=vp schedule.beta_d=-1", "VP: beta_d=-1"),
        ("grid.sigma_max=1e400", "EDM: sigma_max=inf must lie in (0, 1e+08]"),
        ("regime=edm grid.sigma_min=100", "EDM: sigma_min=100, sigma_max=80.0"),
        ("grid=explicit", "at least two noise levels"),
        ("grid=explicit grid.sigmas=[1,2,3]", "noise levels must decrease strictly"),
        ("plan=true model.std=inf", "mixture_problem: std=inf must lie in [1e-06, 10]"),
        ("model.means=[[0,nan]]", "mixture_problem: means[0][1]=nan must be a number"),
        ("model.means=[[0],[0,1]]", "must be one or more lists of as many numbers each"),
        (
            "model=gaussian model.weights=[0.5,0.5]",
            "weights have shape (2,); expected one for each mean, (1,)",
        ),
        ("model=celeba64 metrics=inception model.shape=[3,0,64]", "shape[1]=0 must lie in [1, 1e+06] or"),
        ("model=glyphs model.training=-1", "model: training=-1 must lie in [0, 1e+06]"),
        ("model=digits model.training=one", "model: training='one' must be an integer"),
        ("model=digits model.trainings.edm=0", "model: trainings.edm=0 must lie in [1, 1e+06]"),
        ("metrics.floor_sets=two", "metrics: floor_sets='two' must be an integer"),
        ("metrics=inception metrics.kid_subset_size=1", "kid_subset_size=1 must lie in [2, 1e+06]"),
        ("metrics=inception metrics.bound=inf", "standard_problem: bound=inf must lie in [1, 4096]"),
        ("tracker=wandb tracker.timeout=inf", "WandB: timeout=inf must lie in (0, 1e+06]"),
    ],
)
def test_a_command_is_refused_in_one_line_before_anything_runs(arguments, expected):
    assert expected in refusal(*arguments.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("solver: {c2: 7}", "Seeds3: c2=7 must lie in [0.001, 1]"),
        ("grid: {rho: .nan}", "EDM: rho=nan must be a number"),
        ("model: {std: -.inf}", "mixture_problem: std=-inf must lie in [1e-06, 10]"),
        ("afs: -5", "afs=-5 must be true or false"),
    ],
)
def test_an_experiment_is_refused_too(tmp_path, monkeypatch, text, said):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}\n")
    assert said in refusal(f"--config-dir={tmp_path}", "experiment=own")


ODD = ("nan", "inf", "-inf", "true", "-1", "0", "1e20", "1e400", "1" + 30 * "0", "[1,2]", "words", "null")
NAMES = {*ODD} - {"[1,2]", "null"}  # of folders
VALID = {
    "study": NAMES | {"null"},
    "results_dir": NAMES,
    "seed": {"0"},
    "labels": {"null", "0"},
    "keep_samples": {"0"},
    "save_every": {"inf", "0", "1e20", "1e400", "1" + 30 * "0"},
}
KEYS = [field.name for field in dataclasses.fields(Cell) if field.name not in (*GROUPS, "choices")]


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_a_value_that_means_nothing_is_refused_by_name(key):
    """Every key of the top level with odd values: one line that names it, or a cell that can run."""
    valid = VALID.get(key, {"true"} if key in FLAGS else ())
    for value in set(ODD) - set(valid):
        assert key in refusal(f"{key}={value}")
    for value in set(ODD) & set(valid):
        accept("model=glyphs", f"{key}={value}", *(["plan=true"] if key != "plan" else []))


def test_a_path_from_a_home_needs_no_quotes_of_hydras():
    given = ["results_dir=~/r", "metrics.real=~me/x y", "study='~/s'", "-m", "nfe=1,2"]
    expected = ["results_dir='~/r'", "metrics.real='~me/x y'", "study='~/s'", "nfe=1,2"]
    assert parse(given).overrides == tuple(expected)


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = "device=cuda:0, but torch sees no CUDA device here: use device=cpu or auto"
    assert expected in refusal("device=cuda:0")


def test_a_results_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    expected = f"cannot write to {tmp_path}/file/results/s (Not a directory): choose another place"
    assert expected in refusal(f"results_dir={tmp_path}/file/results", "study=s")


def test_a_class_that_some_model_has_may_run():
    for arguments in ("model=gaussian_mixture labels=2", "model=gaussian labels=none"):
        accept(*arguments.split())
    accept("-m", "model=gaussian,glyphs", "labels=9")


@pytest.mark.parametrize("model", ["glyphs", "digits", "gaussian", "gaussian_mixture", "glyphs_finite"])
def test_the_classes_known_unloaded_are_the_models_own(model):
    cell = compose(f"model={model}")
    assert known_classes(cell) == problem_of(cell, "cpu").denoiser.label_dim
