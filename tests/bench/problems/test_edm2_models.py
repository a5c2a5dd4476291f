"""EDM2's models: what their YAMLs say is what files of theirs say, and their latents become its images."""

import re

import pytest
import torch

from seedsbench.bench.problems.checkpoint import checkpoint_problem
from seedsbench.bench.scoring import to_uint8
from seedsbench.data.uint8 import QUANTISERS
from seedsbench.denoisers.checkpoints.edm.read import read_edm
from seedsbench.files.model_files import Latents, wanted_files
from seedsbench.registry import load, names
from tests.support.cells import model_files
from tests.support.edm2_plain import BIAS, SCALE, write_edm2
from tests.support.tiny_pipelines import vae

MODELS = {name: model for name, model in model_files().items() if name.startswith("edm2")}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_yaml_says_which_network_it_is_and_what_its_latents_are(name, tmp_path):
    model, (_, res, size, *_) = MODELS[name], name.split("_")
    weights, *decoder, reference = wanted_files(model, "edm")
    assert re.fullmatch(rf"edm2-{res}-{size}-\d{{7}}-0\.\d{{3}}\.pkl", weights.remote.name)
    assert reference.remote.name == f"{res}.pkl"
    assert len(decoder) == (res == "img512")
    for file in (weights, reference):
        assert "non-commercial" in file.remote.licence
        assert file.remote.about_mb > 40
    if decoder:
        latents = read_edm(write_edm2(tmp_path / "a.pkl", latents=True)).latents
        assert Latents.of(model["latents"]).close_to(latents)


@pytest.mark.parametrize("name", [name for name in names("experiment") if name.startswith("edm2")])
def test_an_experiment_is_of_32_heun_steps(name):
    said = load("experiment", name)
    guidance = said.get("guidance", {})
    assert (said["nfe"], said["dtype"], said["samples"]) == (63 * (2 if guidance else 1), "float32", 50_000)
    assert guidance.get("model", "edm2_img512_s") in MODELS


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    pytest.importorskip("diffusers", reason="needs seedsbench[diffusers]")
    folder = tmp_path_factory.mktemp("vae") / "vae"
    vae(shift_factor=0.0).save_pretrained(folder)
    return folder


def test_latents_are_decoded_by_the_constants_of_the_file_and_quantised_as_edm2_does(tmp_path, decoder):
    path = write_edm2(tmp_path / "edm2.pkl", latents=True)
    problem = checkpoint_problem("edm", "file", path=str(path), vae=str(decoder))
    assert problem.image_shape == (3, 16, 16)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    raw = (latents - torch.tensor(BIAS).reshape(-1, 1, 1)) / torch.tensor(SCALE).reshape(-1, 1, 1)
    with torch.no_grad():
        theirs = vae(shift_factor=0.0).decode(raw).sample
    images = problem.images(latents)
    torch.testing.assert_close(images, 2 * theirs - 1, rtol=0, atol=2e-5)
    ours, exact = to_uint8(images, problem.pixels), 255 * theirs.clamp(0, 1)
    assert ((ours - exact.floor()).abs() <= 1).all()
    assert (ours == exact.floor())[(exact - exact.round()).abs() > 0.01].all()
    assert problem.pixels == "unit"
    assert "255" in QUANTISERS["unit"]


def test_latents_without_a_decoder_and_a_decoder_without_latents_are_refused(tmp_path, decoder):
    latents = write_edm2(tmp_path / "latents.pkl", latents=True)
    with pytest.raises(
        ValueError, match=r"latents.pkl makes latents: give model.vae=<folder>, as that of https"
    ):
        checkpoint_problem("edm", "file", path=str(latents))
    images = write_edm2(tmp_path / "images.pkl")
    with pytest.raises(ValueError, match=r"the samples of .*images.pkl are images: leave it out"):
        checkpoint_problem("edm", "file", path=str(images), vae=str(decoder))
    said = {"scale": 0.18215}
    with pytest.raises(ValueError, match=r"model.latents of file is .*, but its file says .*: leave it out"):
        checkpoint_problem("edm", "file", path=str(latents), latents=said, vae=str(decoder))
