"""Whole tiny random pipelines of diffusers, with text encoders and tokenizers of their own, saved."""

import json
from functools import cache

import pytest

from tests.support.tiny_pipelines import BETAS, WIDTH, dit, sd3_transformer, seeded, text_unet, vae

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROMPTS = ("a red cat", "two dogs on a hill", "the sea")


@cache
def vqvae():
    import diffusers

    return seeded(
        diffusers.VQModel,
        block_out_channels=[4, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        num_vq_embeddings=16,
        norm_num_groups=2,
    )


def clip_tokenizer(folder):
    from transformers import CLIPTokenizer

    known = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *[letter + "</w>" for letter in LETTERS]]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({token: number for number, token in enumerate(known)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=9)


def clip(kind="CLIPTextModel"):
    import transformers

    heads = {"hidden_size": WIDTH, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "vocab_size": 60}
    config = transformers.CLIPTextConfig(**heads, **tokens, max_position_embeddings=9, projection_dim=WIDTH)
    return seeded(lambda: getattr(transformers, kind)(config))


def t5_tokenizer():
    from transformers import T5TokenizerFast

    known = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *[(one, -3.0) for one in LETTERS]]
    try:
        return T5TokenizerFast(vocab=known, extra_ids=0)
    except TypeError:
        pytest.skip("this transformers makes T5 tokenizers of sentencepiece's files alone")


def t5():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=40, d_model=WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return seeded(lambda: T5EncoderModel(config))


def ldm(folder):
    import diffusers

    unet = seeded(
        diffusers.UNet2DModel,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False)
    return diffusers.LDMPipeline(vqvae=vqvae(), unet=unet, scheduler=scheduler)


def stable_diffusion(folder, **options):
    import diffusers

    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(folder),
        unet=text_unet(),
        scheduler=diffusers.PNDMScheduler(**BETAS, steps_offset=1, skip_prk_steps=True, **options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_2(folder):
    return stable_diffusion(folder, prediction_type="v_prediction")


def stable_diffusion_xl(folder):
    import diffusers

    unet = text_unet(
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + WIDTH,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        text_encoder_2=clip("CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(folder),
        tokenizer_2=clip_tokenizer(folder),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def stable_diffusion_3(folder):
    import diffusers

    return diffusers.StableDiffusion3Pipeline(
        transformer=sd3_transformer(2 * WIDTH),
        vae=vae(shift_factor=0.06),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clip("CLIPTextModelWithProjection"),
        text_encoder_2=clip("CLIPTextModelWithProjection"),
        text_encoder_3=None,
        tokenizer=clip_tokenizer(folder),
        tokenizer_2=clip_tokenizer(folder),
        tokenizer_3=None,
    )


def flux(folder, guidance_embeds=True):
    import diffusers

    network = seeded(
        diffusers.FluxTransformer2DModel,
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=guidance_embeds,
    )
    return diffusers.FluxPipeline(
        transformer=network,
        vae=vae(shift_factor=0.06),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clip(),
        text_encoder_2=t5(),
        tokenizer=clip_tokenizer(folder),
        tokenizer_2=t5_tokenizer(),
    )


def pixart(name, sample_size=8):
    def make(folder):
        import diffusers

        network = seeded(
            diffusers.PixArtTransformer2DModel,
            sample_size=sample_size,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=24,
            caption_channels=WIDTH,
        )
        return getattr(diffusers, name)(
            transformer=network,
            vae=vae(),
            scheduler=diffusers.DPMSolverMultistepScheduler(),
            text_encoder=t5(),
            tokenizer=t5_tokenizer(),
        )

    return make


def ldm_text(folder):
    import diffusers
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
    from transformers import BertTokenizer

    vocabulary = folder / "words.txt"
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary.write_text("\n".join([*marks, *LETTERS, *[f"##{one}" for one in LETTERS]]) + "\n")
    config = LDMBertConfig(
        vocab_size=60,
        max_position_embeddings=77,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        head_dim=8,
        d_model=WIDTH,
    )
    return diffusers.LDMTextToImagePipeline(
        vqvae=vae(levels=4),  # its call takes a latent for 8 pixels
        bert=seeded(lambda: LDMBertModel(config)),
        tokenizer=BertTokenizer(str(vocabulary), model_max_length=77),
        unet=text_unet(sample_size=4),
        scheduler=diffusers.DDIMScheduler(**BETAS, clip_sample=False),
    )


MAKERS = {
    "LDMPipeline": ldm,
    "DiTPipeline": lambda folder: dit(),
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionPipeline, v": stable_diffusion_2,
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "LDMTextToImagePipeline": ldm_text,
    "PixArtAlphaPipeline": pixart("PixArtAlphaPipeline"),
    "PixArtSigmaPipeline": pixart("PixArtSigmaPipeline"),
    "FluxPipeline": flux,
    "FluxPipeline, not distilled": lambda folder: flux(folder, guidance_embeds=False),
}


def made(name, folder):
    """A pipeline, saved as folder/pipeline; skips the test where the libraries have no such class."""
    diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
    if name not in ("LDMPipeline", "DiTPipeline"):
        pytest.importorskip("transformers", reason="the pipeline needs transformers")
    if not hasattr(diffusers, name.partition(",")[0]):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    folder.mkdir(exist_ok=True)
    pipeline = MAKERS[name](folder)
    pipeline.save_pretrained(folder / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
