"""What finished samples measure before they are quantised: in every row, to the bit; who fails for it."""

from unittest.mock import Mock

import pytest
import torch

from seedsbench.bench import sanity
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.sampling import SampleBatch
from seedsbench.metrics.extraction import Extractor
from tests.support.cells import compose, config_dir, run, samples_of

SIZES = ("largest", "largest_data", "saturated", "warning")
WRONG_SIGN = '''
"""Euler's method, uphill."""

from dataclasses import dataclass

from seedsbench.diffusion.process import expand
from seedsbench.solvers import OneStage, StepResult


@dataclass(frozen=True)
class Uphill(OneStage):
    """x moves away from what the network says."""

    order = 1

    def update(self, x, denoised, sigma, sigma_next, state, noise):
        return StepResult(x - expand((sigma_next - sigma) / sigma, x) * (x - denoised), state)
'''


@pytest.fixture
def uphill(tmp_path, monkeypatch):
    """A --config-dir with solver=uphill."""
    return config_dir(monkeypatch, tmp_path, "solver", "uphill_solver", WRONG_SIGN, {"uphill": "Uphill"})


@pytest.mark.parametrize(
    ("overrides", "bound"),
    [
        (["model=glyphs", "regime=vp", "solver=heun", "nfe=10", "samples=40"], 1.0),
        (["model=gaussian", "solver=euler_maruyama", "nfe=3"], 0.3 + 6 * 0.5),
    ],
)
def test_a_row_says_the_largest_value_and_the_share_that_no_data_can_have(tmp_path, overrides, bound):
    """Of images in [-1, 1] by more than one level; of a Gaussian, beyond six of its standard deviations."""
    row, cell = run(tmp_path, *overrides), compose(*overrides)
    x = samples_of(cell, problem_of(cell, "cpu")).abs()
    assert row["largest"] == float(x.max())
    assert row["largest_data"] == pytest.approx(bound, abs=1e-12)
    assert row["saturated"] == float((x > row["largest_data"] + 1 / 127.5).double().mean()) > 0.2


@pytest.mark.parametrize("model", ["glyphs", "gaussian"])
def test_divergent_samples_fail_the_row_and_are_never_scored(tmp_path, uphill, monkeypatch, model):
    monkeypatch.setattr(Extractor, "padded", Mock(side_effect=AssertionError("scored")))
    overrides = [f"model={model}", "solver=uphill", "nfe=10"]
    row, *others = (
        run(tmp_path / str(size), *overrides, f"batch_size={size}", config_dirs=[uphill])
        for size in (1, 7, 20)
    )
    assert row["status"] == "failed"
    assert row["reason"].startswith(f"samples diverged: largest |x| is {row['largest']:.3g} in sample ")
    assert row["largest"] > sanity.FAILED_BEYOND * row["largest_data"]
    assert (row["fid"], row["saturated"]) == (None, 1.0)
    for other in others:
        assert [other[name] for name in (*SIZES, "reason")] == [row[name] for name in (*SIZES, "reason")]


def test_an_image_of_4e15_is_no_image():
    found = problem_of(compose("model=glyphs"), "cpu")
    x = torch.zeros(3, *found.denoiser.image_shape, dtype=torch.float64)
    x[2, 0, 5, 5] = 4e15
    expected = r"largest \|x\| is 4e\+15 in sample 9, the data's is 1 "
    with pytest.raises(sanity.Diverged, match=expected) as caught:
        sanity.extents(found, SampleBatch(torch.tensor([7, 8, 9]), x, torch.ones(3)))
    assert caught.value.facts == {"largest": 4e15, "largest_data": 1.0, "saturated": 1 / x[0].numel()}


def test_the_size_is_in_the_row_though_another_error_brings_it():
    """As it comes from rank 0's share when several ranks are in step."""
    error = ValueError("rank 0: samples diverged")
    error.__cause__ = sanity.Diverged("samples diverged", {"largest": 7.0})
    assert sanity.facts_in(error) == {"largest": 7.0}
    assert sanity.facts_in(ValueError("another")) == {}


def test_bad_samples_are_done_with_a_warning_and_good_ones_without(tmp_path):
    """Heun in VP's coordinates in four steps has FID 68: bad, and what it is."""
    glyphs = ("model=glyphs", "solver=heun", "samples=64")
    row = run(tmp_path, *glyphs, "regime=vp", "nfe=10")
    assert (row["status"], round(row["fid"])) == ("done", 69)
    assert row["warning"].startswith(
        "samples may have diverged: largest |x| is 4.86, the data's is 1, and 38.9%"
    )
    row = run(tmp_path, *glyphs, "nfe=20")
    assert (row["status"], row["warning"]) == ("done", None)
    assert 1 < row["largest"] < 2
    row = run(tmp_path, "model=gaussian", "solver=heun", "regime=vp", "nfe=9")
    assert (row["status"], row["warning"], row["saturated"]) == ("done", None, 0.0)


@pytest.mark.parametrize(
    ("largest", "share", "warned"), [(10.0, 0.25, 0), (10.1, 0.0, 1), (1.1, 0.26, 1), (499.0, 1.0, 1)]
)
def test_bounds_of_a_warning(largest, share, warned):
    facts = {"largest": 2 * largest, "largest_data": 2.0, "saturated": share}
    assert len(sanity.divergence_warnings(facts)) == warned
