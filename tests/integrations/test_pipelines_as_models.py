"""Pipelines of diffusers as models: the images of their own calls, rows, prompts, and folders to refuse."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench.bench.labels import one_hot
from seedsbench.bench.precision import variant
from seedsbench.bench.problems.build import model_of
from seedsbench.bench.problems.pipeline import pipeline_problem
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.prediction import Guided
from seedsbench.integrations.pipelines import load_pipeline
from seedsbench.integrations.prompts import read_prompts
from tests.support.cells import compose, key_of, run, same, write_choices
from tests.support.model_pipelines import MAKERS, PROMPTS, made
from tests.support.pipelines import write_pipeline

bridge = pytest.importorskip("seedsbench.integrations.diffusers", reason="needs seedsbench[diffusers]")

WITHOUT_TEXT = ("LDMPipeline", "DiTPipeline")
FLOWS = [name for name in MAKERS if name.startswith(("StableDiffusion3", "Flux"))]
UNSCALED = {*FLOWS, "LDMTextToImagePipeline"}
"""Their calls take latents as they are."""
CLASSES = torch.tensor([2, 0])
SIZE = 16
STEPS = 5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> the pipeline and its folder, each made once."""
    kept = {}

    def get(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp("pipelines")
            kept[name] = made(name, folder), folder / "pipeline"
        return kept[name]

    return get


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n")
    return path


def loaded(name, folder, **options):
    texts = None if name in WITHOUT_TEXT else PROMPTS
    if name.startswith("Flux"):
        options = {"size": SIZE, **options}
    return load_pipeline(folder, texts, **options)


def own_images(name, pipeline, z, guidance):
    """(B, 3, H, W) in [0, 1] of the pipeline's own call from latents that start as ours do."""
    call = {"num_inference_steps": STEPS, "output_type": "pt"}
    first = float(pipeline.scheduler.init_noise_sigma)
    if name in WITHOUT_TEXT:
        # Its call takes no latents: what it draws is ours.
        call |= {"generator": torch.Generator().manual_seed(0), "output_type": "np"}
        call |= {"batch_size": len(z)} if name == "LDMPipeline" else {"class_labels": CLASSES.tolist()}
        if name == "DiTPipeline":
            call["guidance_scale"] = guidance
        return torch.from_numpy(pipeline(**call).images).permute(0, 3, 1, 2)
    call["prompt"] = [PROMPTS[k] for k in CLASSES.tolist()]
    if name in UNSCALED:
        z = z * first
    if name.startswith("Flux"):
        batch, channels, height, width = z.shape
        z = z.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        z = z.reshape(batch, height * width // 4, channels * 4)
        call |= {"height": SIZE, "width": SIZE, "negative_prompt": ["", ""], "true_cfg_scale": guidance}
    else:
        call["guidance_scale"] = guidance
    if name.startswith("PixArt"):
        call |= {"use_resolution_binning": False, "clean_caption": False}
    return pipeline(latents=z.clone(), **call).images


def start_of(name, shape, first):
    """Standard normal latents, or those that become what the pipeline draws for itself."""
    drawn = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return drawn / first if name == "DiTPipeline" else drawn


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("name", MAKERS)
def test_images_are_those_of_the_pipelines_own_call(name, guidance, saved):
    pipeline, folder = saved(name)
    model, before = loaded(name, folder), pipeline.scheduler
    solver, schedule = ("euler", "linear") if name in FLOWS else ("ddim", "discrete")
    pipeline.scheduler = bridge.SolverScheduler.from_config(before.config, solver=solver)
    try:
        pipeline.scheduler.set_timesteps(STEPS)
        z = start_of(name, model.denoiser.image_shape, float(pipeline.scheduler.init_noise_sigma))
        theirs = own_images(name, pipeline, z, guidance)
        levels = pipeline.scheduler.sigmas[:-1].double()
    finally:
        pipeline.scheduler = before
    if name in FLOWS:
        levels = levels / (1 - levels)
    labels = one_hot(CLASSES, model.denoiser.label_dim) if model.denoiser.label_dim else None
    ours = seedsbench.sample(
        Guided(model.denoiser, guidance), z.double(), solver=solver, schedule=schedule, sigmas=levels, labels=labels
    )
    doubled = 2 if guidance != 1 and labels is not None else 1
    assert ours.nfe.tolist() == [STEPS * doubled] * 2
    images = model.decoder(ours.x)
    assert images.shape == (2, *model.decoder.image_shape) == theirs.shape
    error = float(((images / 2 + 0.5).clamp(0, 1) - theirs).abs().max())
    print(f"ERR {name} {guidance} {error:.2e} std {float(theirs.std()):.3f}")
    assert error < 1e-5
