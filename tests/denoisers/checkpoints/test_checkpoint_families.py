"""Checkpoints of DDIM, guided-diffusion, improved-diffusion and score SDE: parity, structure, refusals."""

from dataclasses import replace

import pytest
import torch

import seedsbench
from seedsbench.denoisers.checkpoints.ddim import ddim_config
from seedsbench.denoisers.checkpoints.guided import guided_config, respaced
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.networks.ddim_unet import DDIMUNet, DDIMUNetConfig
from seedsbench.denoisers.networks.guided_unet import GuidedUNet, GuidedUNetConfig
from tests.support.edm_files import Runs
from tests.support.families import NAME, cases, content, denoised, distance, images, load, weights
from tests.support.golden import golden

GOLDEN, TWINS = cases(twins=False), cases(twins=True)
DDIM, ADM, SCORE = "ddim_ckpt_ema", "guided_adm64style_new_order", "score_sde_ve_ncsnpp_continuous_ckpt"
RAW = "score_sde_vp_ddpmpp_discrete"
CODE = {"model": Runs(exec, "raise SystemExit('the file was run')")}


def test_all_cases_are_covered():
    # 5 of DDIM, 9 of OpenAI's, 10 of score SDE; twins where weights would be too large to keep here
    assert (len(GOLDEN), len(TWINS)) == (15, 9)


@pytest.mark.parametrize(
    ("name", "hints", "wanted"),
    [(name, {}, "D") for name in GOLDEN + TWINS]
    + [("score_sde_vp_ddpmpp_continuous_ckpt", {"sde": "subvpsde"}, "subvp_D")],
)
def test_a_file_denoises_as_the_authors_code_does(name, hints, wanted, tmp_path):
    """Golden cases against recorded outputs; twins against ours of the day when they were compared."""
    assert golden(NAME).cases[name].get("agreed", 0) < 1e-5
    denoiser = load(name, tmp_path / "file", **hints)
    assert distance(denoised(denoiser, name), golden(NAME).tensor(name, wanted)) < 1e-5


def test_noise_levels_round_to_those_of_training(tmp_path):
    for name in ("ddim_ckpt_ema", "guided_improved_cosine4000_rescaled_t", "score_sde_ve_ncsnpp_discrete"):
        denoiser = load(name, tmp_path / "file")
        sigma = golden(NAME).tensor(name, "sigma").flatten()
        torch.testing.assert_close(denoiser.round_sigma(1.0001 * sigma), sigma, rtol=1e-12, atol=0)
        assert denoiser.sigma_min < denoiser.sigma_max
    assert load(SCORE, tmp_path / "file").round_sigma(torch.tensor(1.2345)) == torch.tensor(1.2345)


@pytest.mark.parametrize("name", GOLDEN)
def test_beside_the_cpu_weights_are_channels_last(name, tmp_path):
    def formats(network):
        kernels = [value for value in network.parameters() if value.ndim == 4]
        return {value.is_contiguous(memory_format=torch.channels_last) for value in kernels}

    denoiser, x = load(name, tmp_path / "file"), images(name)[0][0]
    assert False in formats(denoiser.to("cpu").network)
    moved = denoiser.to("meta")
    assert formats(moved.network) == {True}
    # A view that this layout cannot have would raise.
    labels = torch.ones(len(x), denoiser.label_dim, device="meta") if denoiser.label_dim else None
    assert moved(x.to("meta"), torch.tensor(1.0), labels).shape == x.shape


# --- published sizes ------------------------------------------------------------------------------


IMAGENET64 = GuidedUNetConfig(classes=1000, head_channels=64, new_attention_order=True)
FOUR_HEADS = {"width": 256, "channels": (256, 256, 512, 768, 1024), "attention_levels": (2, 3, 4), "heads": 4}
ADM128 = GuidedUNetConfig(**FOUR_HEADS, blocks=2, classes=1000)
DEEP = {"width": 256, "channels": (128, 256, 256, 512, 512, 1024, 1024), "attention_levels": (4, 5, 6)}
ADM512 = GuidedUNetConfig(**DEEP, blocks=2, head_channels=64)
FOUR_LEVELS = {"channels": (128, 256, 256, 256), "attention_levels": (1, 2), "heads": 4, "heads_up": 4}
IDDPM = GuidedUNetConfig(width=128, **FOUR_LEVELS, resample_in_blocks=False)
MEANS = replace(IDDPM, blocks=2, scale_shift=False, resample_with_convolution=False)
CELEBA = DDIMUNetConfig(multiples=(1, 2, 2, 2, 4), attention_levels=(2,))
CIFAR10 = DDIMUNetConfig(attention_levels=(1,))
SIZES = [(CELEBA, 78_700_803, 390), (CIFAR10, 35_746_307, 328), (IMAGENET64, 295_904_454, 541)]
SIZES += [(ADM128, 421_529_606, 493), (ADM512, 557_973_638, 644)]
SIZES += [(IDDPM, 52_546_438, 446), (MEANS, 33_970_182, 322)]


@pytest.mark.parametrize(("config", "parameters", "tensors"), SIZES)
def test_the_architecture_is_read_off_the_file(config, parameters, tensors):
    guided = isinstance(config, GuidedUNetConfig)
    with torch.device("meta"):
        state = (GuidedUNet(config) if guided else DDIMUNet(config)).state_dict()
    assert (sum(value.numel() for value in state.values()), len(state)) == (parameters, tensors)
    if guided:
        told = ("heads", "heads_up", "head_channels", "new_attention_order")
        found = guided_config(state, **{name: getattr(config, name) for name in told})
        between = config.resample_with_convolution and not config.resample_in_blocks
        assert found == replace(config, resample_with_convolution=between)
    else:
        assert ddim_config(state) == config


# --- outer structures -----------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_ddim_list_bare_and_raw(tmp_path, zipped):
    path, state = tmp_path / "model.ckpt", weights(DDIM)
    half = {key: 0.5 * value for key, value in state.items()}

    def first(content, **more):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return seedsbench.load_denoiser(path, format="ddim", img_resolution=8, **more).network.conv_in.weight

    raw = [{f"module.{key}": value for key, value in half.items()}, {}, 1, 2]
    assert torch.equal(first([*raw, state]), state["conv_in.weight"])
    assert torch.equal(first([*raw, state], weights="raw"), half["conv_in.weight"])
    assert torch.equal(first(raw, weights="raw"), half["conv_in.weight"])
    assert torch.equal(first(state), state["conv_in.weight"])


def test_half_precision_files_are_read(tmp_path):
    half = {key: value.half() for key, value in weights(ADM).items()}
    network = load(ADM, tmp_path / "file", half).network
    assert {(p.dtype, p.requires_grad) for p in network.parameters()} == {(torch.float32, False)}
    assert torch.equal(network.out[2].weight, weights(ADM)["out.2.weight"])  # these weights are exact in half


def test_fourier_frequencies_come_from_the_model_and_the_rest_from_the_averages(tmp_path):
    averaged = load(SCORE, tmp_path / "file").network
    raw = load(SCORE, tmp_path / "file", weights="raw").network
    assert torch.equal(averaged.map_noise.freqs, raw.map_noise.freqs)
    assert torch.equal(averaged.map_layer0.weight, 2 * raw.map_layer0.weight)
    saved = content(SCORE)
    saved["ema"]["shadow_params"].insert(0, weights(SCORE)["all_modules.0.W"])
    with pytest.raises(CheckpointError, match="155 tensors for 154"):
        load(SCORE, tmp_path / "file", saved)


# --- OpenAI's flags -------------------------------------------------------------------------------


def test_the_attention_order_matters(tmp_path):
    other = load(ADM, tmp_path / "file", use_new_attention_order=False)
    assert distance(denoised(other, ADM), golden(NAME).tensor(ADM, "D")) > 1e-3


def test_fp16_rounds_the_torso_alone(tmp_path):
    denoiser = load(ADM, tmp_path / "file", use_fp16=True)
    assert 1e-5 < distance(denoised(denoiser, ADM), golden(NAME).tensor(ADM, "D")) < 5e-3
    network = denoiser.network
    assert network.middle_block[1].qkv.weight.dtype == torch.float16
    assert {network.out[2].weight.dtype, network.time_embed[0].weight.dtype} == {torch.float32}


def test_missing_labels_are_the_zero_row(tmp_path):
    denoiser = load(ADM, tmp_path / "file")
    x, sigma = golden(NAME).tensor(ADM, "x")[0], torch.tensor(1.0)
    torch.testing.assert_close(denoiser(x, sigma), denoiser(x, sigma, torch.zeros(2, 10)))


def test_respacing():
    assert respaced(10, "") == tuple(range(10))[:0]
    assert respaced(1000, "5") == (0, 250, 500, 749, 999)
    assert respaced(10, "2,3") == (0, 4, 5, 7, 9)
    assert respaced(1000, "ddim4") == (0, 250, 500, 750)
    for wrong in ("11", "0", "2.5", "ddim7", "x"):
        with pytest.raises(ValueError, match=r"timestep_respacing=|must be numbers"):
            respaced(10, wrong)


def test_a_respaced_process_keeps_fewer_levels(tmp_path):
    whole, few = (load(ADM, tmp_path / "file", timestep_respacing=kept) for kept in ("", "5"))
    levels = torch.logspace(-4, 5, 1001, dtype=torch.float64)
    assert len(few.round_sigma(levels).unique()) == 5
    assert few.round_sigma(levels[-1]) == whole.sigma_max


@pytest.mark.parametrize(
    ("name", "hints", "said"),
    [
        (ADM, {"num_channels": 64}, "num_channels=64"),
        (ADM, {"attention_resolutions": "8"}, "attention_resolutions"),
        (ADM, {"learn_sigma": False}, "learn_sigma"),
        (ADM, {"class_cond": False}, "class_cond"),
        (ADM, {"num_head_channels": 5}, "must divide"),
        (ADM, {"noise_schedule": "cubic"}, "must be one of linear, cosine"),
        (ADM, {"image_size": 9}, "multiple of 2"),
        (ADM, {"use_new_attention_order": "no"}, "true or false"),
        (SCORE, {"sde": "vp"}, "must be one of vpsde"),
        (SCORE, {"sde": "vpsde"}, "positional embedding"),
        (SCORE, {"continuous": False}, "positional embedding"),
        (SCORE, {"fir": False}, "fir"),
        (RAW, {"sde": "subvpsde"}, "continuous=true"),
        (RAW, {"centered": False}, "centered=false and scale_by_sigma=true are for sde=vesde"),
        (DDIM, {"img_resolution": [8, 16]}, r"img_resolution=\[8, 16\] must be an integer"),
        (DDIM, {"img_resolution": 8.5}, "img_resolution=8.5 must be an integer"),
        (DDIM, {"img_resolution": "8"}, "img_resolution='8' must be an integer"),
        (DDIM, {"beta_end": [0.1, 0.2]}, r"beta_end=\[0.1, 0.2\] must be a number"),
        (DDIM, {"beta_schedule": "cubic"}, "must be one of linear, quad, sigmoid, const, jsd"),
        (RAW, {"beta_min": 30}, "0 < beta_min < beta_max"),
        (SCORE, {"image_size": 7}, "multiple of 2"),
    ],
)
def test_hints_that_do_not_fit_are_named(tmp_path, name, hints, said):
    with pytest.raises(ValueError, match=said):
        load(name, tmp_path / "file", **hints)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [DDIM, ADM, RAW])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda key, value: {key: None}, "lacks|is no module"),
        (lambda *_: {"extra.weight": torch.zeros(1)}, "no use for 1 .* extra|its model has extra"),
        (lambda key, value: {key: value[..., :-1]}, "has shape"),
        (lambda key, value: {key: torch.full_like(value, torch.nan)}, "finite"),
    ],
)
def test_states_that_do_not_fit_are_refused(tmp_path, name, damage, said):
    changed = weights(name) | damage(*next(iter(weights(name).items())))
    state = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(CheckpointError, match=said):
        load(name, tmp_path / "file", {"model": state} if name == RAW else state)


@pytest.mark.parametrize("saved", [3, [], [1, 2], {"a": 1}, {"model": 5}, torch.zeros(3), {}, CODE])
@pytest.mark.parametrize("name", [DDIM, ADM, SCORE])
def test_other_contents_are_refused_and_code_in_them_is_not_run(tmp_path, name, saved):
    with pytest.raises(CheckpointError, match=r"state dict|damaged, or holds more than weights"):
        load(name, tmp_path / "file", saved)
