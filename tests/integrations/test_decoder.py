"""Decoders of latents from a folder of their own: what they decode, and what they refuse."""

import json
import pickle
import shutil

import pytest
import torch

from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.files.download import FetchError
from seedsbench.files.model_files import Latents, ModelFiles, listing, resolve, wanted_files
from seedsbench.integrations.decoder import load_decoder
from tests.support.tiny_pipelines import vae

pytest.importorskip("diffusers", reason="needs seedsbench[diffusers]")

SHAPE = (4, 8, 8)
PAGE = "https://example.org/vae"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae") / "vae"
    vae(shift_factor=0.0).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(saved, tmp_path / "vae")


@pytest.mark.parametrize(
    ("scale", "bias"), [(0.18215, 0.0), ([0.1, 0.2, 0.3, 0.4], [0.5, -0.5, 0.0, 1.0]), (0.5, [0.1] * 4)]
)
def test_images_are_the_decoders_own_of_the_encoders_latents(saved, scale, bias):
    encoded = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    factor, offset = (torch.tensor(n).reshape(-1, 1, 1) for n in (scale, bias))
    decode = load_decoder(saved, Latents(scale, bias), SHAPE)
    images = decode((encoded * factor + offset).double())
    with torch.no_grad():
        theirs = vae(shift_factor=0.0).decode(encoded).sample
    assert images.shape == (3, *decode.image_shape) == (3, 3, 16, 16)
    torch.testing.assert_close(images, theirs, rtol=0, atol=1e-5)
    assert theirs.std() > 0.01


def test_an_image_does_not_depend_on_its_batch(saved):
    decode = load_decoder(saved, Latents(0.18215), SHAPE)
    latents = torch.randn(3, *SHAPE)
    assert torch.equal(decode(latents)[1:2], decode(latents[1:2]))


def config_with(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def as_pickle(folder):
    """One that would run code, were it loaded."""
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(print))


def truncated(folder):
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (config_with(_class_name="VQModel"), "is a VQModel: give the folder of diffusers' AutoencoderKL"),
        (config_with(latent_channels=16), "decodes latents of 16 channels, the network's have 4"),
        (config_with(block_out_channels=[2**30]), "block_out_channels=.*: at most"),
        (config_with(block_out_channels=[4096, 8192]), "config.json has .* numbers, its weights"),
        (config_with(block_out_channels=[4, 16]), "cannot be loaded|mismatched"),
        (as_pickle, "holds no .safetensors: .* pickles are not read"),
        (truncated, "vae"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is not there"),
    ],
)
def test_other_folders_are_refused_in_one_line(folder, damage, said):
    damage(folder)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_decoder(folder, Latents(0.18215), SHAPE)
    assert "\n" not in str(caught.value)


def test_numbers_that_do_not_go_with_the_channels_are_refused(saved):
    with pytest.raises(ValueError, match=r"model.latents.bias has 3 numbers: .* has 4 channels"):
        load_decoder(saved, Latents(1.0, [0.0, 0.0, 0.0]), SHAPE)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"scal": 1.0}, "model.latents: unknown option 'scal'. Did you mean 'scale'"),
        ({}, "model.latents has no scale"),
        ({"scale": 0.0}, "scale=0.0 must not be 0"),
        ({"scale": "big"}, "scale='big' must be a number"),
    ],
)
def test_options_of_latents_are_checked(entries, said):
    with pytest.raises(ValueError, match=said):
        ModelFiles("mine", latents=entries).decoder()


def test_a_missing_decoder_is_said_in_one_line(tmp_path):
    model = {"name": "mine", "path": "w.pt", "latents": {"scale": 0.18215, "decoder": PAGE}, "vae": None}
    wanted = wanted_files(model, "vp")[1]
    said = (
        rf"model=mine makes latents: give model.vae=<folder of diffusers' AutoencoderKL>, as that of {PAGE}"
    )
    assert any(said in line for line in listing("", [wanted]))
    with pytest.raises(FetchError, match=said):
        resolve(wanted, offline=False)
    there = wanted_files({**model, "vae": str(tmp_path)}, "vp")[1]
    assert "decoder: " in listing("", [there])[1]
    with pytest.raises(ValueError, match=r"model.vae=x: the samples of model=mine are images: leave it out"):
        ModelFiles("mine", files={"vp": {}}, vae="x").decoder()
