"""Tiny random pipelines of diffusers."""

import pytest
import torch

TINY = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


def write_pipeline(folder, layout="pipeline", network=(), **options):
    """A tiny DDIM pipeline in `folder`; returns it. network: changes to it. options: of its scheduler."""
    diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**TINY | dict(network)).eval()
    scheduler = diffusers.DDIMScheduler(**options)
    pipeline = diffusers.DDIMPipeline(unet, scheduler)
    if layout == "pipeline":
        pipeline.save_pretrained(folder)
    else:
        unet.save_pretrained(folder, safe_serialization=layout == "flat")
        scheduler.save_pretrained(folder / "scheduler")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
