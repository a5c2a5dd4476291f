"""Training: what it writes loads, an interrupted run goes on exactly, shards share a batch."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scripts.training.loop import TrainingOptions, learning_rate, train
from scripts.training.losses import loss_weight
from scripts.training.pools import SOURCES
from scripts.training.targets import WEIGHTINGS, provenance, run
from seedsbench.denoisers.embedded import as_denoiser, load_network, model_id
from seedsbench.denoisers.networks.glyph_unet import EMBEDDED_UNETS, GLYPH_UNETS
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS


def options(tmp_path, **changes):
    quick = {
        "data": "glyphs",
        "target": "edm",
        "training": 0,
        "device": "cpu",
        "iterations": 6,
        "batch": 8,
        "shards": 1,
        "pool": 50,
        "seed": 0,
    }
    quick |= {"lr": 2e-3, "warmup": 2, "flat": 0.4, "clip": 1.0, "ema": 0.9, "label_dropout": 0.25}
    quick |= {"weighting": "unit", "P_mean": -0.2, "P_std": 1.2, "checkpoint_every": 3, "out": tmp_path}
    return TrainingOptions(**(quick | changes))


@pytest.mark.parametrize(
    ("data", "target"), [(data, target) for data, networks in EMBEDDED_UNETS.items() for target in networks]
)
def test_training_writes_weights_that_load(tmp_path, data, target):
    path = run(options(tmp_path, data=data, target=target))
    assert [file.name for file in tmp_path.iterdir()] == [f"{target}.safetensors"]  # no checkpoint is left
    denoiser, shape = as_denoiser(load_network(path)), SOURCES[data].data.shape
    assert denoiser(torch.randn(3, *shape), torch.tensor(1.0), torch.eye(10)[:3]).isfinite().all()
    assert (denoiser.image_shape, denoiser.label_dim) == (shape, 10)
    assert provenance(path)["iterations"] == 6
    assert path.stat().st_size < 2**20


def test_another_training_has_a_file_of_its_own_and_by_its_seed_other_weights(tmp_path):
    first, second = run(options(tmp_path)), run(options(tmp_path, training=2, seed=102))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["edm-2.safetensors", "edm.safetensors"]
    assert model_id(first) != model_id(second)
    assert provenance(second)["training"] == 2
    with pytest.raises(ValueError, match="training=-1 must lie in"):
        options(tmp_path, training=-1)


def test_features_of_digits_are_standardised_on_them_all(tmp_path):
    run(options(tmp_path, data="digits", target="features"))
    with np.load(run(options(tmp_path, data="digits", target="reference"))) as stored:
        assert stored["n"] == 1797
        assert np.abs(stored["mu"]).max() < 1e-3
        assert stored["sigma"].trace() == pytest.approx(64, rel=1e-3)


def linear(choices, stop_at=None):
    """Weights of a small layer after training, and calls of its loss; stop_at: a call that interrupts it."""
    calls = []

    def loss(network, generator):
        calls.append(None)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return network(torch.randn(4, 3, generator=generator)).square().mean()

    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    train(network, loss, choices)
    return network.state_dict(), len(calls)


def test_an_interrupted_training_continues_exactly_and_another_run_does_not(tmp_path):
    straight, _ = linear(options(tmp_path / "straight", checkpoint_every=100))
    with pytest.raises(KeyboardInterrupt):
        linear(options(tmp_path), stop_at=5)
    with pytest.raises(ValueError, match="belongs to a run with another lr"):
        linear(options(tmp_path, lr=1e-3))
    resumed, calls = linear(options(tmp_path))
    assert calls == 3
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


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
    assert provenance(second)["initial"]["iterations"] == 6


def test_the_learning_rate_warms_up_stays_and_ends_near_zero(tmp_path):
    choices = options(tmp_path, iterations=1000, warmup=100)
    assert learning_rate(0, choices) == pytest.approx(2e-5)
    assert learning_rate(300, choices) == pytest.approx(2e-3)
    assert learning_rate(999, choices) < 1e-7


def test_an_unknown_training_target_is_refused(tmp_path):
    known = "vp, iddpm, ve, edm, flow, features, reference"
    with pytest.raises(ValueError, match=f"unknown target 'edn' of glyphs: use one of {known}"):
        run(options(tmp_path, target="edn"))
    with pytest.raises(ValueError, match="target 've' of digits: use one of vp, edm, features, reference"):
        run(options(tmp_path, data="digits", target="ve"))
    with pytest.raises(ValueError, match=r"unknown data 'digit'\. Did you mean 'digits'"):
        run(options(tmp_path, data="digit"))


@pytest.mark.parametrize("regime", GLYPH_UNETS)
def test_unit_weighting_counts_every_level_of_the_standardised_target_the_same(regime):
    outer, ideal = PRECONDITIONERS[regime], PRECONDITIONERS["edm"]
    sigma = torch.tensor([0.03, 0.5, 4.0, 60.0], dtype=torch.float64)
    weight = loss_weight(WEIGHTINGS["unit"](outer), sigma)
    assert torch.allclose(weight * ideal.c_out(sigma) ** 2, torch.ones(4, dtype=torch.float64))
    assert WEIGHTINGS["regime"](outer) is outer
