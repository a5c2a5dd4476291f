"""seedsbench-schedule: the file, the rows that it makes, and what is refused."""

import re

import pytest
import torch
import yaml

from seedsbench import registry
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.run_key import run_key
from seedsbench.bench.sampling import SamplingPlan
from seedsbench.cli import schedule
from seedsbench.cli.main import main
from seedsbench.diffusion.schedule import Linear
from seedsbench.searching.by_score import Score, lowered
from tests.support.cells import compose, run

WORDS = ["model=gaussian_mixture", "solver=dpmpp_2m"]
QUICK = ["--steps", "20", "--samples", "8"]


def made(path, *words, code=0):
    assert schedule.main([*WORDS, "nfe=5,8", *words, *QUICK, "--output", str(path)]) == code
    return yaml.safe_load(path.read_text()) if code == 0 else None


@pytest.mark.parametrize("method", ["gits", "oss", "constant_rotation"])
def test_the_file_is_a_grid(method, tmp_path, capsys):
    path = tmp_path / "found.yaml"
    found = made(path, f"method={method}")
    assert [len(levels) for levels in found["grids"]] == [5, 8]
    assert (found["method"], found["solver"], found["model"]) == (method, "dpmpp_2m", "gaussian_mixture/edm")
    assert found["evaluations"] >= 8 * (2 * 20 + 21)
    assert f"grid=searched grid.path={path}" in capsys.readouterr().out
    assert path.read_text().startswith("# Found by: seedsbench-schedule model=gaussian_mixture ")
    row = run(tmp_path, *WORDS, "nfe=8", "samples=50", "grid=searched", f"grid.path={path}")
    assert (row["status"], row["nfe"], row["n_steps"], row["grid"]) == ("done", 8, 7, "searched")
    assert row["grid_params"] == {**found, "path": None}


def test_a_row_is_known_by_what_the_file_says_and_not_by_where_it_lies(tmp_path):
    def key(path):
        cell = compose(*WORDS, "nfe=5", "grid=searched", f"grid.path={path}")
        return run_key(cell, problem_of(cell, "cpu"))

    paths = [tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml")]
    text = "grids: [[80, 5, 2, 1, 0.5]]\n"
    for path, content in zip(paths, (text, f"# the same\n{text}", text.replace("0.5", "0.4")), strict=True):
        path.write_text(content)
    first, same, other = map(key, paths)
    assert first == same != other


def test_an_option_of_ones_own_may_be_called_path():
    """Only this package's grids and solvers read it as a file of their options."""
    own = {"_target_": "mine.Learned", "path": "weights.pt"}
    assert registry.with_file(own) == own


def test_a_budget_that_was_not_searched_for_fails_its_cell_and_says_what_there_is(tmp_path):
    path = tmp_path / "found.yaml"
    made(path, "method=gits")
    row = run(tmp_path, *WORDS, "nfe=12", "samples=50", "grid=searched", f"grid.path={path}")
    assert row["status"] == "failed"
    assert "has levels for 4, 7 steps and none for 11: search for more budgets" in row["reason"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one method=: gits, oss, constant_rotation, fid"),
        (["method=git"], "unknown method 'git'. Did you mean 'gits'"),
        (["method=gits", "solver=heun,euler"], "solver is given 2 times"),
        (["method=gits", "schedule=linear,vp"], "one file is for one schedule"),
        (["method=gits", "final=denois"], "final"),
        (["method=gits", "afs=true"], "afs=True: a search has its own"),
        (["method=gits", "dtype=float32"], "dtype=float32: a search has its own"),
        (["method=gits", "samples=500"], "samples=500: a search has its own"),
    ],
)
def test_what_is_refused_before_anything_runs(words, said, tmp_path, capsys):
    made(tmp_path / "never.yaml", *words, code=2)
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_solver_that_chooses_its_own_levels_is_refused(tmp_path, capsys):
    words = [
        "model=gaussian_mixture",
        "solver=rk45",
        "nfe=50",
        "method=gits",
        "--output",
        str(tmp_path / "n.yaml"),
    ]
    assert schedule.main(words) == 2
    assert "solver=rk45 chooses its own levels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 80\n- 1\n", "holds list: expected options"),
        ("grids: [[80, 1]\n", "is no YAML"),
        ("a: &x [1]\ngrids: [*x]\n", "it has aliases"),
        ("grid: [[80, 1]]\n", "unknown option 'grid'. Did you mean 'grids'"),
        ("grids: [[1, 80]]\n", "must decrease strictly"),
        ("grids: [[80, x]]\n", "must be a number"),
        ("grids: []\n", "no grids: give grid.path"),
        ("x" * 2**19, "bad.yaml: longer than"),
    ],
)
def test_files_that_are_no_grids_are_refused_in_one_line(text, said, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        registry.build(registry.configured("grid", {"name": "searched", "path": str(path)}))
    assert "\n" not in str(caught.value)
    words = [*WORDS, "nfe=5", "study=s", f"results_dir='{tmp_path}'", "grid=searched", f"grid.path={path}"]
    with pytest.raises(SystemExit, match="2"):
        main(words)


def test_the_score_is_lowered_on_samples_that_no_cell_draws():
    cell = compose("model=gaussian_mixture", "solver=euler", "nfe=4")
    problem = problem_of(cell, "cpu")
    start = torch.tensor([80.0, 20.0, 5.0, 0.3], dtype=torch.float64)
    plan = SamplingPlan(registry.build(cell.solver), Linear(), start, cell)
    score = Score(problem, plan, samples=200, seed=0)
    before = score(start)
    found = lowered(score, [start], trials=25)
    assert float(found[0]) == 80
    assert bool((found.diff() < 0).all())
    assert score(found) == score.best[0] < 0.9 * before
    assert score.evaluations == 200 * 4 * 27
