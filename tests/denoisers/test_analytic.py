"""Exact denoisers: Gaussian mixtures, one Gaussian, a finite set of images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedsbench.denoisers.analytic import FiniteData, Gaussian, GaussianMixture
from seedsbench.exact import same_bits
from tests.support.golden import golden, mixture_parameters

LEVELS = st.floats(1e-3, 2e4)
MIXTURE = GaussianMixture(*mixture_parameters())


def normal(*shape, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape))


def wide_mixture(labelled=False):
    return GaussianMixture(normal(5, 3, 4, 4, seed=1), [0.1, 0.3, 0.2, 0.25, 0.15], 0.2, labelled=labelled)


def observed(denoiser, sigma, batch=6, seed=0):
    data = denoiser.draw(torch.arange(batch), seed, 0)
    return data + sigma * normal(*data.shape, seed=seed + 10)


# Gaussian mixtures


def test_mixture_agrees_with_reference():
    data, case = golden("mixture"), "denoiser_sigma_space"
    x, sigma = data.tensor(case, "x"), data.tensor(case, "sigma")
    for found, name in ((MIXTURE, "D"), (MIXTURE.score, "score"), (MIXTURE.log_density, "logp")):
        torch.testing.assert_close(found(x, sigma), data.tensor(case, name), rtol=1e-12, atol=1e-13)
    case = "denoiser_scaled_space"
    a, s = data.tensor(case, "a"), data.tensor(case, "s")
    rows = (a > 0) & (s > 0)
    x = data.tensor(case, "y")[rows] / a[rows].reshape(-1, 1, 1, 1)
    expected = data.tensor(case, "D")[rows]
    torch.testing.assert_close(MIXTURE(x, (s / a)[rows]), expected, rtol=1e-11, atol=1e-12)


@settings(max_examples=40)
@given(sigma=LEVELS)
def test_denoiser_is_x_plus_variance_times_score(sigma):
    level = torch.tensor(sigma, dtype=torch.float64)
    for model in (MIXTURE, wide_mixture()):
        x = observed(model, sigma)
        denoised = model(x, level)
        assert torch.isfinite(denoised).all()
        scale = float(x.abs().max())
        expected = x + sigma**2 * model.score(x, level)
        torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-14 * scale + 1e-14)


def test_finite_data_is_the_limit_of_narrow_mixtures_and_has_its_own():
    images = normal(9, 2, 2, 2, seed=8)
    finite, narrow = FiniteData(images), GaussianMixture(images, np.full(9, 1 / 9), 1e-7)
    for sigma in (0.05, 0.5, 5.0, 2e4):
        x, level = observed(finite, sigma), torch.tensor(sigma, dtype=torch.float64)
        torch.testing.assert_close(finite(x, level), narrow(x, level), rtol=0, atol=1e-7)
    nearby = images + 1e-4 * normal(9, 2, 2, 2)
    for sigma in (0.0, 1e-3, 1e-2):
        torch.testing.assert_close(finite(nearby, torch.tensor(sigma)), images, rtol=0, atol=1e-12)
    torch.testing.assert_close(finite(nearby, torch.tensor(1e9))[0], images.mean(0), rtol=0, atol=1e-12)
    counts = torch.bincount(finite.draw(torch.arange(8100), 0, 0)[:, 0, 0, 0].unique(return_inverse=True)[1])
    assert (counts - 900).abs().max() < 150


def test_limits_of_small_and_large_noise():
    model = wide_mixture()
    mean = torch.as_tensor(model.moments()[0]).reshape(model.image_shape)
    x = observed(model, 0.0)
    torch.testing.assert_close(model(x, torch.tensor(0.0)), x, rtol=0, atol=1e-15)
    torch.testing.assert_close(model(x, torch.tensor(1e-8)), x, rtol=0, atol=1e-13)
    far = 1e6 * normal(6, 3, 4, 4)
    torch.testing.assert_close(model(far * 0, torch.tensor(1e8)), mean.expand(6, 3, 4, 4), rtol=0, atol=1e-12)
    assert (model(far, torch.tensor(1e8)) - mean).abs().max() < 0.1
    assert torch.isfinite(model(far, torch.tensor(1e-3))).all()


def test_responsibilities_are_log_probabilities():
    x, (means, weights, std) = observed(MIXTURE, 0.3), mixture_parameters()
    log_p = MIXTURE.responsibilities(x, torch.tensor(0.3).double())
    squared = ((x.reshape(6, 1, 2).numpy() - means) ** 2).sum(2)
    plain = torch.as_tensor(np.log(weights) - squared / (2 * (std**2 + 0.3**2))).log_softmax(1)
    torch.testing.assert_close(log_p, plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(6, dtype=torch.float64), rtol=1e-14, atol=0)


def test_draws_have_the_moments_and_the_weights():
    model = wide_mixture()
    mean, covariance = model.moments()
    x = model.draw(torch.arange(20_000), 3, 1).reshape(20_000, -1).numpy()
    assert np.abs(x.mean(0) - mean).max() < 5 * np.sqrt(covariance.max() / 20_000)
    assert np.abs(np.cov(x, rowvar=False) - covariance).max() < 0.1 * covariance.max()
    shares = torch.as_tensor(model.responsibilities(torch.as_tensor(x), torch.tensor(0.0))).argmax(1)
    assert np.abs(np.bincount(shares, minlength=5) / 20_000 - model.weights.numpy()).max() < 0.02


@pytest.mark.parametrize("model", [MIXTURE, FiniteData(normal(7, 1, 2, 2), [0, 1, 2, 0, 1, 2, 0])])
def test_a_draw_belongs_to_its_sample_index(model):
    whole = model.draw(torch.arange(50), 1, 2)
    part = model.draw(torch.tensor([40, 3]), 1, 2)
    assert torch.equal(part, whole[[40, 3]])
    assert not torch.equal(whole, model.draw(torch.arange(50), 2, 2))
    assert not torch.equal(whole, model.draw(torch.arange(50), 1, 3))


CLASSES = torch.arange(10) % 5
IMAGES = normal(10, 3, 4, 4)


@pytest.mark.parametrize(
    ("model", "alone"),
    [
        (wide_mixture(labelled=True), lambda k: GaussianMixture(wide_mixture().means[k : k + 1], [1.0], 0.2)),
        (FiniteData(IMAGES, CLASSES), lambda k: FiniteData(IMAGES[k == CLASSES])),
    ],
)
def test_labels_choose_a_part_and_a_zero_row_none(model, alone):
    x, sigma, chosen = observed(model, 0.7), torch.tensor(0.7), [0, 4, 2, 1, 3]
    assert model.label_dim == 5
    labels = torch.cat([torch.eye(5)[chosen], torch.zeros(1, 5)])
    denoised, drawn = model(x, sigma, labels), model.draw(torch.arange(6), 0, 0, labels)
    for i, k in enumerate(chosen):
        part, one = alone(k), x[i : i + 1]
        torch.testing.assert_close(denoised[i : i + 1], part(one, sigma), rtol=1e-12, atol=1e-12)
        if isinstance(part, GaussianMixture):
            density = model.log_density(x, sigma, labels)[i : i + 1]
            torch.testing.assert_close(density, part.log_density(one, sigma), rtol=1e-13, atol=1e-13)
            assert (drawn[i].flatten() - part.means).abs().max() < 6 * 0.2
        else:
            assert (drawn[i] == IMAGES[k == CLASSES]).flatten(1).all(1).any()
    torch.testing.assert_close(denoised[5], model(x, sigma)[5], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("sigma", [1e-3, 0.4, 7.0, 2e4])
def test_results_have_the_same_bits_in_every_batch_and_position(sigma):
    model = wide_mixture(labelled=True)
    x = observed(model, sigma, batch=67)
    level = sigma * (1 + torch.arange(67, dtype=torch.float64) / 67)
    labels = torch.eye(5)[torch.arange(67) % 5] * (torch.arange(67) % 3 > 0)[:, None]
    whole = model(x, level, labels)
    log_p = model.responsibilities(x, level)
    for size in (1, 3, 8, 64):
        for start in range(0, 67, size):
            rows = slice(start, start + size)
            assert torch.equal(model(x[rows], level[rows], labels[rows]), whole[rows])
            assert torch.equal(model.responsibilities(x[rows], level[rows]), log_p[rows])


def test_output_has_dtype_and_shape_of_x_and_a_scalar_sigma_does_for_all():
    assert GaussianMixture(*mixture_parameters(), image_shape=(1, 2, 1)).image_shape == (1, 2, 1)
    assert (MIXTURE.image_shape, wide_mixture().image_shape) == ((2, 1, 1), (3, 4, 4))
    x = observed(MIXTURE, 1.0)
    wide = MIXTURE(x.reshape(6, 1, 2, 1), torch.tensor(1.0))
    assert torch.equal(wide, MIXTURE(x, torch.tensor(1.0)).reshape(6, 1, 2, 1))
    single = MIXTURE(x.float(), torch.tensor(1.0))
    assert single.dtype == torch.float32
    assert torch.equal(MIXTURE(x.float().double(), torch.ones(6)).float(), single)


def test_a_diverged_sample_stays_visible_and_alone():
    x = observed(MIXTURE, 1.0)
    x[2, 0], x[3, 0] = math.nan, math.inf
    denoised = MIXTURE(x, torch.tensor(1.0))
    assert not torch.isfinite(denoised[[2, 3]]).any(dim=1).any()
    assert torch.isfinite(denoised[[0, 1, 4, 5]]).all()


# One Gaussian


@settings(max_examples=25)
@given(sigma=LEVELS, std=st.floats(0.01, 3.0))
def test_gaussian_denoiser_is_linear_shrinkage(sigma, std):
    mean = normal(1, 2, 2, seed=4)
    model = Gaussian(mean, std, (1, 2, 2))
    x = mean + sigma * normal(5, 1, 2, 2)
    expected = (sigma**2 * mean + std**2 * x) / (sigma**2 + std**2)
    denoised = model(x, torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(denoised, expected, rtol=1e-12, atol=1e-12)


def test_gaussian_takes_a_scalar_mean():
    model = Gaussian(0.25, 0.5, (3, 2, 2))
    for found, expected in zip(model.moments(), (np.full(12, 0.25), 0.25 * np.eye(12)), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (model.image_shape, model.img_channels, model.img_resolution) == ((3, 2, 2), 3, 2)


# Finite data


def test_finite_data_moments_are_those_of_the_set():
    images = normal(30, 1, 2, 2)
    mean, covariance = FiniteData(images).moments()
    np.testing.assert_allclose(mean, images.flatten(1).mean(0), atol=1e-15)
    np.testing.assert_allclose(covariance, images.flatten(1).T.cov(correction=0), atol=1e-14)


def test_finite_data_blocks_do_not_matter():
    class InBlocks(FiniteData):
        block_entries = 20

    images, classes, sigma = normal(9, 1, 2, 2), torch.arange(9) % 3, torch.linspace(0.1, 2, 7)
    x, labels = normal(7, 1, 2, 2, seed=1), torch.eye(3)[torch.arange(7) % 3]
    whole, blocks = (model(images, classes)(x, sigma, labels) for model in (FiniteData, InBlocks))
    torch.testing.assert_close(blocks, whole, rtol=1e-13, atol=1e-13)


# Noise levels


def test_round_sigma_snaps_to_the_nearest_level_of_the_table():
    table = torch.tensor([10.0, 0.5, 1.0, 4.0])
    model = GaussianMixture(*mixture_parameters(), sigma_table=table)
    sigma = torch.tensor([0.0, 0.5, 0.74, 0.75, 0.76, 3.0, 6.9, 7.1, 1e5], dtype=torch.float64)
    assert model.round_sigma(sigma).tolist() == [0.5, 0.5, 0.5, 0.5, 1.0, 4.0, 4.0, 10.0, 10.0]
    assert model.round_sigma(sigma.float()).dtype == torch.float32
    assert model.round_sigma(torch.tensor(0.9)).shape == ()
    assert torch.equal(MIXTURE.round_sigma(sigma), sigma)


ONE = torch.tensor(1.0)
REFUSED = [
    (lambda: GaussianMixture([[0.0, 1.0]], [0.9], 1.0), r"weights \[0.9\] must be positive and sum to 1"),
    (lambda: GaussianMixture([[0.0], [1.0]], [1.5, -0.5], 1.0), "must be positive"),
    (lambda: GaussianMixture([[0.0], [1.0]], [1.0], 1.0), r"expected one for each mean, \(2,\)"),
    (lambda: GaussianMixture([[0.0]], [1.0], 0.0), "std 0.0 must be positive"),
    (lambda: GaussianMixture([0.0], [1.0], 1.0), r"means have shape \(1,\)"),
    (lambda: GaussianMixture([[math.nan]], [1.0], 1.0), "expected finite"),
    (lambda: GaussianMixture([[0.0, 1.0]], [1.0], 1.0, image_shape=(3, 1, 1)), "does not hold 2"),
    (lambda: MIXTURE(normal(4, 3, 1, 1), ONE), "expected 2 values a sample"),
    (lambda: MIXTURE(normal(4, 2, 1, 1), torch.ones(3)), r"shape \(3,\); expected \(\) or \(4,\)"),
    (lambda: MIXTURE(normal(4, 2, 1, 1), ONE, torch.zeros(4, 3)), "unconditional model"),
    (lambda: FiniteData(torch.zeros(3, 4)), r"images have shape \(3, 4\)"),
    (lambda: FiniteData(torch.zeros(0, 1, 2, 2)), "n >= 1"),
    (lambda: FiniteData(torch.full((1, 1, 1, 1), math.inf)), "expected finite"),
    (lambda: FiniteData(torch.zeros(3, 1, 1, 1), [0, 1]), r"labels have shape \(2,\)"),
    (lambda: FiniteData(torch.zeros(3, 1, 1, 1), [0.0, 1.0, 2.0]), "expected 3 integers"),
    (lambda: FiniteData(torch.zeros(3, 1, 1, 1), [0, 0, 2]), "each with at least one image"),
    (lambda: FiniteData(torch.zeros(3, 1, 1, 1), [0, 0, -1]), "classes 0..K-1"),
    (lambda: FiniteData(torch.zeros(1, 1, 1, 1), sigma_table=torch.zeros(0)), "at least one noise level"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_is_no_distribution_or_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# exp and log by IEEE operations


def test_exp_and_log_are_as_good_as_the_library():
    x = torch.cat([torch.linspace(low, 0.0, 20_001, dtype=torch.float64) for low in (-699.0, -2.0)])
    np.testing.assert_allclose(same_bits.exp(x).numpy(), np.exp(x.numpy()), rtol=4e-16)
    y = torch.logspace(-300, 300, 20_001, dtype=torch.float64)
    np.testing.assert_allclose(same_bits.log(y).numpy(), np.log(y.numpy()), rtol=4e-16, atol=4e-16)
    assert float(same_bits.exp(torch.tensor(-math.inf).double())) < 1e-303


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sigma", [1e-3, 0.4, 2e4])
def test_mixture_has_the_same_bits_on_a_gpu(sigma):
    model, level = wide_mixture(), torch.tensor(sigma, dtype=torch.float64)
    x = observed(model, sigma, batch=67)
    assert torch.equal(model(x.cuda(), level.cuda()).cpu(), model(x, level))
    assert torch.equal(model.draw(torch.arange(9).cuda(), 0, 0).cpu(), model.draw(torch.arange(9), 0, 0))
