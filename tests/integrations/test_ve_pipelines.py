"""KarrasVePipeline and ScoreSdeVePipeline: right by default, diffusers' own numbers with compat."""

import pytest
import torch

import seedsbench
from tests.support.pipelines import TINY

diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
bridge = pytest.importorskip("seedsbench.integrations.diffusers")

KINDS = {
    "KarrasVe": (bridge.KarrasVePipeline, bridge.KarrasVeScheduler, {"sigma_max": 0.5}),
    "ScoreSdeVe": (bridge.ScoreSdeVePipeline, bridge.ScoreSdeVeScheduler, {"sigma_max": 0.5}),
}


def unet(channels=3):
    """A tiny network whose output at a level is about that of a denoiser of images near 0."""
    torch.manual_seed(0)
    embedding = {"time_embedding_type": "fourier", "in_channels": channels, "out_channels": channels}
    return diffusers.UNet2DModel(**TINY | embedding).eval()


def made(name, channels=3, **options):
    pipeline, scheduler, own = KINDS[name]
    result = pipeline(unet(channels), scheduler(**own | options))
    result.set_progress_bar_config(disable=True)
    return result


def images(pipeline, batch=2, n=4, generator=None):
    generator = generator or [torch.Generator().manual_seed(i) for i in range(batch)]
    call = {"batch_size": batch, "num_inference_steps": n, "generator": generator, "output_type": "np"}
    return torch.from_numpy(pipeline(**call).images)


def evaluations(pipeline, n):
    """How often the network is called for one image."""
    calls = []
    hook = pipeline.unet.register_forward_hook(lambda *given: calls.append(1))
    images(pipeline, 1, n)
    hook.remove()
    return len(calls)


@pytest.mark.parametrize("compat", ["none", "diffusers"])
def test_evaluations(compat):
    assert evaluations(made("KarrasVe", compat=compat), 5) == 9
    for steps in (0, 1, 2):
        assert evaluations(made("ScoreSdeVe", compat=compat, correct_steps=steps), 5) == 5 * (1 + steps)


@pytest.mark.parametrize("name", KINDS)
def test_an_image_is_the_same_in_any_batch_and_has_the_networks_channels(name):
    pipeline = made(name, channels=4)
    alone = images(pipeline, 1)
    assert alone.shape == (1, 8, 8, 4)
    torch.testing.assert_close(images(pipeline, 5)[:1], alone, rtol=0, atol=1e-4)
    assert torch.equal(images(pipeline, 1), alone)


def test_with_diffusers_norms_an_image_depends_on_its_neighbours():
    pipeline = made("ScoreSdeVe", compat="diffusers")
    assert (images(pipeline, 5)[0] - images(pipeline, 1)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", KINDS)
def test_what_a_pipeline_returns(name):
    pipeline = made(name)
    call = {"batch_size": 2, "num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)}
    assert [image.size for image in pipeline(**call).images] == [(8, 8)] * 2
    (array,) = pipeline(**call, output_type="np", return_dict=False)
    assert array.shape == (2, 8, 8, 3)
    assert 0 <= array.min() <= array.max() <= 1
    with pytest.raises(ValueError, match="num_inference_steps=1 must be at least 2"):
        pipeline(num_inference_steps=1)
    with pytest.raises(ValueError, match="compat='yes' must be none or diffusers"):
        made(name, compat="yes")


def test_karras_ve_is_algorithm_2_on_the_papers_levels():
    pipeline, seed = made("KarrasVe", s_churn=0.0), torch.Generator().manual_seed(3)
    latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))

    def denoiser(x, sigma, labels):
        x, sigma = x.float(), sigma.float()
        return x + sigma * sigma / 2 * pipeline.unet((x + 1) / 2, sigma / 2).sample

    levels = 0.5 * (0.02 / 0.5) ** (torch.arange(5, dtype=torch.float64) / 4)
    expected = seedsbench.sample(denoiser, latents, solver="heun", sigmas=levels).x
    expected = (expected / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float()
    torch.testing.assert_close(images(pipeline, n=5, generator=seed), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_compat_is_diffusers(name):
    """The images of diffusers' own pipeline, where this version still has it."""
    places = {"KarrasVe": "deprecated.scheduling_karras_ve", "ScoreSdeVe": "scheduling_sde_ve"}
    module = pytest.importorskip(f"diffusers.schedulers.{places[name]}", reason="this version has it no more")
    own, scheduler = getattr(diffusers, f"{name}Pipeline"), getattr(module, f"{name}Scheduler")
    ours = made(name, compat="diffusers")
    theirs = own(ours.unet, scheduler.from_config(ours.scheduler.config))
    theirs.set_progress_bar_config(disable=True)
    given = [torch.Generator().manual_seed(5) for _ in range(2)]
    found, expected = (images(p, n=6, generator=g) for p, g in zip((ours, theirs), given, strict=True))
    inside = (expected > 0) & (expected < 1)
    assert inside.float().mean() > 0.05  # else there is nothing to compare
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
