"""Every published file's YAML against a file of its structure: it says all that the reader needs."""

import numpy as np
import pytest
import torch
from torch import nn

from seedsbench.api import noise_levels
from seedsbench.bench.problems.build import model_of
from seedsbench.denoisers.networks.ddim_unet import DDIMUNet, DDIMUNetConfig
from seedsbench.files.model_files import wanted_files
from seedsbench.registry import build
from tests.support.cells import compose, model_files
from tests.support.edm_checkpoint import write_edm
from tests.support.plain_networks import dit_shapes, random_state, unet_shapes
from tests.support.tiny_pipelines import vae

MODELS = model_files()
CELLS = [(name, regime) for name, model in MODELS.items() for regime in model.get("files", ())]
CELLS = [cell for cell in CELLS if not cell[0].startswith("edm2")]  # those: test_edm2_models.py
BASELINES = {"vp": "VPPrecond", "ve": "VEPrecond", "iddpm": "iDDPMPrecond"}
ADM = {"model_type": "DhariwalUNet", "model_channels": 64, "channel_mult": [1], "num_blocks": 1}
ADM |= {"attn_resolutions": []}
NCSNPP = {"model_type": "SongUNet", "embedding_type": "fourier", "encoder_type": "residual"}
NCSNPP |= {"decoder_type": "standard", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}
NCSNPP |= {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": []}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, nothing_loaded):
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path))
    return tmp_path


def write_ddim(path):
    """What the DDIM authors' training saved, with the configuration of CelebA-64 but for the width."""
    torch.manual_seed(0)
    network = DDIMUNet(DDIMUNetConfig(width=32, multiples=(1, 2, 2, 2, 4), attention_levels=(2,)))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    averages = network.state_dict()
    raw = {f"module.{name}": torch.zeros_like(value) for name, value in averages.items()}
    torch.save([raw, {"state": {}}, 3, 1234, averages], path)


def write_torchcfm(path):
    """What torchcfm's training saved, with the configuration of CIFAR-10 but for the width."""
    state = random_state(unet_shapes(64, (1, 2, 2, 2), 2, (1,)))
    torch.save({"net_model": state, "ema_model": state, "sched": {}, "optim": {}, "step": 400000}, path)


def write_dit(path):
    """DiT's and SiT's file, of the smallest width and one block."""
    torch.save(random_state(dit_shapes(width=384, depth=1, patch=2, size=32)), path)


OTHERS = {"ddim": write_ddim, "torchcfm": write_torchcfm, "dit": write_dit}


def write(path, name, regime):
    """A file of the structure of the published one, with a small network."""
    model = MODELS[name]
    kind = model["files"][regime]["format"]
    if kind in OTHERS:
        return OTHERS[kind](path)
    precond = BASELINES[regime] if name.endswith("baseline") else "EDMPrecond"
    network = ADM if name.startswith("imagenet") else NCSNPP if regime == "ve" else None
    shape = {"resolution": model["shape"][1], "label_dim": model["classes"]}
    return write_edm(path, precond, network=network, **shape)


def problem(name, regime, cache):
    """The cell's model, loaded from a file put where dry_run=true says it belongs."""
    weights, reference = (one for one in wanted_files(MODELS[name], regime) if one.remote)
    write(cache / weights.remote.name, name, regime)
    np.savez(cache / reference.remote.name, mu=np.zeros(1), sigma=np.eye(1))
    given = []
    if "latents" in MODELS[name]:
        pytest.importorskip("diffusers", reason="needs seedsbench[diffusers]")
        vae(levels=4).save_pretrained(cache / "vae")
        given = [f"model.vae={cache / 'vae'}"]
    cell = compose(f"model={name}", f"regime={regime}", "offline=true", *given)
    return cell, model_of(cell, "cpu")


@pytest.mark.parametrize(("name", "regime"), CELLS)
def test_a_file_of_the_published_structure_loads_with_what_the_yaml_says(name, regime, cache):
    cell, model = problem(name, regime, cache)
    assert list(model.image_shape) == MODELS[name]["shape"]
    assert model.denoiser.label_dim == MODELS[name]["classes"]
    sigmas, _ = noise_levels(model.denoiser, build(cell.schedule), build(cell.grid), 5)
    assert len(sigmas) == 6, "the regime's own grid has no two levels that the network takes for one"
    x = sigmas[0] * torch.linspace(-2, 2, int(np.prod(model.denoiser.image_shape))).sin().double()
    labels = torch.eye(model.denoiser.label_dim)[:1] if model.denoiser.label_dim else None
    bare = model.denoiser.denoiser  # not in batches of a fixed size, which cost more
    denoised = bare(x.reshape(1, *model.denoiser.image_shape), sigmas[0], labels)
    assert bool(denoised.isfinite().all())
    if model.decode is not None:
        assert list(model.images(denoised)[0].shape) == MODELS[name]["shape"]


def test_celeba64_is_told_fractional_times_and_evaluated_between_its_levels(cache):
    _, model = problem("celeba64", "vp", cache)
    sigma = torch.tensor(1.2345, dtype=torch.float64)
    assert model.denoiser.round_sigma(sigma) == sigma
    found = model.denoiser.denoiser.preconditioner
    assert float(found.c_noise(sigma)) % 1 > 0
    assert float(found.c_noise(found.table.on(sigma.device)[500])) == 500
    assert (found.schedule.beta_start, found.schedule.beta_end) == (1e-4, 0.02)
