import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from seedsbench.data.glyphs import ASSETS, FLOOR, glyphs
from seedsbench.data.uint8 import to_uint8
from seedsbench.denoisers import embedded
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS, GlyphUNet
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, EDMPreconditioner
from seedsbench.metrics.glyph_features import GlyphFeatures, load_glyph_features, load_glyph_reference
from seedsbench.training import targets
from seedsbench.training.loop import TrainingOptions, learning_rate
from seedsbench.training.targets import run

REGIMES = list(GLYPH_UNETS)
EYE = torch.eye(10)


def scrambled(regime):
    """A network whose zero-initialised parts are random too."""
    torch.manual_seed(0)
    network = GlyphUNet(GLYPH_UNETS[regime]).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def options(tmp_path, **changes):
    base = TrainingOptions(
        target="edm",
        device="cpu",
        iterations=6,
        batch=8,
        shards=1,
        lr=2e-3,
        warmup=2,
        flat=0.4,
        weighting="unit",
        P_mean=-0.2,
        P_std=1.2,
        clip=1.0,
        ema=0.9,
        label_dropout=0.25,
        pool=50,
        seed=0,
        checkpoint_every=3,
        out=tmp_path,
    )
    return dataclasses.replace(base, **changes)


def stop_at_call(monkeypatch, last):
    """Interrupt training at the given call of the loss; returns the list of calls."""
    calls, original = [], targets.denoising_loss

    def interrupted(*arguments, **keywords):
        calls.append(None)
        if len(calls) == last:
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(targets, "denoising_loss", interrupted)
    return calls


@pytest.mark.parametrize("regime", REGIMES)
def test_the_network_is_small(regime):
    assert sum(p.numel() for p in GlyphUNet(GLYPH_UNETS[regime]).parameters()) < 450_000


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_on_a_cpu_samples_do_not_depend_on_their_batch(regime, batch):
    denoiser = embedded.as_denoiser(scrambled(regime))
    x = torch.randn(70, 3, 16, 16, dtype=torch.float64)
    labels = EYE[torch.arange(70) % 10]
    whole = denoiser(x, torch.tensor(0.7, dtype=torch.float64), labels)
    part = denoiser(x[:batch], torch.tensor(0.7, dtype=torch.float64), labels[:batch])
    assert torch.equal(part, whole[:batch])


@pytest.mark.parametrize("regime", REGIMES)
def test_a_zero_label_row_is_the_unconditional_model(regime):
    denoiser = embedded.as_denoiser(scrambled(regime))
    x, sigma = torch.randn(4, 3, 16, 16), torch.tensor(0.7)
    torch.testing.assert_close(denoiser(x, sigma, torch.zeros(4, 10)), denoiser(x, sigma))
    assert not torch.allclose(denoiser(x, sigma, EYE[:4]), denoiser(x, sigma))


@pytest.mark.parametrize("regime", REGIMES)
def test_shared_and_repeated_noise_levels_agree(regime):
    denoiser = embedded.as_denoiser(scrambled(regime))
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(denoiser(x, torch.tensor(0.7)), denoiser(x, torch.full((4,), 0.7)))


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("sigma", [0.03, 0.5, 4.0, 80.0])
def test_before_training_every_regime_is_the_best_linear_denoiser(regime, sigma):
    denoiser = embedded.as_denoiser(GlyphUNet(GLYPH_UNETS[regime]).eval())
    level = PRECONDITIONERS[regime].round_sigma(torch.tensor(sigma, dtype=torch.float64))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64) * (sigma**2 + 0.25) ** 0.5
    expected = EDMPreconditioner().c_skip(level) * x
    torch.testing.assert_close(denoiser(x, level), expected, rtol=1e-3, atol=2e-6 * max(sigma, 10))


@pytest.mark.parametrize("regime", REGIMES)
def test_the_network_body_sees_unit_variance_at_every_level(regime):
    network, outer = GlyphUNet(GLYPH_UNETS[regime]), PRECONDITIONERS[regime]
    sigma = outer.round_sigma(torch.tensor([0.03, 0.5, 4.0, 80.0], dtype=torch.float64))
    inverse_std, _, _ = network.standardisation(outer.c_noise(sigma))
    std = outer.c_in(sigma) * (sigma**2 + 0.25).sqrt()
    torch.testing.assert_close(inverse_std * std, torch.ones_like(sigma))


def test_an_unknown_regime_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"no regime 'edn': use one of vp, iddpm, ve, edm \(nearest: edm\)"):
        embedded.load_glyphs("edn")


@pytest.mark.parametrize("target", ["edm", "vp", "ve", "iddpm"])
def test_training_writes_weights_that_load(tmp_path, target, monkeypatch):
    path = run(options(tmp_path, target=target, iterations=2))
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    denoiser = embedded.load_glyphs(target)
    assert denoiser(torch.randn(3, 3, 16, 16), torch.tensor(1.0), EYE[:3]).isfinite().all()
    assert denoiser.image_shape == (3, 16, 16)
    assert denoiser.label_dim == 10
    assert embedded.provenance(path)["iterations"] == 2
    assert len(embedded.model_id(target)) == 16
    assert path.stat().st_size < 2**20


def test_an_interrupted_training_continues_exactly(tmp_path, monkeypatch):
    straight = load_file(run(options(tmp_path / "straight", checkpoint_every=100)))
    calls = stop_at_call(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        run(options(tmp_path / "resumed"))
    resumed = load_file(run(options(tmp_path / "resumed")))
    assert len(calls) == 5 + 3
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert [path.name for path in (tmp_path / "resumed").iterdir()] == ["edm.safetensors"]


def test_shards_average_their_gradients(tmp_path):
    """Two shards with one random source each are a batch of both: training goes on and is repeatable."""
    one, two = (load_file(run(options(tmp_path / name, shards=2))) for name in ("one", "two"))
    whole = load_file(run(options(tmp_path / "whole")))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], whole[name]) for name in one)
    with pytest.raises(ValueError, match="batch=8 cannot be split into shards=3"):
        options(tmp_path, shards=3)


def test_a_second_round_starts_from_the_first(tmp_path):
    first = run(options(tmp_path / "first"))
    second = run(options(tmp_path / "second", initial=str(first), lr=1e-12))
    one, two = load_file(first), load_file(second)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    assert embedded.provenance(second)["initial"]["iterations"] == 6


def test_a_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch):
    stop_at_call(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        run(options(tmp_path))
    with pytest.raises(ValueError, match="belongs to a run with another lr"):
        run(options(tmp_path, lr=1e-3))


def test_the_learning_rate_warms_up_stays_and_ends_near_zero(tmp_path):
    choices = options(tmp_path, iterations=1000, warmup=100)
    assert learning_rate(0, choices) == pytest.approx(2e-5)
    assert learning_rate(300, choices) == pytest.approx(2e-3)
    assert learning_rate(999, choices) < 1e-7


def test_an_unknown_training_target_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="unknown target 'edn': use one of vp, iddpm, ve, edm, features, reference"
    ):
        run(options(tmp_path, target="edn"))


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


shipped = pytest.mark.skipif(
    not (ASSETS / "edm.safetensors").is_file(), reason="weights are not in this checkout"
)


@shipped
@pytest.mark.parametrize("regime", REGIMES)
def test_shipped_denoisers_denoise(regime):
    indices = torch.arange(100)
    clean = glyphs(indices, indices % 10, seed=0, stream=FLOOR)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    denoised = embedded.load_glyphs(regime)(clean + 0.5 * noise, torch.tensor(0.5), EYE[indices % 10])
    assert (denoised - clean).square().mean().sqrt() < 0.12


@shipped
def test_shipped_features_know_every_class_and_match_the_reference():
    indices = torch.arange(2000)
    images = to_uint8(glyphs(indices, indices % 10, seed=1, stream=FLOOR))
    features, logits = load_glyph_features()(images)
    reference = load_glyph_reference()
    assert (logits.argmax(dim=1) == indices % 10).double().mean() > 0.998
    assert reference.n == 50_000
    assert abs(features.mean(dim=0).double() - torch.from_numpy(reference.mu)).max() < 0.15
    assert reference.sigma.diagonal().mean() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("regime", REGIMES)
def test_unit_weighting_counts_every_level_of_the_standardised_target_the_same(regime):
    outer, ideal = PRECONDITIONERS[regime], PRECONDITIONERS["edm"]
    sigma = torch.tensor([0.03, 0.5, 4.0, 60.0], dtype=torch.float64)
    weight = targets.WEIGHTINGS["unit"](outer).loss_weight(sigma)
    assert torch.allclose(weight * ideal.c_out(sigma) ** 2, torch.ones(4, dtype=torch.float64))
    assert targets.WEIGHTINGS["regime"](outer) is outer
