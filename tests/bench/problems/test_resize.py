"""metrics.resize: part of what a row is, and of what a reference is; rows of two never share a panel."""

import json

import pytest

from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.run_key import what_changes_numbers
from seedsbench.cli import reference as reference_main
from seedsbench.report.pareto import panels
from seedsbench.report.rows import read_rows
from tests.support.cells import compose, run
from tests.support.extractors import some_images, write_dinov2, write_images

CELL = ("model=glyphs", "solver=euler", "nfe=2", "samples=4", "metrics=dinov2", "metrics.kid_subsets=0")


@pytest.fixture
def given(tmp_path):
    """Options of a small vision transformer and images to compare with."""
    weights = write_dinov2(tmp_path / "vit.pth")
    images = write_images(tmp_path / "images", some_images(5, size=16))
    return {"metrics.weights": weights, "metrics.reference": images}


def words(given, **changes):
    return [*CELL, *(f"{key}={value}" for key, value in (given | changes).items())]


def test_two_resizes_are_two_rows_and_two_panels(tmp_path, given):
    rows = [run(tmp_path, *words(given, **{"metrics.resize": name})) for name in ("bicubic", "tf1")]
    assert [row["status"] for row in rows] == ["done", "done"], [row["reason"] for row in rows]
    for name in ("run_key", "extractor", "extractor_id", "reference_id", "fid"):
        assert rows[0][name] != rows[1][name], name
    assert run(tmp_path, *words(given)) == rows[0], "bicubic is the default"
    found = panels(read_rows(tmp_path / "study")[0])
    assert len({panel.features for panel in found}) == len(found) == 2


def test_rows_from_before_there_was_a_choice_are_those_of_tf1(given):
    cell = compose(*words(given, **{"metrics.resize": "tf1"}))
    known = json.dumps(what_changes_numbers(cell, problem_of(cell, "cpu")))
    assert "resize" not in known
    assert "tf1" not in known


def test_a_reference_of_one_resize_is_refused_by_the_other(tmp_path, given, capsys):
    images, how = str(given["metrics.reference"]), ["--metrics", "dinov2", "--weights"]
    for name, other in (("tf1", "bicubic"), ("bicubic", "tf1")):
        out = str(tmp_path / f"{name}.npz")
        assert reference_main.main([images, out, *how, str(given["metrics.weights"]), "--resize", name]) == 0
        fits = compose(*words(given, **{"metrics.reference": out, "metrics.resize": name}))
        assert problem_of(fits, "cpu").reference is not None
        cell = compose(*words(given, **{"metrics.reference": out, "metrics.resize": other}))
        with pytest.raises(ValueError, match="was made with dinov2-vit-128-14") as caught:
            problem_of(cell, "cpu")
        assert "\n" not in str(caught.value)
    capsys.readouterr()
    assert reference_main.main([images, out, "--resize", "tf1"]) == 2
    assert "--resize tf1 is for --metrics dinov2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["metrics=dinov2", "metrics.resize=lanczos"], "one of bicubic, tf1"),
        (["metrics=dinov2", "metrics.resize=null"], "extractor dinov2: give one of bicubic, tf1"),
        (["metrics=values", "+metrics.resize=tf1"], "only dinov2 has a choice"),
    ],
)
def test_a_resize_that_is_none_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        problem_of(compose("model=glyphs", *options, "metrics.reference=ref.npz"), "cpu")
    assert "\n" not in str(caught.value)
