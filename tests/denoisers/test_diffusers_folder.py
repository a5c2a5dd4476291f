"""diffusers folders against diffusers' own DDIMPipeline, on tiny random networks written here."""

import json
import sys

import pytest
import torch

import seedsbench
from seedsbench.denoisers.checkpoints.diffusers_folder import load_diffusers
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.noise import Recorded
from tests.support.pipelines import write_pipeline

pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")

BETAS = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200},
}
STEPS = 6


def write(folder, betas="linear", **options):
    return write_pipeline(folder, **BETAS[betas], clip_sample=False, **options)


def normals(draws):
    """What the pipeline draws with a generator of seed 1: latents, then one noise for each step."""
    generator = torch.Generator().manual_seed(1)
    return torch.stack([torch.randn(2, 3, 8, 8, generator=generator) for _ in range(draws)])


def theirs(pipeline, **options):
    """Images in [0, 1] of the pipeline, (B, H, W, C)."""
    options |= {"batch_size": 2, "generator": torch.Generator().manual_seed(1), "num_inference_steps": STEPS}
    images = torch.as_tensor(pipeline(**options, output_type="np").images).double()
    assert (images > 0).double().mean() > 0.2  # not all clipped away
    return images


def ours(folder, pipeline, eta=0.0, spacing=None):
    """The same of our DDIM from the same start, at the pipeline's own timesteps or over a grid."""
    denoiser = load_diffusers(folder)
    z = normals(STEPS + 1).double()
    if spacing is None:
        pipeline.scheduler.set_timesteps(STEPS)
        sigmas = denoiser.levels[pipeline.scheduler.timesteps.clone()]
        # The pipeline starts from N(0, 1) in scaled coordinates; here the start is s(t) sigma(t) z.
        start, where = z[0] * (1 + sigmas[0] ** 2).sqrt() / sigmas[0], {"sigmas": sigmas}
    else:
        start, where = z[0], {"nfe": STEPS, "grid": {"name": "discrete", "timestep_spacing": spacing}}
    # The library steps to t - T // n, which for trailing timesteps is not the next one (solvers/ddim.py).
    solver = {"name": "ddim", "eta": eta, "previous_timestep": "diffusers"}
    options = {"schedule": denoiser.schedule, "noise": Recorded(z[1:]), **where}
    drawn = seedsbench.sample(denoiser, start, solver=solver, **options)
    return drawn.sigmas, (drawn.x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(
    "betas", ["linear", *(pytest.param(b, marks=pytest.mark.slow) for b in BETAS if b != "linear")]
)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_samples_are_those_of_the_ddim_pipeline(tmp_path, prediction, betas, spacing, eta):
    pipeline = write(tmp_path, betas, prediction_type=prediction, timestep_spacing=spacing)
    wanted = theirs(pipeline, eta=eta)
    assert (ours(tmp_path, pipeline, eta)[1] - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_from_zero_snr_too(tmp_path, prediction, betas):
    """DDIM starts in the limit, as the library's does, though the network's own table ends short of it."""
    given = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    pipeline = write(tmp_path, betas, prediction_type=prediction, **given)
    sigmas, images = ours(tmp_path, pipeline, spacing="trailing")
    assert float(sigmas[0]) == pytest.approx(1e15)
    assert (images - theirs(pipeline)).abs().max() < 1e-5


@pytest.mark.parametrize("layout", ["flat", "flat .bin"])
def test_a_folder_of_the_model_alone(tmp_path, layout):
    write(tmp_path / "pipeline")
    write(tmp_path / "flat", layout=layout)
    found, wanted = (dict(load_diffusers(tmp_path / name).unet.state_dict()) for name in ("flat", "pipeline"))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_classes_are_one_hot_rows(tmp_path):
    write(tmp_path, network={"num_class_embeds": 3})
    denoiser = load_diffusers(tmp_path)
    assert denoiser.label_dim == 3
    x, sigma = torch.zeros(2, 3, 8, 8, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    both = denoiser(x, sigma, torch.eye(3)[[0, 2]])
    assert not torch.allclose(both[0], both[1])
    assert torch.allclose(denoiser(x, sigma, torch.eye(3)[[2, 2]])[1], both[1])
    for labels in (None, torch.zeros(2, 3)):
        with pytest.raises(ValueError, match="no unconditional mode: use labels=balanced"):
            denoiser(x, sigma, labels)


def test_a_learnt_variance_is_cut_off_and_beside_the_cpu_weights_are_channels_last(tmp_path):
    write(tmp_path, network={"out_channels": 6})
    denoiser, x = load_diffusers(tmp_path), torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    assert denoiser(x, torch.tensor(2.0, dtype=torch.float64)).shape == x.shape
    weights = [value for value in denoiser.to("meta").unet.parameters() if value.ndim == 4]
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in weights)


MODEL, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_diffusers(path)
    assert "\n" not in str(caught.value)


def edited(path, **changes):
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("file", "changes", "expected"),
    [
        (MODEL, {"_class_name": "UNet2DConditionModel"}, "='UNet2DConditionModel': only \"UNet2DModel\""),
        (MODEL, {"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        (MODEL, {"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        (MODEL, {"out_channels": 4}, "maps 3 channels to 4"),
        (MODEL, {"sample_size": [8, 16]}, "only square images"),
        (MODEL, {"sample_size": None}, "only square images"),
        (MODEL, {"block_out_channels": [8, 8]}, "cannot be loaded by diffusers: "),
        (MODEL, {"num_class_embeds": 3}, "1 missing keys, the first is 'class_embedding.weight'"),
        (MODEL, {"down_block_types": ["DownBlock2D", "DownBlock2D"]}, "unexpected keys, the first is"),
        (SCHEDULER, {"beta_schedule": "absent", "_class_name": "KarrasVeScheduler"}, "has no beta_schedule"),
        (SCHEDULER, {"beta_schedule": "laplace"}, "laplace"),
        (SCHEDULER, {"num_train_timesteps": "many"}, "must be an integer"),
        (SCHEDULER, {"prediction_type": "flow"}, "must be one of epsilon, sample, v_prediction"),
        (SCHEDULER, {"rescale_betas_zero_snr": True}, "json: prediction_type='epsilon' .*v_prediction"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, file, changes, expected):
    write(tmp_path)
    edited(tmp_path / file, **changes)
    refused(tmp_path, expected)


INDEX = "model_index.json"


@pytest.mark.parametrize(
    ("part", "kind", "expected"),
    [
        ("vqvae", "VQModel", r"is a DDIMPipeline with vqvae \(VQModel\): its network makes latents"),
        ("vae", "AutoencoderKL", r"with vae \(AutoencoderKL\): its network makes latents"),
        ("text_encoder", "CLIPTextModel", r"with text_encoder \(CLIPTextModel\): its network needs those"),
        ("prior", "PriorTransformer", "only pipelines of a unet and a scheduler can be read"),
    ],
)
def test_every_part_of_a_pipeline_is_used_or_refused_by_name(tmp_path, part, kind, expected):
    write(tmp_path)
    edited(tmp_path / INDEX, **{part: [None, None], "feature_extractor": None, "requires_safety": True})
    load_diffusers(tmp_path)
    edited(tmp_path / INDEX, **{part: ["diffusers", kind]})
    for path in (tmp_path, tmp_path / "unet"):
        refused(path, expected)


def test_a_size_that_the_levels_do_not_divide_is_refused_before_anything_runs(tmp_path):
    levels = {"block_out_channels": (8,) * 4, "down_block_types": ("DownBlock2D",) * 4}
    levels |= {"up_block_types": ("UpBlock2D",) * 4, "sample_size": 28}
    write(tmp_path, network=levels)
    said = "img_resolution=28 cannot be halved 3 times, as a network of 4 levels does: .* such as 24 or 32"
    refused(tmp_path, said)
    edited(tmp_path / MODEL, sample_size=[24, 24])
    assert load_diffusers(tmp_path).image_shape == (3, 24, 24)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (MODEL, "is not there"),
        (SCHEDULER, "has no scheduler/scheduler_config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "cannot be loaded by diffusers"),
    ],
)
@pytest.mark.parametrize("damage", ["gone", "garbled"])
def test_missing_and_damaged_files(tmp_path, file, expected, damage):
    write(tmp_path)
    if damage == "gone":
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(b"\x00{")
        expected = "cannot be read|cannot be loaded"
    refused(tmp_path, expected)


def test_a_torchvision_of_another_torch_build_is_said_with_what_to_install(tmp_path, monkeypatch):
    """diffusers imports it when a model is first named, and fails for want of its operators."""

    class Library:
        @property
        def UNet2DModel(self):
            raise RuntimeError("operator torchvision::nms does not exist")

    write(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", Library())
    refused(tmp_path, "install a torchvision made for this torch")
