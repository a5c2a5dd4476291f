"""What networks put out as denoised images and back; classifier-free guidance and its rescaling."""

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.prediction import Guided, Predicted, denoised_of, raw_output_of, rescale_guided
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Discrete, Linear
from tests.support.golden import mixture_parameters

KINDS = ("epsilon", "sample", "v_prediction", "flow_prediction")


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
    outputs = {"epsilon": noise, "sample": image, "v_prediction": a * noise - s * image}
    output = {**outputs, "flow_prediction": noise - image}[kind]
    assert torch.allclose(denoised_of(kind, output, x_t, sigma), image, atol=1e-11)
    assert torch.allclose(raw_output_of(kind, image, x_t, sigma), output, atol=1e-11)


def seen_by(schedule, sigmas, dtype=torch.float64):
    """The times that a v network is told at these levels."""
    times = []

    def network(x_t, t, labels):
        times.append(float(t))
        return x_t * 0.1

    predicted = Predicted(network, "v_prediction", schedule, img_channels=2, img_resolution=1)
    for sigma in sigmas:
        predicted(draw(1, 2, 1, 1), torch.tensor(sigma, dtype=dtype))
    return predicted, times


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
def test_a_network_is_told_no_time_off_its_table(betas, rescaled):
    table = Discrete(beta_schedule=betas, rescale_betas_zero_snr=rescaled)
    own = table.short_of_limit().log_sigmas.exp()
    predicted, times = seen_by(table, [1e-4, *own[[0, 1, 998, 999]].tolist(), 1e6, 1e15])
    assert times == [0, 0, 1, 998, 999, 999, 999]
    assert (predicted.sigma_min, predicted.sigma_max) == (float(own[0]), float(own[-1]))
    single = seen_by(table, own[[0, 1, 500, 998, 999]].tolist(), torch.float32)[1]
    assert single == [0, 1, 500, 998, 999]
    between = float((own[7] * own[8]).sqrt())
    assert seen_by(table, [between])[1] == pytest.approx([7.5])
    levels = torch.tensor([1e-4, float(own[3]) * 1.0001, float(own[999]), 1e15], dtype=torch.float64)
    rounded = predicted.round_sigma(levels)
    assert torch.equal(rounded[:3], own[[0, 3, 999]])
    # Where no signal is left a run may start in the limit, as diffusers' DDIM does.
    assert float(rounded[3]) == (1e15 if rescaled else float(own[999]))


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun", "dpm2", "seeds3", "unipc"])
def test_from_zero_snr_every_solver_tells_the_network_its_last_timestep(name):
    schedule = Discrete(rescale_betas_zero_snr=True)
    predicted, times = seen_by(schedule, [])
    grid = {"name": "discrete", "timestep_spacing": "trailing"}
    seedsbench.sample(predicted, draw(2, 2, 1, 1), solver=name, nfe=12, schedule=schedule, grid=grid)
    assert times[0] == max(times) == 999
    assert min(times) >= 0


ONE = tuple(torch.linspace(1e-3, 0.2, 99).double().tolist())


@pytest.mark.parametrize(
    "table",
    [
        Discrete(rescale_betas_zero_snr=True),
        Discrete(rescale_betas_zero_snr=True, terminal_alpha_cumprod=2**-24),
        Discrete(num_train_timesteps=100, trained_betas=(*ONE, 1.0)),
        Discrete(num_train_timesteps=100, trained_betas=(*ONE, 1.0 - 1e-16)),
    ],
)
def test_epsilon_says_nothing_where_no_signal_is(table):
    shape = {"img_channels": 2, "img_resolution": 1}
    said = r"'epsilon' on a table that ends without signal .*use .*'v_prediction'"
    with pytest.raises(ValueError, match=said):
        Predicted(None, "epsilon", table, **shape)
    with pytest.raises(ValueError, match="ends without signal"):
        DiscreteNoisePrediction(table)
    with pytest.raises(ValueError, match=r"'eps' must be one of epsilon, sample, v_prediction"):
        Predicted(None, "eps", table, **shape)
    for kind in ("sample", "v_prediction"):
        Predicted(None, kind, table, **shape)
    assert DiscreteNoisePrediction(table, predicts="sample").sigma_max < 1e5
    for other in (Discrete(), Discrete(beta_schedule="squaredcos_cap_v2", num_train_timesteps=4000)):
        assert DiscreteNoisePrediction(other).sigma_max < 1e5
        assert not other.no_signal


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
    outputs = [raw_output_of(kind, image, x_t, sigma) for image in (plain, conditional)]
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
    if scale == 1:
        x, sigma = draw(3, 1, 4, 4), torch.tensor(2.0, dtype=torch.float64)
        assert torch.equal(guided(x, sigma, LABELS), network(x, sigma, LABELS))


def test_without_labels_there_is_nothing_to_guide():
    unconditional = seedsbench.analytic.GaussianMixture(*mixture_parameters())
    assert Process(Guided(unconditional, 5.0), Linear(), 2).cost == 1
    network = TwoClasses()
    with pytest.raises(ValueError, match="needs labels"):
        seedsbench.sample(Guided(network, 5.0), draw(3, 1, 4, 4), solver="ddim", steps=2)
    assert network.calls == 0
    with pytest.raises(ValueError, match=r"guidance_rescale=1\.5 must lie in \[0, 1\]"):
        Guided(network, 5.0, guidance_rescale=1.5)
