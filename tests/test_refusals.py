"""Commands that cannot run: each is refused in one line that says what would work, before anything runs."""

import re

import pytest
import torch
from cells import compose

from seedsbench import registry
from seedsbench.bench.cell import problem_of
from seedsbench.bench.labels import known_classes
from seedsbench.preflight import Usage, parse, preflight

FIRST = registry.names("solver")[0]


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_STUDY", "2025-01-01_00-00-00")
    monkeypatch.delenv("SEEDSBENCH_CONF", raising=False)


def refusal(*arguments):
    """The one line that refuses a command; fails if it is accepted."""
    with pytest.raises(Usage) as caught:
        preflight(parse(["model=gaussian_mixture", *arguments]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("solver=elur", "unknown solver 'elur'. Did you mean 'euler'"),
        ("solver=SEEDS3", "unknown solver 'SEEDS3'"),
        ("solver=", f"unknown solver ''. Known: {FIRST}, "),
        ("solver=null", f"unknown solver 'None'. Known: {FIRST}, "),
        ("regime=edn", "unknown regime 'edn'. Did you mean 'edm'?"),
        ("schedule=lin", "unknown schedule 'lin'. Did you mean 'linear'?"),
        ("grid=eddm", "unknown grid 'eddm'. Did you mean 'edm'"),
        ("metrics=inseption", "unknown metrics 'inseption'. Did you mean 'inception'?"),
        ("tracker=json", "unknown tracker 'json'. Did you mean 'jsonl'"),
        ("experiment=nothing_like_it", "unknown experiment 'nothing_like_it'"),
        ("nffe=10", "unknown option 'nffe'. Did you mean 'nfe'"),
        ("sample=10", "unknown option 'sample'. Did you mean 'samples'"),
        ("solver.cc2=0.4", "unknown option 'solver.cc2'. Did you mean 'solver.c2'"),
        ("grid.sigma_mx=70", "unknown option 'grid.sigma_mx'. Did you mean 'grid.sigma_max'"),
        ("model.stdd=1", "unknown option 'model.stdd'. Did you mean 'model.std'"),
        ("tracker.file=x", "unknown option 'tracker.file'. Known: (tracker=none has no options)"),
        ("choices.solver=x", "unknown option 'choices'"),
        ("nfe=abc", "nfe=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("nfe=1.5", "could not be converted to Integer"),
        ("nfe=", "could not be converted to Integer"),
        ("nfe", "cannot read 'nfe': write key=value"),
        ("=5", "cannot read '=5': write key=value"),
        ("]", "cannot read ']': write key=value"),
        ("force=perhaps", "force=perhaps: Value 'perhaps' is not a valid bool"),
        ("samples=1", "samples=1: a covariance needs at least 2 samples"),
        ("samples=1e3", "could not be converted to Integer"),
        ("samples=4294967297", "at most 2**32 samples"),
        ("seed=-1", "seed=-1 must lie in [0, 2**64)"),
        ("seed=18446744073709551616", "must lie in [0, 2**64)"),
        ("batch_size=0", "batch_size=0 must be at least 1"),
        ("repeats=0", "repeats=0 must be at least 1"),
        ("final=denoize", "Did you mean 'denoise'? (one of denoise, euler, stop)"),
        ("dtype=float16", "(one of float64, float32)"),
        ("device=gpu", "(one of auto, cpu, cuda)"),
        ("labels=balance", "Did you mean 'balanced'? (one of balanced, random, none or a class number)"),
        ("labels=1.5", "or a class number"),
        ("study=a/b", "one folder name"),
        ("results_dir=", "results_dir is empty"),
        ("metrics.splits=0", "metrics.splits=0 must be an integer of at least 1"),
        ("metrics.floor_sets=two", "metrics.floor_sets=two must be an integer of at least 1"),
        ("nfe=5,6", "nfe=5,6 names several values: add -m"),
        ("solver=euler,heun", "solver=euler,heun names several values: add -m"),
        ("nfe=range(5,9)", "names several values: add -m"),
        ("grid=explicit", "at least two noise levels"),
        ("--bogus", "unknown flag '--bogus'"),
        ("-x", "unknown flag '-x'"),
        ("--cfg=everything", "invalid choice: 'everything'"),
        ("--config-dir", "expected one argument"),
        ("--config-dir=nowhere", "--config-dir nowhere: no such folder"),
    ],
)
def test_one_argument(argument, expected):
    assert expected in refusal(argument)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["solver=euler", "solver.c2=0.4"],
            "unknown option 'solver.c2'. Known: (solver=euler has no options)",
        ),
        (["solver=seeds3", "solver.S_churn=3"], "unknown option 'solver.S_churn'. Did you mean 'solver."),
        (["solver=seeds2", "solver.c2=7"], "Seeds2: c2=7 must lie in (0, 1)"),
        (["solver=seeds2", "solver.c2=0"], "Seeds2: c2=0 must lie in (0, 1)"),
        (["solver=seeds2", "solver.c2=half"], "Seeds2: c2='half' must be a number"),
        (["solver=seeds3", "solver.eta=-1"], "Seeds3: eta=-1 must lie in [0, 1]"),
        (["solver=seeds3", "solver.prediction=dta"], "must be one of data, noise, edm"),
        (["schedule=vp", "schedule.beta_d=-1"], "VP: beta_d=-1"),
        (["regime=edm", "grid.sigma_min=100"], "EDM: sigma_min=100, sigma_max=80.0"),
        (["grid=explicit", "grid.sigmas=[1,2,3]"], "noise levels must decrease strictly"),
        (
            ["solver=euler", "solver=heun"],
            "solver is given 2 times: for several values write -m solver=a,b",
        ),
        (["nfe=5", "nfe=6"], "nfe is given 2 times"),
        (["-m", "solver=euler,elur"], "unknown solver 'elur'"),
        (["-m", "nfe=5,x"], "nfe=x: Value 'x'"),
        (["-m", "solver=seeds2", "solver.c2=0.5,2"], "Seeds2: c2=2 must lie in (0, 1)"),
        (["-m", "solver=seeds3,euler", "solver.c2=0.2"], "unknown option 'solver.c2'"),
        (["-m", "samples=20,1"], "samples=1: a covariance"),
        (["-m", "solver=glob(zzz*)"], "solver=glob(zzz*) matches nothing"),
    ],
)
def test_several_arguments(arguments, expected):
    assert expected in refusal(*arguments)


def test_a_model_that_does_not_exist():
    with pytest.raises(Usage, match=r"^unknown model 'gausian'. Did you mean 'gaussian'"):
        preflight(parse(["model=gausian"]))


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        Usage, match="device=cuda:0, but torch sees no CUDA device here: use device=cpu or auto"
    ):
        preflight(parse(["model=gaussian", "device=cuda:0"]))


def test_a_results_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    expected = f"cannot write to {tmp_path}/file/results/s (Not a directory): choose another place"
    assert expected in refusal(f"results_dir={tmp_path}/file/results", "study=s")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("model=glyphs labels=12", "labels=12: the model has classes 0..9"),
        ("model=glyphs labels=-1", "labels=-1: the model has classes 0..9"),
        ("model=gaussian_mixture labels=3", "labels=3: the model has classes 0..2"),
        ("model=gaussian labels=0", "labels=0 on an unconditional model: use labels=none"),
        ("model=glyphs_finite labels=random", "labels=random on an unconditional model"),
        ("model=imagenet64 metrics=inception labels=1000", "labels=1000: the model has classes 0..999"),
        ("-m model=glyphs,gaussian_mixture labels=1,10", "labels=10: the model has classes 0..9"),
    ],
)
def test_a_class_that_no_model_of_the_command_has(arguments, expected):
    with pytest.raises(Usage, match=rf"^{re.escape(expected)}"):
        preflight(parse(arguments.split()))


@pytest.mark.parametrize(
    "arguments",
    ["model=gaussian_mixture labels=2", "model=gaussian labels=none", "-m model=gaussian,glyphs labels=9"],
)
def test_a_class_that_some_model_has_may_run(arguments):
    preflight(parse(arguments.split()))


@pytest.mark.parametrize("model", ["glyphs", "gaussian", "gaussian_mixture", "glyphs_finite"])
def test_the_classes_known_unloaded_are_the_models_own(model):
    cfg = compose(f"model={model}")
    assert known_classes(cfg.model) == problem_of(cfg, "cpu").denoiser.label_dim
