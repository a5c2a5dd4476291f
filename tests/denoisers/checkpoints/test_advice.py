"""Whatever an error about a checkpoint tells its reader to do, done: the file can then be read."""

import argparse
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

import seedsbench
from seedsbench.denoisers.checkpoints.edm.read import read_edm
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.checkpoints.weights import save_weights
from tests.support.cells import compose
from tests.support.edm_checkpoint import write_edm
from tests.support.edm_files import Name, dumped, persistent
from tests.support.families import NAME, content, weights
from tests.support.golden import golden
from tests.support.pipelines import write_pipeline

DDIM, ADM = "ddim_ckpt_ema", "guided_adm64style_new_order"
VP, VE = "score_sde_vp_ddpmpp_discrete", "score_sde_ve_ncsnpp_continuous_ckpt"
UNSCALED = "score_sde_opt_biggan_norescale_nofir_residual_in"


def hints(name, **changes):
    """What the case's file does not say of itself."""
    return {**golden(NAME).cases[name]["hints"], **changes}


def fails(match, path, **given):
    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        seedsbench.load_denoiser(path, **given)
    assert "\n" not in str(caught.value)


def works(path, **given):
    denoiser = seedsbench.load_denoiser(path, **given)
    labels = torch.eye(denoiser.label_dim)[:2] if denoiser.label_dim else None
    x = seedsbench.noise.latents(torch.arange(2), denoiser.image_shape, seed=3)
    found = denoiser(x, torch.tensor(1.0, dtype=torch.float64), labels)
    assert found.isfinite().all()
    return found


def saved(path, value):
    torch.save(value, path)
    return path


# --- torch files ------------------------------------------------------------------------------------


def test_save_the_state_dict_alone(tmp_path):
    for name in (DDIM, ADM, VP, VE):
        state = content(name)["model"] if name in (VP, VE) else weights(name)
        path = saved(tmp_path / "net.pt", {"state": state, "arguments": argparse.Namespace(lr=1e-4)})
        fails(r"torch\.save its state_dict\(\) alone", path)
        found = works(saved(path, state), **hints(name))
        if name in (VP, DDIM, ADM):
            whole = saved(tmp_path / "whole.pt", content(name))
            raw = {"weights": "raw"} if name == VP else {}
            assert torch.equal(found, works(whole, **hints(name, **raw)))


def test_save_those_of_the_network_alone(tmp_path):
    """The training state of a trainer of its own, which is not score SDE's for having its keys."""
    state = weights(ADM)
    training = {"step": 7, "model": state, "ema": state, "opt": {"lr": torch.ones(1)}}
    path = saved(tmp_path / "net.pt", training)
    fails(r"a guided-diffusion .* under model or ema: torch\.save those of model or ema alone", path)
    works(saved(path, torch.load(path)["ema"]), **hints(ADM))


LIST = [weights(DDIM), {}, 3, 1234]
UNTOLD = r"does not say img_resolution: give img_resolution=\.\.\. \(on the command line '\+model\.hints="
SIZED, ADM_HINTS = {"img_resolution": 8}, hints(ADM)
HEADS = {"num_heads": -1, "num_head_channels": -1}
NO_FIR = {"weights": "raw", "fir": None}
FEWER = ADM_HINTS | {"diffusion_steps": 50, "rescale_timesteps": None}


@pytest.mark.parametrize(
    ("content", "given", "said", "change"),
    [
        (weights(DDIM), {}, UNTOLD, SIZED),
        (weights(DDIM), {"img_resolution": 7}, "img_resolution=7 .* such as 6 or 8", {"img_resolution": 6}),
        (weights(DDIM), SIZED | {"weights": "raw"}, "use weights=ema", {"weights": "ema"}),
        (LIST, SIZED, "use weights=raw", {"weights": "raw"}),
        (content(VP), hints(VP), "use weights=raw", {"weights": "raw"}),
        (content(VP), hints(VP, **NO_FIR), r"give fir \(NCSN\+\+ true", hints(VP)),
        (content(UNSCALED), hints(UNSCALED, **NO_FIR), r"give fir \(NCSN\+\+ true", hints(UNSCALED)),
        (weights(ADM), ADM_HINTS | HEADS, "give one of them", {"num_heads": 2}),
        (weights(ADM), FEWER, "give rescale_timesteps too", {"rescale_timesteps": True}),
    ],
)
def test_give_what_is_asked_for(tmp_path, content, given, said, change):
    path = saved(tmp_path / "net.pt", content)
    fails(said, path, **given)
    works(path, **given | change)


def test_hints_on_the_command_line_are_those_asked_for():
    cfg = compose("model=file", "model.path=net.pt", "+model.hints={img_resolution: 8}")
    assert dict(cfg.model["hints"]) == {"img_resolution": 8}


def test_copy_it_again(tmp_path):
    path = saved(tmp_path / "net.pt", weights(DDIM))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fails("copy or download it again", path, img_resolution=8)
    path.write_bytes(b"")
    fails("is empty: copy or download it again", path, img_resolution=8)
    path.write_bytes(whole)
    works(path, img_resolution=8)
    for name in ("gone.pt", "gone.pkl", "gone.safetensors"):
        fails(f"{name} is not there: give (the path of )?a checkpoint", tmp_path / name)


# --- EDM --------------------------------------------------------------------------------------------


def test_pickle_or_write_the_edm_network_alone(tmp_path):
    source = write_edm(tmp_path / "net.pkl", label_dim=2)
    wanted, record = works(source), read_edm(source)
    network = types.new_class("EDMPrecond")()  # as its owner has it
    network.init_args, network.init_kwargs = record.init_args, record.init_kwargs
    network.state_dict = lambda: record.state_dict
    foreign = tmp_path / "foreign.pkl"
    foreign.write_bytes(dumped({"ema": persistent("EDMPrecond", {}), "hook": Name("mine", "hook")}))
    fails(r"pickle \{'ema': network\} alone, or write it with .*save_weights\(", foreign)
    bare = saved(tmp_path / "bare.pt", network.state_dict())
    fails(r"weights of an EDM network without its arguments: pickle .*save_weights\(", bare)
    with pytest.raises(CheckpointError) as caught:
        seedsbench.load_denoiser(bare)
    code = str(caught.value)[str(caught.value).index("save_weights(") :]
    code = code.replace("'network.safetensors'", "path")
    eval(code, {"save_weights": save_weights, "network": network, "path": tmp_path / "own.safetensors"})
    assert torch.equal(works(tmp_path / "own.safetensors"), wanted)


# --- diffusers --------------------------------------------------------------------------------------


def test_give_the_folder_of_a_diffusers_model(tmp_path):
    unet = write_pipeline(tmp_path / "pipeline").unet
    bare = saved(tmp_path / "net.pt", unet.state_dict())
    fails("give the folder that save_pretrained of the model writes, with .* scheduler as scheduler/", bare)
    unet.save_pretrained(tmp_path / "mine")
    shutil.copytree(tmp_path / "pipeline/scheduler", tmp_path / "mine/scheduler")
    assert torch.equal(works(tmp_path / "mine"), works(tmp_path / "pipeline"))
    fails("give a folder that holds config.json and the weights", tmp_path)


def test_a_folder_with_one_variant_is_read_and_of_two_one_is_copied(tmp_path):
    unet = write_pipeline(tmp_path / "pipeline").unet
    home = tmp_path / "pipeline" / "unet"
    plain = home / "diffusion_pytorch_model.safetensors"
    wanted = works(tmp_path / "pipeline")
    plain.rename(home / "diffusion_pytorch_model.fp16.safetensors")
    assert torch.equal(works(tmp_path / "pipeline"), wanted)
    unet.save_pretrained(home, variant="other")
    said = r"fp16\.\*, diffusion_pytorch_model\.other\.\*: copy it with one of them alone"
    fails(said, tmp_path / "pipeline")
    shutil.copytree(tmp_path / "pipeline", tmp_path / "copy", ignore=shutil.ignore_patterns("*fp16*"))
    assert torch.equal(works(tmp_path / "copy"), wanted)


def test_the_extra_that_is_named_exists(tmp_path, monkeypatch):
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    write_pipeline(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    fails(r"pip install 'seedsbench\[diffusers\]'", tmp_path)
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert any("diffusers" in one for one in project["optional-dependencies"]["diffusers"])
