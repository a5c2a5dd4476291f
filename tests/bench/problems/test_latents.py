"""A checkpoint of a network of latents: its samples are decoded, and the decoder is part of its rows."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from seedsbench.bench.problems.build import model_of, problem_of
from seedsbench.cli.command import parse
from tests.support.cells import check, compose, run, same
from tests.support.plain_networks import dit_shapes, grid_of_sinusoids, random_state
from tests.support.tiny_pipelines import vae

pytest.importorskip("diffusers", reason="needs seedsbench[diffusers]")

SIZES = {"width": 24, "depth": 1, "patch": 2, "size": 4, "classes": 3}
HINTS = "+model.hints={prediction: velocity, num_heads: 3}"


@pytest.fixture
def folder(tmp_path, monkeypatch, nothing_loaded):
    """Where a small SiT and an autoencoder lie."""
    state = random_state(dit_shapes(**SIZES)) | {"pos_embed": grid_of_sinusoids(24, 2)}
    torch.save(state, tmp_path / "sit.pt")
    vae(shift_factor=0.0).save_pretrained(tmp_path / "vae")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(coder="vae", latents="{scale: 0.18215}"):
    return (
        "model=file",
        "regime=flow",
        "model.path=sit.pt",
        HINTS,
        f"model.latents={latents}",
        f"model.vae={coder}",
    )


def test_samples_are_decoded_before_they_are_scored(folder):
    model = model_of(compose(*given(latents="{scale: 2.0, bias: [0.5, 0.0, 0.0, -0.5]}")), "cpu")
    assert (model.denoiser.image_shape, model.image_shape) == ((4, 4, 4), (3, 8, 8))
    encoded = torch.randn(2, 4, 4, 4)
    shift = torch.tensor([0.5, 0.0, 0.0, -0.5]).reshape(4, 1, 1)
    with torch.no_grad():
        wanted = vae(shift_factor=0.0).decode(encoded).sample
    torch.testing.assert_close(model.images(2 * encoded + shift), wanted, rtol=0, atol=1e-5)


def test_the_decoder_is_part_of_what_a_model_is_and_its_place_is_not(folder):
    first = model_of(compose(*given()), "cpu").model_id
    shutil.move("vae", "elsewhere")
    assert model_of(compose(*given("elsewhere")), "cpu").model_id == first
    assert model_of(compose(*given("elsewhere", "{scale: 0.2}")), "cpu").model_id != first
    weights = folder / "elsewhere" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file(
        state | {"decoder.conv_out.bias": state["decoder.conv_out.bias"] + 0.1}, weights, {"format": "pt"}
    )
    shutil.move("elsewhere", "other")
    assert model_of(compose(*given("other")), "cpu").model_id != first


def test_a_flow_matching_transformer_is_drawn_guided_and_scored_whatever_the_batch(folder):
    np.savez(folder / "ref.npz", mu=np.zeros(192), sigma=np.eye(192))
    chosen = (*given(), "metrics=values", "metrics.reference=ref.npz", "guidance=cfg", "solver=seeds1")
    chosen += ("nfe=8", "samples=5", "labels=balanced")
    rows = [run(folder / n, *chosen, f"batch_size={n}") for n in ("2", "5")]
    assert [row["reason"] for row in rows] == [None, None]
    assert (rows[0]["status"], rows[0]["schedule"], rows[0]["nfe"]) == ("done", "flow", 8)
    assert same(rows[0]) == same(rows[1])


def test_without_a_decoder_one_line_says_what_to_give(folder):
    cell = compose(*given(coder="null"))
    with pytest.raises(ValueError, match=r"^model=file makes latents: give model\.vae=<folder of diffusers'"):
        problem_of(cell, "cpu")
    said = check(parse(["model=imagenet256_sit", "regime=flow", "metrics=inception", "dry_run=true"]))[1]
    assert "decoder: model=imagenet256_sit makes latents: give model.vae=<folder" in said
    with pytest.raises(ValueError, match=r"model\.latents: unknown option 'size'"):
        problem_of(compose(*given(latents="{scale: 1.0, size: 3}")), "cpu")
