"""metrics=inception and its kin: any model on any extractor, and what a row then says."""

import math
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from seedsbench import metrics
from seedsbench.bench import run as cell
from seedsbench.bench import scoring
from seedsbench.bench.problems import build as build_module
from seedsbench.bench.problems import scored_on as yardsticks
from seedsbench.bench.problems.base import Model
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.problems.glyphs import glyphs_problem
from seedsbench.bench.scoring import fid_floor
from seedsbench.data.uint8 import to_uint8
from seedsbench.denoisers.analytic import FiniteData
from seedsbench.denoisers.base import FixedBatch
from seedsbench.metrics.reference import of_images, write_statistics
from tests.support.cells import compose, key_of, run, same, samples_of
from tests.support.extractors import DIM, fake_extractor, some_images, write_images

GLYPHS = ("model=glyphs", "solver=euler", "nfe=3", "samples=8")
QUICK = (*GLYPHS, "metrics=inception", "metrics.kid_subsets=2", "metrics.floor_sets=1")


@pytest.fixture
def fake(monkeypatch, nothing_loaded):
    """metrics=inception with six features instead of 2048."""
    monkeypatch.setitem(yardsticks._EXTRACTORS, "inception", fake_extractor)


@pytest.fixture
def real(tmp_path):
    return write_images(tmp_path / "real", some_images(40, size=16, seed=1))


def reference_of(tmp_path, folder, name="ref.npz", features=False):
    found = of_images(folder, fake_extractor("None"), features=features)
    write_statistics(tmp_path / name, found, fake_extractor("None"))
    return tmp_path / name


def test_scores_are_those_of_the_features(tmp_path, fake, real):
    """A row's numbers once more, from the samples' features and the metrics as functions."""
    row = run(tmp_path, *QUICK, f"metrics.real={real}", "metrics.splits=2")
    cfg = compose(*QUICK, f"metrics.real={real}")
    problem = problem_of(cfg, "cpu")
    features, logits = problem.features.extract(to_uint8(samples_of(cfg, problem)))
    reference = of_images(real, fake_extractor(), features=True)
    fid = metrics.frechet_distance(
        features.double().mean(0), features.double().T.cov(), reference.moments.mu, reference.moments.sigma
    )
    assert row["fid"] == pytest.approx(fid, rel=1e-4)  # features are rounded, and 8 samples are few
    assert row["is_mean"] == pytest.approx(metrics.inception_score(logits, splits=2)[0], rel=1e-9)
    kid, _ = metrics.kernel_distance(features, reference.features, 2, 8)
    assert row["kid_mean"] == pytest.approx(kid, rel=1e-9)
    found = metrics.precision_recall(reference.features, features, k=3)
    assert {name: row[name] for name in found} == found


def test_rows_do_not_depend_on_the_batch_size(tmp_path, fake, real):
    overrides = [f"metrics.real={real}", "samples=11"]
    rows = [run(tmp_path / str(size), *QUICK, *overrides, f"batch_size={size}") for size in (1, 5, 11)]
    assert [same(row) for row in rows] == [same(rows[0])] * 3
    assert rows[0]["fid_floor"] > 0


def test_extrapolating_adds_two_scores_and_changes_no_other(tmp_path):
    cases = [("false", 500), ("true", 500), ("true", 7)]
    plain, *rows = (
        run(tmp_path / f"{i}", "samples=500", f"metrics.extrapolate={asked}", f"batch_size={size}")
        for i, (asked, size) in enumerate(cases)
    )
    assert same(rows[0]) == same(rows[1])
    assert rows[0]["fid"] == plain["fid"]
    assert plain["run_key"] != rows[0]["run_key"]
    assert "fid_infinity" not in plain
    assert "extrapolate" not in plain["metrics_params"]
    assert abs(rows[0]["fid_infinity"] - plain["fid"]) < 3 * rows[0]["fid_infinity_std"]


def test_a_model_without_features_takes_them_from_the_group(tmp_path, fake, real, monkeypatch):
    problem = glyphs_problem("edm")
    bare = Model("bare", problem.denoiser, problem.model_id)
    monkeypatch.setattr(build_module, "_model", lambda *_: bare)
    row = run(tmp_path, *GLYPHS)
    assert row["status"] == "failed"
    assert "bare has no features of its own to be scored on: choose metrics=inception" in row["reason"]
    row = run(tmp_path, *QUICK)
    assert "bare names no reference for metrics=inception: give metrics.reference=" in row["reason"]
    row = run(tmp_path, *QUICK, f"metrics.reference={real}")
    assert (row["status"], row["reference"], row["extractor"]) == ("done", "real", "fake")
    assert row["fid_floor"] is None
    assert "kid_mean" not in row


def test_what_is_odd_of_a_reference_is_said_in_the_row(tmp_path, fake, real):
    large = write_images(tmp_path / "large", some_images(20, size=64))
    few = write_images(tmp_path / "few", some_images(5, size=16))
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(DIM), sigma=np.eye(DIM))
    of_large, of_foreign = f"metrics.reference={reference_of(tmp_path, large)}", tmp_path / "foreign.npz"
    small, size = "metrics.kid_subset_size=20", "is of images of 64 x 64 pixels, the samples have 16 x 16: "
    singular = (
        "few is of 5 images for 6 features: its covariance is singular; few holds 5 images, fewer than "
    )
    for overrides, images, shape, warning in (
        ([f"metrics.reference={large}"], 20, "3x64x64", f"large {size}such scores compare with no others"),
        ([of_large], 20, "3x64x64", f"ref.npz {size}such scores compare with no others"),
        ([f"metrics.reference={real}", f"metrics.real={large}", small], 40, "3x16x16", f"large {size}such"),
        ([f"metrics.real={few}"], 5, "3x16x16", f"{singular}KID's subsets want"),
        ([f"metrics.real={real}", small], 40, "3x16x16", None),
        ([f"metrics.reference={of_foreign}"], None, "unknown", None),
    ):
        row = run(tmp_path, *QUICK, *overrides)
        assert (row["status"], row["reference_images"], row["reference_shape"]) == ("done", images, shape)
        assert row["warning"] is None if warning is None else row["warning"].startswith(warning)
    row = run(tmp_path, *GLYPHS)
    assert (row["reference_shape"], row["warning"]) == (None, None)


def test_grey_samples_are_scored_against_grey_images(tmp_path, fake, real, monkeypatch):
    images = some_images(12, size=16, seed=4)[:, :1]
    grey = write_images(tmp_path / "grey", images)
    data = FiniteData(images.double() / 127.5 - 1, sigma_min=0.002, sigma_max=80.0)
    monkeypatch.setattr(build_module, "_model", lambda *_: Model("grey", FixedBatch(data), "grey"))
    long = (*QUICK, "solver=heun", "nfe=35")
    row = run(tmp_path, *long, f"metrics.reference={grey}")
    assert (row["status"], row["reference_shape"], row["warning"]) == ("done", "1x16x16", None)
    other = run(tmp_path, *long, f"metrics.reference={real}")
    assert other["warning"] == "real is of colour images, the samples are grey"
    assert other["fid"] > 5 * row["fid"]


def test_run_keys_follow_contents_and_not_places(tmp_path, fake, real):
    npz, copy = reference_of(tmp_path, real), reference_of(tmp_path, real, "copy.npz")
    images = some_images(40, size=16, seed=1).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "samples.npz", images, np.arange(40))
    assert key_of(*QUICK, f"metrics.reference={npz}") == key_of(*QUICK, f"metrics.reference={copy}")
    assert key_of(*QUICK, f"metrics.real={real}") == key_of(
        *QUICK, f"metrics.real={tmp_path / 'samples.npz'}"
    )
    changed = write_images(tmp_path / "other", some_images(40, size=16, seed=2))
    held = reference_of(tmp_path, real, "held.npz", features=True)
    keys = [key_of(*QUICK, f"metrics.reference={path}") for path in (npz, changed, real)]
    keys += [key_of(*QUICK, f"metrics.reference={real}", "metrics.weights=other")]
    for option in ("splits=2", "block=5", f"real={held}", f"real={real}"):
        keys.append(key_of(*QUICK, f"metrics.reference={npz}", f"metrics.{option}"))
    assert len(set(keys)) == 8


def test_scores_of_pairs_can_be_left_out_one_by_one(tmp_path, fake, real):
    for option, left_out, kept in (
        ("metrics.neighbours=0", scoring.MANIFOLD, scoring.KERNEL),
        ("metrics.kid_subsets=0", scoring.KERNEL, scoring.MANIFOLD),
    ):
        row = run(tmp_path, *QUICK, f"metrics.real={real}", option)
        assert not row.keys() & {*left_out}
        assert row.keys() >= {*kept}


@pytest.mark.parametrize("n", [2, 3])
def test_few_real_images_cost_precision_and_recall_and_not_the_fid(tmp_path, fake, n):
    folder = write_images(tmp_path / "few", some_images(n, size=16, seed=1))
    row = run(tmp_path, *QUICK, f"metrics.real={folder}")
    assert row["status"] == "done"
    assert math.isfinite(row["fid"])
    assert math.isfinite(row["kid_mean"])
    assert [row[name] for name in scoring.MANIFOLD] == [None] * 4
    expected = f"no precision, recall, density, coverage: k = 3 neighbours do not exist among {n} real"
    assert expected in row["warning"]
    fewer = run(tmp_path, *QUICK, f"metrics.real={folder}", "metrics.neighbours=1")
    assert "neighbours do not exist" not in fewer["warning"], "what is left is that the images are few"
    assert None not in [fewer[name] for name in scoring.MANIFOLD]


@pytest.mark.parametrize(
    ("where", "name", "scores"),
    [
        (scoring.InceptionScore, "compute", ("is_mean", "is_std")),
        (scoring, "kernel_distance", scoring.KERNEL),
        (scoring, "precision_recall", scoring.MANIFOLD),
        (cell, "fid_floor", scoring.FLOOR),
    ],
)
@pytest.mark.parametrize("error", [ValueError, torch.linalg.LinAlgError])
def test_no_score_beside_fid_takes_it_down(tmp_path, fake, real, monkeypatch, where, name, scores, error):
    whole = run(tmp_path, *QUICK, f"metrics.real={real}", "study=whole")

    monkeypatch.setattr(where, name, Mock(side_effect=error("it does\nnot converge")))
    row = run(tmp_path, *QUICK, f"metrics.real={real}")
    assert f"no {', '.join(scores)}: it does not converge" in row["warning"].split("; ")
    for one in ("fid", *scoring.FLOOR, "is_mean", "is_std", *scoring.KERNEL, *scoring.MANIFOLD):
        assert row[one] == (None if one in scores else whole[one]), one


def test_an_error_of_the_fid_fails_the_row(tmp_path, fake, real, monkeypatch):
    monkeypatch.setattr(scoring.FID, "compute", Mock(side_effect=ValueError("no covariance")))
    row = run(tmp_path, *QUICK, f"metrics.real={real}")
    assert row["status"] == "failed"
    assert row["reason"] == "no covariance"


def test_the_floor_needs_twice_as_many_real_images(fake, real):
    problem = problem_of(compose(*QUICK, f"metrics.real={real}"), "cpu")
    fewer, most, too_many = (fid_floor(problem, n, "balanced", 2)["fid_floor"] for n in (10, 20, 21))
    assert fewer > most > 0
    assert too_many is None


def test_the_floors_spread_is_that_of_its_sets():
    problem = problem_of(compose("model=gaussian"), "cpu")
    one, two = (fid_floor(problem, 50, "none", sets) for sets in (1, 2))
    assert one["fid_floor_std"] is None
    second = 2 * two["fid_floor"] - one["fid_floor"]  # the first set is the same
    assert two["fid_floor_std"] == pytest.approx(abs(second - one["fid_floor"]) / math.sqrt(2), rel=1e-9)
