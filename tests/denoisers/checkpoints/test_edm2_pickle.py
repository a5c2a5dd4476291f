"""EDM2's pickles: their networks and spaces come out, arrays of numbers are read, and nothing runs."""

import tracemalloc

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench.denoisers.checkpoints.edm.read import read_edm
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.checkpoints.weights import convert_edm, read_converted, read_weights, save_weights
from seedsbench.files.model_files import Latents
from tests.support import edm2_plain
from tests.support.edm2_plain import BIAS, EMPTY, SCALE, array, snapshot, vae_encoder, write_edm2
from tests.support.edm_files import Call, New, dumped, net_state, persistent
from tests.support.parity import relative_error

HOMES = ("numpy.core.multiarray", "numpy._core.multiarray")
RECONSTRUCT = (HOMES[0], "_reconstruct")
NET = persistent("Precond", net_state())


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("latents", [False, True], ids=["images", "latents"])
def test_a_published_file_is_read(tmp_path, protocol, latents):
    path = write_edm2(tmp_path / "edm2.pkl", latents=latents, protocol=protocol)
    plain = edm2_plain.network(channels=4 if latents else 3, dtype=torch.float16)
    record = read_edm(path)
    assert record.class_name == "Precond"
    torch.testing.assert_close(record.state_dict, dict(plain.state_dict()), rtol=0, atol=0)
    space = Latents(SCALE.tolist(), BIAS.tolist(), record.latents.decoder, "unit") if latents else None
    assert record.latents == space
    denoiser = seedsbench.load_denoiser(path)
    assert (denoiser.sigma_min, denoiser.sigma_max, denoiser.sigma_data) == (0, float("inf"), 0.5)
    x, sigma = torch.randn(2, *denoiser.image_shape), torch.tensor([0.5, 20.0])
    expected = plain.double()(x.double(), sigma, torch.eye(10)[:2].double())
    assert relative_error(denoiser(x, sigma, torch.eye(10)[:2]).double(), expected) < 1e-5


@pytest.mark.parametrize("home", HOMES)
def test_both_homes_of_numpy_arrays_are_read(tmp_path, home):
    encoder = vae_encoder(scale=array(SCALE, home), bias=array(BIAS, home, "f8"))
    (tmp_path / "edm2.pkl").write_bytes(dumped(snapshot(NET, encoder)))
    assert read_edm(tmp_path / "edm2.pkl").latents.bias == BIAS.astype(float).tolist()


def test_it_is_what_the_standard_pickler_writes(tmp_path):
    """Arrays of this numpy, by the pickler that the authors' code calls."""
    encoder = vae_encoder(scale=SCALE, bias=BIAS)
    (tmp_path / "edm2.pkl").write_bytes(dumped(snapshot(NET, encoder)))
    assert read_edm(tmp_path / "edm2.pkl").latents.scale == SCALE.astype(float).tolist()


def test_a_converted_file_keeps_the_space_of_its_latents(tmp_path):
    source, target = write_edm2(tmp_path / "edm2.pkl", latents=True), tmp_path / "edm2.safetensors"
    convert_edm(source, target)
    assert read_converted(target).latents == read_edm(source).latents
    config, state = read_weights(target)
    for wrong in ({"scale": 0.0}, {"bias": 1.0}, {"scale": 1.0, "more": 2}, 5):
        save_weights(target, state, config | {"latents": wrong})
        with pytest.raises(CheckpointError, match=r"edm2.safetensors has other latents than a network's"):
            read_converted(target)


def hostile(command):
    """name -> (encoder, what the refusal must name)."""
    evil = Call("os", "system", command)
    objects = Call("numpy", "dtype", "O8", False, True, state=(3, "|", None, None, None, -1, -1, 63))
    encoders = {
        "runs code": (vae_encoder(_vae=evil), "os.system"),
        "runs code in an array": (vae_encoder(scale=array(SCALE, data=evil)), "os.system"),
        "array of objects": (vae_encoder(scale=array(SCALE, dtype=objects)), "numpy.dtype"),
        "array of too few bytes": (vae_encoder(scale=array(SCALE, shape=(10**12,))), "sets the state"),
        "array that overflows": (vae_encoder(scale=array(SCALE, shape=(2**62, 2**62, 4))), "sets the state"),
        "empty array that overflows": (vae_encoder(scale=array([], shape=(0, 2**62, 2**62))), "sets the"),
        "array of negative size": (vae_encoder(scale=array(SCALE, shape=(-2, -2))), "sets the state"),
        "array of many dimensions": (vae_encoder(scale=array(SCALE, shape=(4, *[1] * 40))), "sets the state"),
        "array of another version": (vae_encoder(scale=array(SCALE, version=2)), "sets the state"),
        "array never filled": (vae_encoder(scale=Call(*RECONSTRUCT, *EMPTY)), "has shape None"),
        "array of no array": (vae_encoder(x=Call(*RECONSTRUCT, "x", *EMPTY[1:])), "_reconstruct"),
        "array made large": (vae_encoder(x=Call(*RECONSTRUCT, EMPTY[0], (10**9,), b"b")), "as an empty"),
        "array with arguments": (vae_encoder(x=New("numpy", "ndarray", 10**9)), "takes no arguments"),
        "another name of numpy": (vae_encoder(x=Call("numpy", "frombuffer", b"")), "numpy.frombuffer"),
        "load": (vae_encoder(x=Call("numpy", "load", "x", None, True)), "numpy.load"),
        "another encoder": (persistent("MyEncoder", {"scale": array(SCALE)}), "its encoder is a MyEncoder"),
        "no encoder": (5, "its encoder is the value 5"),
        "encoder that is a module": (NET, "its encoder is a Precond"),
        "no scale": (persistent("StabilityVAEEncoder", {}), "with its scale and bias"),
        "scale of text": (vae_encoder(scale="4"), "with its scale and bias"),
        "scale of matrices": (vae_encoder(scale=array(np.ones((2, 2)))), r"scale has shape (2, 2)"),
        "scale of too many": (vae_encoder(scale=array(np.ones(65))), r"scale has shape (65,)"),
        "scale of 0": (vae_encoder(scale=array([1.0, 0.0])), "no scale of 0"),
        "bias of nothing": (vae_encoder(bias=array([float("nan")])), "finite numbers are expected"),
    }
    return {name: (dumped(snapshot(NET, encoder)), said) for name, (encoder, said) in encoders.items()}


HOSTILE = sorted(hostile(""))


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """The hostile files, and the file that any of them would leave behind."""
    marker = tmp_path_factory.mktemp("marks") / "it ran"
    return hostile(f"touch '{marker}'"), marker


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_encoder_is_refused_by_name_and_without_effect(tmp_path, marked, name):
    files, marker = marked
    data, said = files[name]
    (tmp_path / "edm2.pkl").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as caught:
        read_edm(tmp_path / "edm2.pkl")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert said in message.split(" If it is damaged")[0]
    assert "\n" not in message
    assert "edm2.pkl is not read" in message
    assert not marker.exists()
    assert peak < 20e6


def test_a_cut_file_is_refused(tmp_path):
    data = dumped(snapshot(edm2_plain.network(model_channels=4, label_dim=0), vae_encoder()))
    for end in range(1, len(data), 997):
        (tmp_path / "edm2.pkl").write_bytes(data[:end])
        with pytest.raises(CheckpointError, match=r"edm2\.pkl"):
            read_edm(tmp_path / "edm2.pkl")
