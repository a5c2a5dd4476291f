"""Pipelines of diffusers with tiny random networks, and their calls with a generator for each image."""

from functools import cache

import pytest
import torch

from tests.support.pipelines import TINY

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS = 3  # noise levels of a run
WIDTH = 16  # of encoded words


def seeded(model, **options):
    """A random model, the same each time, in evaluation mode."""
    torch.manual_seed(0)
    return model(**options).eval()


def numbers(*shape):
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).sin()


def unconditional(name):
    import diffusers

    scheduler = {"DDPMPipeline": diffusers.DDPMScheduler, "DDIMPipeline": diffusers.DDIMScheduler}[name]
    unet = seeded(diffusers.UNet2DModel, **TINY)
    return getattr(diffusers, name)(unet, scheduler(beta_end=0.015, clip_sample=False))


@cache
def vae(levels=2, **options):
    import diffusers

    return seeded(
        diffusers.AutoencoderKL,
        block_out_channels=[4] * (levels - 1) + [8],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=4,
        norm_num_groups=2,
        **options,
    )


def text_unet(**options):
    import diffusers

    return seeded(
        diffusers.UNet2DConditionModel,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        attention_head_dim=4,
        **{"sample_size": 8, "cross_attention_dim": WIDTH, **options},
    )


def sd3_transformer(width):
    """width: of the words, and of their summary."""
    import diffusers

    return seeded(
        diffusers.SD3Transformer2DModel,
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=width,
        caption_projection_dim=8,
        pooled_projection_dim=width,
        out_channels=4,
    )


def stable_diffusion(name):
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    heads = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "vocab_size": 100}
    return getattr(diffusers, name)(
        vae=vae(shift_factor=0.0),
        text_encoder=seeded(lambda: CLIPTextModel(CLIPTextConfig(**heads, **tokens))),
        tokenizer=None,
        unet=text_unet(),
        scheduler=diffusers.PNDMScheduler(**BETAS, steps_offset=1, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def dit():
    import diffusers

    network = seeded(
        diffusers.DiTTransformer2DModel,
        sample_size=8,
        num_layers=1,
        patch_size=4,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
    )
    return diffusers.DiTPipeline(
        transformer=network, vae=vae(shift_factor=0.0), scheduler=diffusers.DDIMScheduler()
    )


def stable_diffusion_3():
    import diffusers

    nothing = dict.fromkeys(
        [f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")]
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    network = sd3_transformer(WIDTH)
    return diffusers.StableDiffusion3Pipeline(
        transformer=network, vae=vae(shift_factor=0.0), scheduler=scheduler, **nothing
    )


MAKERS = {
    "DDPMPipeline": lambda: unconditional("DDPMPipeline"),
    "DDIMPipeline": lambda: unconditional("DDIMPipeline"),
    "StableDiffusionPipeline": lambda: stable_diffusion("StableDiffusionPipeline"),
    "StableDiffusionImg2ImgPipeline": lambda: stable_diffusion("StableDiffusionImg2ImgPipeline"),
    "DiTPipeline": dit,
    "StableDiffusion3Pipeline": stable_diffusion_3,
}
NEED_TRANSFORMERS = {name for name in MAKERS if name.startswith("StableDiffusion")}


def made(name):
    """A pipeline by its class's name; skips the test where the installed libraries have no such class."""
    diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
    if name in NEED_TRANSFORMERS:
        pytest.importorskip("transformers", reason="the pipeline needs transformers")
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    pipeline = MAKERS[name]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline, batch, steps=STEPS):
    """(B, H, W, 3) images of a pipeline's own call: image i has latents of its own seed i."""
    name = type(pipeline).__name__
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    call = {"num_inference_steps": steps, "output_type": "np"}
    if name in ("DDPMPipeline", "DDIMPipeline"):
        call |= {"batch_size": batch, "generator": generators}
    elif name == "DiTPipeline":
        call |= {"class_labels": [1, 2, 3, 4, 5][:batch], "generator": generators}
    else:
        words = {"prompt_embeds": numbers(1, 7, 16), "negative_prompt_embeds": numbers(1, 7, 16) ** 2}
        if name == "StableDiffusion3Pipeline":
            words |= {f"{kind}pooled_prompt_embeds": numbers(1, 16) for kind in ("", "negative_")}
        call |= {key: value.repeat(batch, *[1] * (value.ndim - 1)) for key, value in words.items()}
        call |= {"generator": generators}
        if name == "StableDiffusionImg2ImgPipeline":
            call |= {"image": numbers(1, 3, 16, 16).abs().repeat(batch, 1, 1, 1), "strength": 0.7}
        else:
            call |= {"height": 16, "width": 16}
    return torch.from_numpy(pipeline(**call).images)
