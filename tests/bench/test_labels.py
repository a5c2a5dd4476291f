"""Samples' classes have the shares that the data have, so that samples, floor and reference agree."""

import pytest
import torch

from seedsbench.bench.labels import classes_of
from seedsbench.bench.problems.analytic import mixture_problem
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.scoring import fid_floor
from tests.support.cells import compose, run

WEIGHTS = [
    (0.5, 0.3, 0.2),
    (0.2, 0.3, 0.5),
    (0.9, 0.1),
    (1 / 3, 2 / 3),
    (2**0.5 - 1, 2 - 2**0.5),
    (0.05,) * 12 + (0.4,),
    tuple(torch.softmax(torch.linspace(-2, 3, 10, dtype=torch.float64), 0).tolist()),
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=len)
def test_balanced_classes_have_their_shares_among_the_first_n_for_every_n(weights):
    n = 5000
    classes = classes_of(torch.arange(n), "balanced", len(weights), 0, weights)
    counts = torch.nn.functional.one_hot(classes, len(weights)).cumsum(0)
    wanted = torch.arange(1, n + 1)[:, None] * torch.tensor(weights, dtype=torch.float64)
    assert float((counts - wanted).abs().max()) < 2.5
    assert bool((counts[-1] > 0).all())


def test_shares_are_right_far_out_too():
    far = torch.arange(2**32 - 10_000, 2**32)
    classes = classes_of(far, "balanced", 3, 0, (0.5, 0.3, 0.2))
    assert torch.bincount(classes).tolist() == [5000, 3000, 2000]


@pytest.mark.parametrize("weights", WEIGHTS, ids=len)
def test_random_classes_have_their_shares_on_average(weights):
    n = 20_000
    classes = classes_of(torch.arange(n), "random", len(weights), 1, weights)
    share = torch.tensor(weights)
    found = torch.bincount(classes, minlength=len(weights)) / n
    assert bool(((found - share).abs() < 5 * (share * (1 - share) / n).sqrt()).all())
    assert not torch.equal(classes, classes_of(torch.arange(n), "random", len(weights), 2, weights))


@pytest.mark.parametrize("n_classes", [2, 3, 7, 10, 49, 1000])
@pytest.mark.parametrize("labels", ["balanced", "random"])
def test_equal_weights_are_no_weights(n_classes, labels):
    indices = torch.cat([torch.arange(3000), torch.arange(2**32 - 3000, 2**32)])
    plain = classes_of(indices, labels, n_classes, 3)
    assert torch.equal(classes_of(indices, labels, n_classes, 3, (1 / n_classes,) * n_classes), plain)


@pytest.mark.parametrize("labels", ["balanced", "random"])
def test_a_class_depends_on_its_index_alone(labels):
    indices = torch.arange(500)
    whole = classes_of(indices, labels, 3, 4, WEIGHTS[0])
    order = torch.arange(499, -1, -3)
    assert torch.equal(classes_of(indices[order], labels, 3, 4, WEIGHTS[0]), whole[order])


@pytest.mark.parametrize("labels", ["balanced", "random", "none"])
def test_the_mixtures_floor_falls_as_one_over_n(labels):
    """Samples of other class shares than the reference's would leave a floor of their own, 0.03."""
    problem = problem_of(compose(), "cpu")
    few, many = (fid_floor(problem, n, labels, 16)["fid_floor"] for n in (300, 4800))
    assert 4 < few / many < 64


@pytest.mark.parametrize("chosen", [["labels=balanced"], ["labels=random"], ["labels=random", "seeding=edm"]])
def test_exact_samples_reach_the_floor(tmp_path, chosen):
    row = run(tmp_path, *chosen, "solver=heun", "nfe=59", "samples=3000", "batch_size=3000")
    assert row["fid"] < 5 * row["fid_floor"] < 0.005


def test_equal_shares_are_no_part_of_a_mixtures_identity():
    assert problem_of(compose("model=gaussian"), "cpu").model_id == "8f3664c842041383"
    means = [[0.3, -0.2], [0.1, 0.4]]
    even, uneven = (mixture_problem("edm", "m", means, shares, 0.5) for shares in ([0.5, 0.5], [0.4, 0.6]))
    assert even.model_id == "a3045e70bf457b62" != uneven.model_id
