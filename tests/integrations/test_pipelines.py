"""Pipelines of diffusers run unchanged with our schedulers; an image is the same in any batch, and again."""

import pytest
import torch

from tests.support.tiny_pipelines import MAKERS, images, made

bridge = pytest.importorskip("seedsbench.integrations.diffusers", reason="needs seedsbench[diffusers]")


def swapped(name, scheduler=None, **options):
    """The pipeline with the scheduler that the README puts there."""
    pipeline = made(name)
    pipeline.scheduler = (scheduler or bridge.SEEDSScheduler).from_config(
        pipeline.scheduler.config, **options
    )
    return pipeline


@pytest.mark.parametrize("name", MAKERS)
def test_an_image_is_the_same_in_any_batch_and_again(name):
    pipeline = swapped(name)
    alone = images(pipeline, 1)
    assert alone.isfinite().all()
    assert torch.equal(images(pipeline, 1), alone)
    for batch in (2, 5):
        several = images(pipeline, batch)
        assert len(several) == batch
        # The network's own arithmetic may depend on the batch, in the last digits of float32.
        torch.testing.assert_close(several[:1], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["DDPMPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusion3Pipeline"]
)
@pytest.mark.parametrize(
    ("solver", "options"),
    [("heun", {}), ("unipc", {}), ("karras_sde", {"S_max": 1e9}), ("restart", {"intervals": []})],
)
def test_any_solver(name, solver, options):
    pipeline = swapped(name, bridge.SolverScheduler, solver=solver, solver_options=options)
    assert images(pipeline, 2).isfinite().all()


def test_a_flow_pipeline_is_known_by_its_configuration():
    pipeline = swapped("StableDiffusion3Pipeline")
    assert pipeline.scheduler.config.prediction_type == "flow_prediction"
    assert images(pipeline, 1).shape == (1, 16, 16, 3)
    assert pipeline.scheduler.timesteps[0] == 1000


def test_euler_in_flow_time_is_the_pipelines_own_scheduler():
    own = made("StableDiffusion3Pipeline")
    ours = swapped("StableDiffusion3Pipeline", bridge.SolverScheduler, solver="euler")
    # They differ in what stands for the level 1, where no data is left: 1 - 2^-12.
    torch.testing.assert_close(images(ours, 2, steps=8), images(own, 2, steps=8), rtol=0, atol=2e-3)


def test_a_saved_pipeline_finds_its_scheduler_again(tmp_path):
    pipeline = swapped("DDPMPipeline", eta=0.5)
    pipeline.save_pretrained(tmp_path)
    again = type(pipeline).from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is bridge.SEEDSScheduler
    assert again.scheduler.config.eta == 0.5
    # Weights read from a file may lie at other addresses, and kernels then sum in another order.
    torch.testing.assert_close(images(again, 1), images(pipeline, 1), rtol=0, atol=1e-4)
