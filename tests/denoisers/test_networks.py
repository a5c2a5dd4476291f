"""The embedded networks, before and after training, and the feature network."""

import pytest
import torch

from seedsbench.data.glyphs import FLOOR, glyphs
from seedsbench.data.uint8 import to_uint8
from seedsbench.denoisers import embedded
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS, GlyphUNet
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, EDMPreconditioner
from seedsbench.metrics.glyph_features import GlyphFeatures, load_glyph_features, load_glyph_reference

EYE = torch.eye(10)
LEVELS = torch.tensor([0.03, 0.5, 4.0, 80.0], dtype=torch.float64)
each_regime = pytest.mark.parametrize("regime", GLYPH_UNETS)


def scrambled(regime):
    """A denoiser whose network's zero-initialised parts are random too."""
    torch.manual_seed(0)
    network = GlyphUNet(GLYPH_UNETS[regime]).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    assert sum(p.numel() for p in network.parameters()) < 450_000
    return embedded.as_denoiser(network)


@each_regime
def test_on_a_cpu_samples_do_not_depend_on_their_batch(regime):
    denoiser, sigma = scrambled(regime), torch.tensor(0.7, dtype=torch.float64)
    x = torch.randn(70, 3, 16, 16, dtype=torch.float64)
    labels = EYE[torch.arange(70) % 10]
    whole = denoiser(x, sigma, labels)
    for batch in (1, 7, 64):
        assert torch.equal(denoiser(x[:batch], sigma, labels[:batch]), whole[:batch])


@each_regime
def test_a_zero_label_row_is_the_unconditional_model_and_noise_levels_may_be_shared(regime):
    denoiser, x, sigma = scrambled(regime), torch.randn(4, 3, 16, 16), torch.tensor(0.7)
    torch.testing.assert_close(denoiser(x, sigma, torch.zeros(4, 10)), denoiser(x, sigma))
    assert not torch.allclose(denoiser(x, sigma, EYE[:4]), denoiser(x, sigma))
    torch.testing.assert_close(denoiser(x, sigma), denoiser(x, torch.full((4,), 0.7)))


@each_regime
def test_before_training_every_regime_is_the_best_linear_denoiser(regime):
    denoiser = embedded.as_denoiser(GlyphUNet(GLYPH_UNETS[regime]).eval())
    for sigma in LEVELS:
        level = PRECONDITIONERS[regime].round_sigma(sigma)
        x = torch.randn(2, 3, 16, 16, dtype=torch.float64) * (sigma**2 + 0.25) ** 0.5
        expected = EDMPreconditioner().c_skip(level) * x
        torch.testing.assert_close(denoiser(x, level), expected, rtol=1e-3, atol=2e-6 * max(float(sigma), 10))


@each_regime
def test_the_network_body_sees_unit_variance_at_every_level(regime):
    network, outer = GlyphUNet(GLYPH_UNETS[regime]), PRECONDITIONERS[regime]
    sigma = outer.round_sigma(LEVELS)
    inverse_std, _, _ = network.standardisation(outer.c_noise(sigma))
    std = outer.c_in(sigma) * (sigma**2 + 0.25).sqrt()
    torch.testing.assert_close(inverse_std * std, torch.ones_like(sigma))


def test_an_unknown_regime_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"unknown regime of glyphs 'edn'\. Did you mean 'edm'"):
        embedded.load_glyphs("edn")


def test_features_are_standardised_and_demand_uint8():
    network = GlyphFeatures().eval()
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    features, logits = network(images)
    assert (features.shape, logits.shape) == ((5, 64), (5, 10))
    real = torch.randn(1000, 64) * torch.linspace(0.1, 3, 64) + 1  # its spread differs by feature
    network.standardise(real)
    scale = real.var(dim=0).mean().sqrt()  # one scale for all
    torch.testing.assert_close(network(images)[0], (features - real.mean(dim=0)) / scale)
    with pytest.raises(ValueError, match="need uint8"):
        network(images.float())


@each_regime
def test_shipped_denoisers_denoise(regime):
    indices = torch.arange(100)
    clean = glyphs(indices, indices % 10, seed=0, stream=FLOOR)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    denoised = embedded.load_glyphs(regime)(clean + 0.5 * noise, torch.tensor(0.5), EYE[indices % 10])
    assert (denoised - clean).square().mean().sqrt() < 0.12


def test_shipped_features_know_every_class_and_match_the_reference():
    indices = torch.arange(2000)
    images = to_uint8(glyphs(indices, indices % 10, seed=1, stream=FLOOR))
    features, logits = load_glyph_features()(images)
    reference = load_glyph_reference()
    assert (logits.argmax(dim=1) == indices % 10).double().mean() > 0.998
    assert reference.n == 50_000
    assert abs(features.mean(dim=0).double() - torch.from_numpy(reference.mu)).max() < 0.15
    assert reference.sigma.diagonal().mean() == pytest.approx(1.0, rel=1e-3)
