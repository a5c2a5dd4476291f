import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

import seedsbench
from seedsbench.api import noise_levels
from seedsbench.cli.convert import main
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS, GlyphUNet
from seedsbench.diffusion.grid import DiscreteGrid
from seedsbench.diffusion.schedule import Discrete
from tests.support.edm_checkpoint import write_edm
from tests.support.families import load

DDIM, ADM = "ddim_ckpt_ema", "guided_adm64style_new_order"


def write(path, regime="edm", changes=()):
    torch.manual_seed(0)
    network = GlyphUNet(GLYPH_UNETS[regime])
    config = {**asdict(GLYPH_UNETS[regime]), **dict(changes)}
    save_file(network.state_dict(), path, metadata={"network": json.dumps(config)})
    return path


@pytest.fixture
def weights(tmp_path):
    return write(tmp_path / "mine.safetensors")


@pytest.mark.parametrize("regime", GLYPH_UNETS)
def test_own_weights_become_a_denoiser(tmp_path, regime):
    denoiser = seedsbench.load_denoiser(str(write(tmp_path / "w.safetensors", regime)))
    assert (denoiser.image_shape, denoiser.label_dim) == ((3, 16, 16), 10)
    assert denoiser.sigma_data == (0.5 if regime == "edm" else None)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    denoised = denoiser(x, torch.tensor(1.0, dtype=torch.float64), torch.eye(10)[:3])
    assert (denoised.shape, denoised.dtype) == (x.shape, torch.float64)
    assert bool(denoised.isfinite().all())


@pytest.mark.parametrize("name", ["net.bin", "net.onnx", "net"])
def test_other_formats_are_named_and_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"anything")
    with pytest.raises(ValueError, match=rf"{name} is none of seedsbench .safetensors, EDM .pkl, .*format="):
        seedsbench.load_denoiser(path)


EMPTY = torch.zeros(2)
SCORE_SDE = {"model": {"module.all_modules.0.weight": EMPTY}, "ema": {}, "step": 1}
TORCHCFM = {name: {"module.time_embed.0.weight": EMPTY} for name in ("net_model", "ema_model")}
FOREIGN = {"step": 1, "model": {"downs.0.weight": EMPTY}, "ema": {"initted": torch.ones(1)}, "opt": {}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"time_embed.0.weight": EMPTY}, "guided-diffusion .*does not say .*use_new_attention_order"),
        ({"module.temb.dense.0.weight": EMPTY}, "DDIM authors.*does not say img_resolution"),
        ([{"temb.dense.0.weight": EMPTY}, {}, 1, 2], "DDIM authors.*does not say img_resolution"),
        ({"y_embedder.embedding_table.weight": EMPTY}, "DiT or SiT .*does not say prediction"),
        (TORCHCFM, "torchcfm .*does not say image_size"),
        (SCORE_SDE, "score_sde .*does not say image_size, sde, continuous"),
        (FOREIGN, "none of .*: it holds step, model, ema, opt; its weights begin with downs.0.weight$"),
        ({"weight": EMPTY}, "none of .*: it holds weight$"),
        ([], "none of .*: it holds list$"),
    ],
)
def test_families_are_told_by_their_keys_and_ask_for_what_is_missing(tmp_path, content, told):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=told):
        seedsbench.load_denoiser(tmp_path / "net.pth")


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -10])
def test_a_truncated_file_is_named(weights, kept):
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"mine.safetensors is (truncated or not a safetensors file|empty)"):
        seedsbench.load_denoiser(weights)


UNKNOWN = r"mine.safetensors holds no network this version can rebuild"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, "not a seedsbench weights file"),
        ({"depth": 3}, UNKNOWN),
        ({"regime": "warp"}, UNKNOWN),
        ({"channels": [16, 32]}, UNKNOWN),
        ({"img_resolution": 18}, "img_resolution=18 .* multiple of 4, such as"),
        ({"img_resolution": 0}, "img_resolution=0 .* multiple of 4, such as"),
    ],
)
def test_a_file_that_holds_no_network_of_this_version_is_refused(tmp_path, changes, said):
    path = tmp_path / "mine.safetensors"
    if changes is None:
        save_file({"w": torch.zeros(3)}, path)
    else:
        write(path, changes=changes)
    with pytest.raises(ValueError, match=said):
        seedsbench.load_denoiser(path)


def test_unknown_hints_and_formats_are_named(weights):
    with pytest.raises(ValueError, match="format seedsbench: unknown hint 'architecture'"):
        seedsbench.load_denoiser(weights, architecture="ddpmpp")
    with pytest.raises(ValueError, match="unknown format"):
        seedsbench.load_denoiser(weights, format="emd")


def test_an_edm_pickle_and_its_conversion_are_the_same_denoiser(tmp_path, capsys):
    """With an argument that JSON has no number for; no other file is left."""
    pickle, own = write_edm(tmp_path / "net.pkl", sigma_max=float("inf")), tmp_path / "net.safetensors"
    assert main([str(pickle), str(own)]) == 0
    assert str(own) in capsys.readouterr().out
    one, two = seedsbench.load_denoiser(pickle), seedsbench.load_denoiser(own)
    x, sigma = torch.randn(2, *one.image_shape), torch.tensor(0.7)
    assert torch.equal(one(x, sigma), two(x, sigma))
    assert two.sigma_max == one.sigma_max == float("inf")
    assert {path.name for path in tmp_path.iterdir()} == {"net.pkl", "net.safetensors"}
    assert main([str(tmp_path / "gone.pkl"), str(own)]) == 2
    assert main([str(pickle), str(tmp_path / "net.bin")]) == 2


def test_a_list_of_one_is_a_number_and_one_number_a_list(tmp_path):
    sizes = {"img_resolution": [8]}, {"img_resolution": 8.0}
    for hints in (*sizes, {"timesteps": [1000]}, {"beta_schedule": ["sigmoid"]}):
        assert load(DDIM, tmp_path / "net.ckpt", **hints).image_shape == (3, 8, 8)
    for given in (4, 4.0, "4", [4], (4,), [4.0]):
        assert load(ADM, tmp_path / "net.pt", attention_resolutions=given).label_dim == 10
    with pytest.raises(ValueError, match="must be numbers, such as 32,16,8"):
        load(ADM, tmp_path / "net.pt", attention_resolutions=True)


def test_the_betas_of_the_ddim_authors(tmp_path):
    for name, schedule in (("sigmoid", "sigmoid"), ("const", "const"), ("quad", "scaled_linear")):
        assert load(DDIM, tmp_path / "net.ckpt", beta_schedule=name).table == Discrete(beta_schedule=schedule)
    jsd = load(DDIM, tmp_path / "net.ckpt", beta_schedule="jsd")
    assert jsd.sigma_max == pytest.approx(999**0.5)  # alphas_cumprod is 1 - k / T; its last, 0, is no level
    levels, _ = noise_levels(jsd, Discrete(), DiscreteGrid(timestep_spacing="trailing"), 10)
    assert levels[0] == jsd.sigma_max
