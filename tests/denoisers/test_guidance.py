"""Guidance as a wrapper: what it computes, at which levels, and that it is refused where it cannot be."""

import pytest
import torch

from seedsbench.analytic import GaussianMixture
from seedsbench.denoisers.autoguidance import AutoGuided, WithWeaker
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.guidance import Auto, ClassifierFree
from seedsbench.denoisers.prediction import Guided

MEANS = torch.tensor([[0.6, -0.2], [-0.4, 0.8]], dtype=torch.float64)
STD = 0.5
X = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(6, 2, 1, 1)
CLASSES = torch.tensor([0, 1, 1, 0, 1, 0])
LABELS = torch.eye(2, dtype=torch.float64)[CLASSES]


def model():
    return GaussianMixture(MEANS, [0.5, 0.5], STD, labelled=True)


def by_hand(sigma, scale):
    """D_u + w (D_c - D_u) of two Gaussians, sample by sample, sigma (6,)."""
    rows = []
    for x, label, s in zip(X.reshape(6, 2), CLASSES, sigma, strict=True):
        shrink = STD**2 / (STD**2 + s**2)
        distances = ((x - MEANS) ** 2).sum(1)
        share = torch.softmax(-distances / (2 * (STD**2 + s**2)), 0)
        plain, own = share @ MEANS, MEANS[label]
        denoised = [centre + shrink * (x - centre) for centre in (plain, own)]
        rows.append(denoised[0] + scale * (denoised[1] - denoised[0]))
    return torch.stack(rows).reshape(X.shape)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_on_gaussians_it_is_the_formula(scale):
    sigma = torch.tensor([0.1, 0.3, 0.7, 1.0, 2.0, 9.0], dtype=torch.float64)
    found = ClassifierFree(scale=scale).of(model())(X, sigma, LABELS)
    assert torch.allclose(found, by_hand(sigma, scale), rtol=1e-12, atol=1e-12)


def test_outside_its_interval_it_is_the_network_and_costs_one():
    sigma = torch.tensor([0.1, 0.3, 0.7, 1.0, 2.0, 9.0], dtype=torch.float64)
    guided = ClassifierFree(scale=3.0, interval=(0.3, 1.0)).of(model())
    within = torch.tensor([False, False, True, True, False, False])
    assert torch.equal(guided.evaluations_at(sigma), 1 + within.long())
    expected = torch.where(within.reshape(-1, 1, 1, 1), by_hand(sigma, 3.0), model()(X, sigma, LABELS))
    assert torch.allclose(guided(X, sigma, LABELS), expected, rtol=1e-12, atol=1e-12)
    for i in range(6):  # one level for all, as most solvers ask
        alone = guided(X[i : i + 1], sigma[i], LABELS[i : i + 1])
        assert torch.equal(alone[0], guided(X, sigma, LABELS)[i])
    assert guided.evaluations == 2


def test_a_class_may_stand_for_none_and_channels_be_left_out():
    sigma, own = torch.tensor(0.7, dtype=torch.float64), model()
    conditional, second = own(X, sigma, LABELS), own(X, sigma, torch.eye(2).double()[[1] * 6])
    found = ClassifierFree(scale=3.0, null_label=1).of(own)(X, sigma, LABELS)
    assert torch.allclose(found, second + 3 * (conditional - second), rtol=1e-12, atol=1e-12)
    everywhere = ClassifierFree(scale=3.0).of(own)(X, sigma, LABELS)
    one = ClassifierFree(scale=3.0, channels=1).of(own)(X, sigma, LABELS)
    assert torch.equal(one[:, 0], everywhere[:, 0])
    assert torch.equal(one[:, 1], conditional[:, 1])
    assert not torch.allclose(everywhere[:, 1], conditional[:, 1])
    for options, said in (
        ({"null_label": 2}, r"null_label=2 must lie in \[0, 1\]: a class of the model"),
        ({"channels": 3}, r"channels=3 must lie in \[1, 2\]: the model's"),
    ):
        with pytest.raises(ValueError, match=said):
            ClassifierFree(scale=3.0, **options).of(own)


@pytest.mark.parametrize("interval", [None, (0.3, 1.0)])
def test_wrappers_around_it_say_what_it_costs(interval):
    sigma, guided = torch.tensor(0.5), Guided(model(), 2.0, interval=interval)
    assert int(FixedBatch(guided, 4).evaluations_at(sigma)) == 2
    assert int(Guided(guided, 2.0).evaluations_at(sigma)) == 4
    assert int(Guided(guided, 1.0).evaluations_at(sigma)) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": -1.0}, r"scale=-1\.0 must lie in \[0, 1000\]"),
        ({"rescale": 1.5}, r"rescale=1\.5 must lie in \[0, 1\]"),
        ({"interval": (5.0, 0.3)}, r"interval \[5, 0\.3\] is empty: give \[0\.3, 5\]"),
        ({"interval": (0.3,)}, r"interval=\(0\.3,\) must be a list of 2"),
        ({"interval": (-1.0, 5.0)}, r"interval\[0\]=-1\.0 must lie in \[0, 1e\+08\]"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=f"ClassifierFree: {said}"):
        ClassifierFree(**options)


SIGMA = torch.tensor([0.1, 0.3, 0.7, 1.0, 2.0, 9.0], dtype=torch.float64)


def weaker(labelled=True):
    """The same means, blurred as a network that was trained less might have them."""
    return GaussianMixture(MEANS, [0.5, 0.5], 2 * STD, labelled=labelled)


@pytest.mark.parametrize("scale", [0.0, 1.7])
@pytest.mark.parametrize("labelled", [True, False])
def test_autoguidance_goes_away_from_the_weaker_network(scale, labelled):
    """One that knows no classes is asked for none: guidance by an unconditional network."""
    other = weaker(labelled)
    found = AutoGuided(WithWeaker(model(), other), scale)(X, SIGMA, LABELS)
    theirs, own = other(X, SIGMA, LABELS if labelled else None), model()(X, SIGMA, LABELS)
    assert torch.allclose(found, theirs + scale * (own - theirs), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(theirs, own, atol=1e-2)


def test_autoguidance_counts_each_network_where_it_is_asked():
    pair = WithWeaker(model(), weaker())
    assert torch.equal(pair(X, SIGMA, LABELS), model()(X, SIGMA, LABELS))
    assert int(pair.evaluations_at(SIGMA[0])) == 1
    guided = AutoGuided(pair, 3.0, interval=(0.3, 1.0))
    within = torch.tensor([False, False, True, True, False, False])
    assert torch.equal(guided.evaluations_at(SIGMA), 1 + within.long())
    everywhere = AutoGuided(pair, 3.0)(X, SIGMA, LABELS)
    expected = torch.where(within.reshape(-1, 1, 1, 1), everywhere, model()(X, SIGMA, LABELS))
    assert torch.allclose(guided(X, SIGMA, LABELS), expected, rtol=1e-12, atol=1e-12)
    plain = AutoGuided(pair, 1.0)
    assert (plain.evaluations, guided.evaluations, plain.evaluations_at(SIGMA)) == (1, 2, 1)
    twice = AutoGuided(WithWeaker(model(), Guided(weaker(), 2.0)), 2.0)
    assert (twice.evaluations, twice.evaluations_at(SIGMA)) == (3, 3)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (GaussianMixture(MEANS.repeat(1, 2), [0.5, 0.5], STD, labelled=True), r"images \[4, 1, 1\], 2 cl"),
        (GaussianMixture(MEANS.repeat(2, 1), [0.25] * 4, STD, labelled=True), "4 classes"),
    ],
)
def test_a_weaker_network_of_another_task_is_refused(other, said):
    with pytest.raises(ValueError, match=f"the weaker network has .*{said}"):
        WithWeaker(model(), other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Auto: model=None and training=None: give one of them"),
        ({"model": "a.pkl", "training": 1}, "Auto: model=a.pkl and training=1: give one of them"),
        ({"training": 1, "interval": (5.0, 0.3)}, r"Auto: interval \[5, 0\.3\] is empty"),
    ],
)
def test_options_of_autoguidance_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Auto(**options)
    with pytest.raises(ValueError, match="no weaker network beside this denoiser"):
        Auto(training=1).of(model())
