"""EDM2's networks, weights normalised once, against a plain form that normalises them at every call."""

import dataclasses

import pytest
import torch

from seedsbench.bench.precision import variant
from seedsbench.denoisers.checkpoints.edm.denoiser import denoiser_of
from seedsbench.denoisers.checkpoints.edm.read import EDMRecord
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.networks.edm2_unet import EDM2UNet, EDM2UNetConfig, normalised
from tests.support import edm2_plain
from tests.support.parity import relative_error

CASES = {
    "classes": {},
    "no classes": {"label_dim": 0},
    "latents": {"channels": 4, "seed": 1},
    "heads of 64": {"model_channels": 64, "channels_per_head": 64},
    "several heads": {"channels_per_head": 4, "attn_resolutions": [8, 4]},
    "narrower than a head": {"channels_per_head": 64},
    "three levels": {"channel_mult": [1, 2, 3], "num_blocks": 2, "attn_resolutions": [4, 2]},
    "one level": {"channel_mult": [2], "attn_resolutions": []},
    "widths": {"channel_mult_noise": 3, "channel_mult_emb": 1},
    "balances": {"label_balance": 0.2, "concat_balance": 0.7, "res_balance": 0.45, "attn_balance": 0.1},
    "clipped": {"clip_act": 0.8},
    "not clipped": {"clip_act": None},
    "data of another size": {"sigma_data": 1.3},
}


def record(plain, *, kwargs=(), drop=(), add=(), **changes):
    """The network as a file would give it, changed."""
    state = {name: value for name, value in plain.state_dict().items() if name not in drop} | dict(add)
    found = EDMRecord("Precond", plain._init_args, plain._init_kwargs | dict(kwargs), state)
    return dataclasses.replace(found, **changes)


def inputs(plain):
    size, channels, label_dim = plain.unet._init_args
    sigma = torch.tensor([0.002, 0.3, 2.0, 80.0])
    x = torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(3))
    return x * (1 + sigma.reshape(-1, 1, 1, 1)), sigma, torch.eye(label_dim)[:4] if label_dim else None


@pytest.mark.parametrize("case", list(CASES))
def test_weights_normalised_once_give_what_weights_normalised_at_every_call_do(case):
    plain = edm2_plain.network(**CASES[case])
    denoiser, (x, sigma, labels) = denoiser_of(record(plain)), inputs(plain)
    assert not any(value.requires_grad for value in denoiser.network.parameters())
    plain.double()
    given = (x.double(), sigma.log().double() / 4)
    classes = None if labels is None else labels.double()
    expected = plain.unet(*given, classes)
    assert relative_error(denoiser.network(x, sigma.log() / 4, labels).double(), expected) < 1e-5
    assert expected.std() > 0.5
    for rows, theirs in ((labels, classes), (None, None)):
        assert relative_error(denoiser(x, sigma, rows).double(), plain(x.double(), sigma, theirs)) < 1e-5


def test_a_file_in_half_precision_is_computed_in_float32():
    plain = edm2_plain.network(dtype=torch.float16)
    denoiser, (x, sigma, labels) = denoiser_of(record(plain)), inputs(plain)
    assert {value.dtype for value in denoiser.network.state_dict().values()} == {torch.float32}
    expected = plain.double()(x.double(), sigma, labels.double())  # by the same numbers
    assert relative_error(denoiser(x, sigma, labels).double(), expected) < 1e-5


def test_in_low_precision_it_is_nearly_the_same():
    plain = edm2_plain.network(model_channels=32)
    denoiser, (x, sigma, labels) = denoiser_of(record(plain)), inputs(plain)
    low = variant(denoiser, "cpu", precision="bf16")(x, sigma, labels)
    assert 1e-6 < relative_error(low, denoiser(x, sigma, labels)) < 0.03


def test_normalised_rows_have_the_norm_that_keeps_magnitudes():
    state = edm2_plain.network().state_dict()
    ready = normalised(state)
    for name, value in state.items():
        if name.endswith("weight"):
            norms = ready[name].flatten(1).norm(dim=1)
            torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-4, atol=0)
            shares = ready[name].flatten(1) / value.flatten(1)
            torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
        else:
            assert ready[name] is value


def test_sizes_of_the_published_networks():
    """Table 2 of the paper: parameters in millions of XS to XXL, whose widths are multiples of 64."""
    found = []
    for width in (128, 192, 256, 320, 384, 448):
        with torch.device("meta"):
            network = EDM2UNet(EDM2UNetConfig(64, 4, 4, 1000, model_channels=width))
        found.append(round(sum(value.numel() for value in network.parameters()) / 1e6))
    assert found == [125, 280, 498, 777, 1119, 1523]


REFUSED = {
    "class": ({"class_name": "Precon"}, "Precond"),
    "argument": ({"kwargs": {"num_block": 1}}, "num_blocks"),
    "argument given twice": ({"init_args": (8, 3)}, "img_channels is given twice"),
    "too many arguments": ({"init_args": (8,) * 8}, "8 positional"),
    "another network": ({"kwargs": {"model_type": "SongUNet"}}, "unknown model_type 'SongUNet'"),
    "EDM's class": ({"class_name": "EDMPrecond", "kwargs": {"model_type": "UNet"}}, "unknown model_type"),
    "value of the wrong type": ({"kwargs": {"res_balance": "half"}}, "res_balance='half'"),
    "share": ({"kwargs": {"concat_balance": 2.0}}, r"concat_balance=2.0 must lie in \[0, 1\]"),
    "no width": ({"kwargs": {"num_blocks": None}}, "num_blocks=None"),
    "huge network": ({"kwargs": {"channel_mult": [10**9]}}, "channel_mult"),
    "huge head": ({"kwargs": {"channels_per_head": 10**9}}, "channels_per_head"),
    "heads": ({"kwargs": {"channels_per_head": 9}}, "3 attention heads cannot share 32 channels"),
    "odd size": ({"kwargs": {"channel_mult": [1, 1, 1, 1, 1]}}, "multiple of 16"),
    "filter": ({"kwargs": {"resample_filter": [1, 3, 3, 1]}}, r"resample_filter=\[1, 3, 3, 1\]"),
    "missing tensor": ({"drop": ["unet.out_gain"]}, "lacks 1 of the weights, such as unet.out_gain"),
    "unknown tensor": ({"add": {"unet.extra": torch.ones(1)}}, "no use for 1"),
    "tensor outside the network": ({"add": {"u": torch.ones(1)}}, "no use for 1"),
    "not finite": ({"add": {"unet.out_gain": torch.tensor(float("nan"))}}, "finite"),
    "shape": ({"kwargs": {"label_dim": 9}}, "shape"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_does_not_fit_is_refused_in_one_line(what):
    change, said = REFUSED[what]
    with pytest.raises(CheckpointError, match=said) as caught:
        denoiser_of(record(edm2_plain.network(), **change))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_arguments_and_weights_that_change_nothing_are_left_aside():
    plain = edm2_plain.network()
    x, sigma, labels = inputs(plain)
    training = {"use_fp16": True, "dropout": 0.1, "logvar_channels": 128, "resample_filter": [1, 1]}
    without = record(plain, drop=[name for name in plain.state_dict() if name.startswith("logvar")])
    first, second = denoiser_of(record(plain, kwargs=training)), denoiser_of(without)
    assert torch.equal(first(x, sigma, labels), second(x, sigma, labels))
