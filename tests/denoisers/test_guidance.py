"""Guidance as a wrapper: what it computes, at which levels, and that it is refused where it cannot be."""

import pytest
import torch

from seedsbench.analytic import GaussianMixture
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.guidance import ClassifierFree
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
