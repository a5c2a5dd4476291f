"""SongUNet and DhariwalUNet with EDM's preconditionings, against recorded outputs of tiny networks.

Weights are kept as whole multiples of 1/128 in a byte each, those of norms as what they differ from 1.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch

from scripts.benchmarks import networks as bench
from seedsbench.denoisers.checkpoints.edm.denoiser import denoiser_of
from seedsbench.denoisers.checkpoints.edm.read import EDMRecord
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.networks.unet import DhariwalUNet, DhariwalUNetConfig, SongUNet, SongUNetConfig
from seedsbench.denoisers.preconditioning.karras import IDDPMPreconditioner
from tests.support.golden import golden
from tests.support.parity import Augmented, relative_error, sampled

NETWORKS, E2E = golden("edm_networks"), golden("edm_e2e")
CASES = list(NETWORKS.cases)


def stored(case):
    """The tensors that a case holds itself, by name."""
    if not NETWORKS.has(case, "layout"):
        return {}
    codes = NETWORKS.array(case, "codes").astype(np.float32) / 128
    floats = NETWORKS.array(case, "floats") if NETWORKS.has(case, "floats") else np.zeros(0, np.float32)
    tensors, used = {}, {"code": 0, "float": 0}
    for name, shape, kind in json.loads(NETWORKS.array(case, "layout").tobytes()):
        source = "float" if kind == "float" else "code"
        start, count = used[source], int(np.prod(shape))
        values = (floats if source == "float" else codes)[start : start + count] + (kind == "about 1")
        tensors[name] = torch.as_tensor(values.reshape(shape))
        used[source] += count
    return tensors


def record(case, *, kwargs=(), drop=(), add=(), **changes):
    """The case as a file would give it, changed; all four preconditioners share the weights kept with VP."""
    settings = NETWORKS.cases[case]
    state = stored(f"{case.split('/')[0]}/VPPrecond") | stored(case)
    if settings["precond"] == "iDDPMPrecond":
        state["u"] = torch.as_tensor(golden("nv_precond_tables").array("iddpm_default", "u"))
    state = {name: value for name, value in state.items() if name not in drop} | dict(add)
    found = EDMRecord(settings["precond"], (), settings["init_kwargs"] | dict(kwargs), state)
    return dataclasses.replace(found, **changes)


def optional(case, name, data=NETWORKS):
    return data.tensor(case, name) if data.has(case, name) else None


def denoised(case, denoiser, *, labels=True, augment=True):
    network = denoiser.network
    # VP noise levels reach 999 and Fourier features turn them into angles of 1e5: float32 then leaves
    # 1e-2 of a turn to the last bit of the level. No published network combines the two.
    unstable = isinstance(network, SongUNet) and network.map_noise is not None and "VPPrecond" in case
    denoiser.network = Augmented(
        network,
        optional(case, "augment_labels") if augment else None,
        NETWORKS.tensor(case, "c_noise") if unstable else None,
    )
    given = optional(case, "class_labels") if labels else None
    result = denoiser(NETWORKS.tensor(case, "x"), NETWORKS.tensor(case, "sigma"), given)
    denoiser.network = network
    return result


def test_the_cases_are_all_here():
    # Of 88: the rest (left out for their size) were compared once, when the networks were written.
    assert len(CASES) == 20
    # Of 42: one network for each preconditioning.
    assert len(E2E.cases) == 28


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_reference(case):
    denoiser, settings = denoiser_of(record(case)), NETWORKS.cases[case]
    # iDDPM's table starts from float32 sines, whose last bit differs among processors.
    expected = (settings["sigma_min"], settings["sigma_max"])
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx(expected, rel=2e-6)
    c_noise = denoiser.preconditioner.c_noise(NETWORKS.tensor(case, "sigma"))
    # The reference works in float32, where 1 + sigma^2 loses digits of a small sigma.
    torch.testing.assert_close(c_noise, NETWORKS.tensor(case, "c_noise"), rtol=1e-4, atol=1e-6)
    assert relative_error(denoised(case, denoiser), NETWORKS.tensor(case, "D")) < 1e-5
    for name, without in (("D_nolabels", {"labels": False}), ("D_noaug", {"augment": False})):
        if NETWORKS.has(case, name):
            assert relative_error(denoised(case, denoiser, **without), NETWORKS.tensor(case, name)) < 1e-5
    # The same in the other memory format.
    denoiser.network.to(memory_format=torch.contiguous_format)
    assert relative_error(denoised(case, denoiser), NETWORKS.tensor(case, "D")) < 1e-5


@pytest.mark.parametrize("case", list(E2E.cases))
def test_samples_equal_the_reference(case):
    settings = E2E.cases[case]
    labels, noise = (optional(case, name, E2E) for name in ("class_labels", "noise"))
    denoiser = denoiser_of(record(settings["weights"]))
    x = sampled(settings, denoiser, E2E.tensor(case, "latents"), labels, noise)
    assert relative_error(x, E2E.tensor(case, "x_final").double()) < 1e-3


SMALL, IDDPM = "songskip_label10_aug9/EDMPrecond", "songskip_label10_aug9/iDDPMPrecond"


def test_positional_and_keyword_arguments_are_the_same():
    by_name = record("ncsnpp_label0_aug0/VEPrecond")
    kwargs = dict(by_name.init_kwargs)
    args = (kwargs.pop("img_resolution"), kwargs.pop("img_channels"), kwargs.pop("label_dim"))
    args += (np.bool_(True), np.float64(0.03), 50)  # use_fp16, sigma_min, sigma_max
    denoiser = denoiser_of(dataclasses.replace(by_name, init_args=args, init_kwargs=kwargs))
    assert (denoiser.sigma_min, denoiser.sigma_max, denoiser.label_dim) == (0.03, 50.0, 0)
    x = NETWORKS.tensor("ncsnpp_label0_aug0/VEPrecond", "x")
    assert torch.equal(denoiser(x, torch.tensor(0.7)), denoiser_of(by_name)(x, torch.tensor(0.7)))


@pytest.mark.parametrize("case", [SMALL, IDDPM])
def test_half_precision_weights_load_as_float32(case):
    halves = {name: value.half() for name, value in record(case).state_dict.items()}
    network = denoiser_of(record(case, state_dict=halves)).network
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    assert not network.training
    assert not any(value.requires_grad for value in network.parameters())


REFUSED = {
    "class": (SMALL, {"class_name": "EDMPrecon"}, "EDMPrecond"),
    "network": (SMALL, {"kwargs": {"model_type": "SongUnet"}}, "SongUNet"),
    "network that is no name": (SMALL, {"kwargs": {"model_type": ["SongUNet"]}}, "model_type"),
    "argument": (SMALL, {"kwargs": {"num_block": 1}}, "num_blocks"),
    "argument given twice": (SMALL, {"init_args": (8,)}, "img_resolution is given twice"),
    "too many arguments": (SMALL, {"init_args": (8,) * 12}, "12 positional"),
    "no resolution": (SMALL, {"init_kwargs": {"img_channels": 3}}, "img_resolution"),
    "value of the wrong type": (SMALL, {"kwargs": {"num_blocks": "many"}}, "num_blocks=many"),
    "huge network": (SMALL, {"kwargs": {"channel_mult": [10**9]}}, "channel_mult"),
    "empty network": (SMALL, {"kwargs": {"channel_mult": []}}, "cannot be built"),
    "width": (SMALL, {"kwargs": {"model_channels": 2}}, "cannot be built"),
    "odd size": (SMALL, {"kwargs": {"img_resolution": 9}}, "multiple of 2"),
    "table of nothing": (IDDPM, {"kwargs": {"M": 0}}, "no noise levels|no range"),
    "beyond float": (SMALL, {"kwargs": {"sigma_data": 10**400}}, "too large"),
    "beyond text": (SMALL, {"kwargs": {"num_blocks": 10**5000}}, "num_blocks"),
    "encoder": (SMALL, {"kwargs": {"encoder_type": "std"}}, "encoder_type"),
    "odd filter": (SMALL, {"kwargs": {"resample_filter": [1, 2, 1]}}, "even number"),
    "other filter": (SMALL, {"kwargs": {"resample_filter": [1, 2, 2, 1]}}, "is not the filter"),
    "missing tensor": (SMALL, {"drop": ["model.map_layer0.bias"]}, "lacks 1"),
    "unknown tensor": (SMALL, {"add": {"model.extra": torch.ones(1)}}, "model.extra|extra"),
    "tensor outside the network": (SMALL, {"add": {"u": torch.ones(1)}}, "no use for 1"),
    "shape": (SMALL, {"kwargs": {"augment_dim": 8}}, "shape"),
    "whole numbers": (SMALL, {"add": {"model.map_layer0.bias": torch.ones(32).int()}}, "floating"),
    "no range": (SMALL, {"kwargs": {"sigma_min": 5, "sigma_max": 1}}, "no range"),
    "not a number": (SMALL, {"kwargs": {"sigma_data": float("nan")}}, "sigma_data"),
    "no table": (IDDPM, {"drop": ["u"]}, "missing"),
    "another table": (IDDPM, {"kwargs": {"C_2": 0.02}}, "not the table"),
    "table of another length": (IDDPM, {"kwargs": {"M": 500}}, "M=500"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_does_not_fit_is_refused_in_one_line(what):
    case, change, said = REFUSED[what]
    with pytest.raises(CheckpointError, match=said) as caught:
        denoiser_of(record(case, **change))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


ANOTHER_FILTER = {"encoder_type": "skip", "resample_filter": (1, 2, 2, 1)}


@pytest.mark.parametrize(
    "network",
    [
        DhariwalUNet(DhariwalUNetConfig(8, 3, 6, 5, model_channels=64, channel_mult=(2, 3), num_blocks=1)),
        SongUNet(SongUNetConfig(16, 3, 3, 5, model_channels=16, channel_mult=(1, 2), num_blocks=1)),
        SongUNet(SongUNetConfig(16, 1, 1, model_channels=16, num_blocks=1, **ANOTHER_FILTER)),
    ],
    ids=["two and three heads", "labels, 2x2 mean", "another filter"],
)
def test_the_plain_implementation_computes_the_same(network):
    config = network.config
    network.requires_grad_(False)
    bench.fill(network)
    x = torch.linspace(-2, 2, 2 * config.in_channels * config.img_resolution**2).sin()
    x = x.reshape(2, config.in_channels, config.img_resolution, config.img_resolution)
    labels = torch.eye(config.label_dim)[:2] if config.label_dim else None
    expected = bench.plain(network, x, torch.tensor([0.3, 40.0]), labels)
    assert relative_error(network(x, torch.tensor([0.3, 40.0]), labels), expected) < 1e-5
    assert expected.std() > 0.1


def test_sizes_of_the_published_networks():
    score_sde = SongUNetConfig(32, 3, 3)  # its ddpmpp_continuous
    with torch.device("meta"):
        made = bench.NETWORKS["ddpmpp"](), bench.NETWORKS["adm"](), SongUNet(score_sde)
    sizes = [sum(value.numel() for value in network.parameters()) for network in made]
    assert [round(size / 1e6, 1) for size in sizes[:2]] == [55.7, 295.9]
    assert sizes[2] == 61_804_419


def test_a_level_between_two_of_iddpm_goes_to_the_nearer():
    """The released code's rounded distances take the farther here (608), and agree where sampling happens."""
    preconditioner = IDDPMPreconditioner()
    sigma = torch.tensor(1.430350422859192)
    assert float(preconditioner.c_noise(sigma)) == 607
    index = 999 - 607
    below, above = (abs(float(preconditioner.table("cpu")[k]) - float(sigma)) for k in (index, index - 1))
    assert below < above
