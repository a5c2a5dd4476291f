"""What networks put out as denoised images and back; classifier-free guidance and its rescaling."""

import numpy as np
import pytest
import torch
from conftest import mixture_parameters

import seedsbench
from seedsbench.denoisers.prediction import Guided, Predicted, denoised_of, output_of, rescale_guided
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Discrete, Linear

KINDS = ("epsilon", "sample", "v_prediction")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [1e-3, 0.7, 81.0, [0.1, 1.0, 10.0, 100.0]])
def test_outputs_and_images_are_inverse(kind, sigma):
    sigma, image, noise = torch.tensor(sigma, dtype=torch.float64), draw(4, 2, 3, 3), draw(4, 2, 3, 3, seed=1)
    level = sigma.reshape(-1, 1, 1, 1)
    a = 1 / (1 + level**2).sqrt()
    s = level * a
    x_t = a * image + s * noise
    output = {"epsilon": noise, "sample": image, "v_prediction": a * noise - s * image}[kind]
    assert torch.allclose(denoised_of(kind, output, x_t, sigma), image, atol=1e-11)
    assert torch.allclose(output_of(kind, image, x_t, sigma), output, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_any_prediction_samples_alike(kind):
    mixture, schedule = seedsbench.analytic.GaussianMixture(*mixture_parameters()), Discrete()

    def network(x_t, t, labels):
        sigma = schedule.sigma(t)
        return output_of(kind, mixture(x_t * (1 + sigma**2).sqrt(), sigma), x_t, sigma)

    predicted = Predicted(network, kind, schedule, img_channels=2, img_resolution=1)
    run = {"solver": "ddim", "steps": 8, "schedule": schedule, "grid": "discrete"}
    got, expected = (seedsbench.sample(d, draw(3, 2, 1, 1), **run).x for d in (predicted, mixture))
    assert torch.allclose(got, expected, atol=1e-10)
    with pytest.raises(
        ValueError, match=r"prediction_type='eps' must be one of epsilon, sample, v_prediction"
    ):
        Predicted(network, "eps", schedule, img_channels=2, img_resolution=1)


def test_rescaling_is_the_formula_sample_by_sample():
    guided, conditional = 5 * draw(4, 3, 6, 6), draw(4, 3, 6, 6, seed=1)
    axes = (1, 2, 3)
    factor = conditional.numpy().std(axes, keepdims=True) / guided.numpy().std(axes, keepdims=True)
    for phi in (0.0, 0.7, 1.0):
        expected = phi * guided.numpy() * factor + (1 - phi) * guided.numpy()
        got = rescale_guided(guided, conditional, phi)
        assert np.allclose(got.numpy(), expected, rtol=1e-12, atol=0)
        parts = zip(guided.split(3), conditional.split(3), strict=True)
        assert torch.equal(torch.cat([rescale_guided(g, c, phi) for g, c in parts]), got)
    assert rescale_guided(torch.ones(1, 1, 2, 2), draw(1, 1, 2, 2), 1.0).isfinite().all()


class TwoClasses:
    """Denoised images of another contrast for each label, and a third where there is none."""

    img_channels, img_resolution, image_shape, label_dim = 1, 4, (1, 4, 4), 2
    sigma_min, sigma_max, sigma_data, evaluations = 0.01, 50.0, None, 1

    def __init__(self):
        self.calls = 0

    def __call__(self, x, sigma, labels=None):
        assert labels is not None
        self.calls += 1
        gain = labels @ torch.tensor([0.6, -0.4], dtype=x.dtype)
        return x * (1 + gain.reshape(-1, 1, 1, 1)) / (1 + sigma**2)

    def round_sigma(self, sigma):
        return sigma


LABELS = torch.eye(2, dtype=torch.float64)[[0, 1, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_extrapolates_in_any_prediction(kind):
    network, x, sigma = TwoClasses(), draw(3, 1, 4, 4), torch.tensor(2.0, dtype=torch.float64)
    plain, conditional = network(x, sigma, 0 * LABELS), network(x, sigma, LABELS)
    got = Guided(network, 4.0, prediction_type=kind)(x, sigma, LABELS)
    assert torch.allclose(got, plain + 4 * (conditional - plain), rtol=1e-12)

    x_t = x / (1 + sigma**2).sqrt()
    outputs = [output_of(kind, image, x_t, sigma) for image in (plain, conditional)]
    mixed = rescale_guided(outputs[0] + 4 * (outputs[1] - outputs[0]), outputs[1], 0.7)
    rescaled = Guided(network, 4.0, guidance_rescale=0.7, prediction_type=kind)(x, sigma, LABELS)
    assert torch.allclose(rescaled, denoised_of(kind, mixed, x_t, sigma), rtol=1e-10)
    assert not torch.allclose(rescaled, got)


@pytest.mark.parametrize(("scale", "cost"), [(1.0, 1), (0.0, 2), (7.5, 2)])
def test_guidance_is_counted(scale, cost):
    network = TwoClasses()
    guided = Guided(network, scale, guidance_rescale=0.5)
    assert guided.evaluations == cost
    result = seedsbench.sample(guided, draw(3, 1, 4, 4), solver="heun", steps=3, labels=LABELS)
    assert result.nfe.tolist() == [7 * cost] * 3
    assert network.calls == 7 * cost


def test_guidance_of_scale_one_is_the_conditional_model():
    network, x, sigma = TwoClasses(), draw(3, 1, 4, 4), torch.tensor(2.0, dtype=torch.float64)
    assert torch.equal(Guided(network, 1.0)(x, sigma, LABELS), network(x, sigma, LABELS))


def test_without_labels_there_is_nothing_to_guide():
    unconditional = seedsbench.analytic.GaussianMixture(*mixture_parameters())
    assert Process(Guided(unconditional, 5.0), Linear(), 2).cost == 1
    network = TwoClasses()
    with pytest.raises(ValueError, match="needs labels"):
        seedsbench.sample(Guided(network, 5.0), draw(3, 1, 4, 4), solver="ddim", steps=2)
    assert network.calls == 0
    with pytest.raises(ValueError, match=r"guidance_rescale=1\.5 must lie in \[0, 1\]"):
        Guided(network, 5.0, guidance_rescale=1.5)
