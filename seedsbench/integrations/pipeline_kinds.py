"""The kinds of diffusers pipelines that are models here: their parts, how their network is called.

A network is wrapped so that all take the same three arguments: x (B, C, h, w), timesteps (B,), and the
conditions of each image, class numbers (B,) or one row (B, N) of everything its text became.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Encoder = Callable[[Any, str | None, Any], tuple[Tensor, ...]]
"""(pipeline, prompt, device) -> what the pipeline makes of one prompt; None is its empty negative one."""
Shapes = Sequence[Sequence[int]]


def packed_row(parts: Sequence[Tensor]) -> Tensor:
    """The numbers of all parts, each (1, ...), as one float32 row (N,)."""
    return torch.cat([part.detach().float().flatten() for part in parts])


class _Network(nn.Module):
    """shapes: of the parts that a row of conditions is made of, for one image."""

    def __init__(self, network: Any, shapes: Shapes, facts: "Facts") -> None:
        super().__init__()
        self.network, self.facts = network, facts
        self.shapes = [tuple(shape) for shape in shapes]

    def unpacked(self, rows: Tensor) -> list[Tensor]:
        """The parts (B, ...) of rows (B, N)."""
        parts = rows.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]


@dataclass(frozen=True)
class Facts:
    """pixels: side of the decoded images. guidance: of a network that has it for an input, else None."""

    pixels: int
    guidance: float | None = None


class Unconditional(_Network):
    """UNet2DModel."""

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor | None = None) -> Tensor:
        return self.network(x, t, return_dict=False)[0]


class ByClass(_Network):
    """DiTTransformer2DModel."""

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        return self.network(x, timestep=t, class_labels=conditions, return_dict=False)[0]


class ByWords(_Network):
    """UNet2DConditionModel of Stable Diffusion 1 and 2 and of latent diffusion."""

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        (words,) = self.unpacked(conditions)
        return self.network(x, t, encoder_hidden_states=words, return_dict=False)[0]


class ByWordsAndSize(_Network):
    """UNet2DConditionModel of SDXL: it is told the size, uncropped, that the pipeline tells it."""

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        words, pooled = self.unpacked(conditions)
        size = torch.full((len(x), 2), float(self.facts.pixels), device=x.device)
        added = {"text_embeds": pooled, "time_ids": torch.cat([size, torch.zeros_like(size), size], dim=1)}
        found = self.network(x, t, encoder_hidden_states=words, added_cond_kwargs=added, return_dict=False)
        return found[0]


class ByMaskedWords(_Network):
    """PixArtTransformer2DModel; that of 1024 pixels is told the size too."""

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        words, mask = self.unpacked(conditions)
        added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        if (
            self.network.config.sample_size == 128
            and self.network.config.use_additional_conditions is not False
        ):
            size = float(self.facts.pixels)
            added["resolution"] = torch.full((len(x), 2), size, device=x.device)
            added["aspect_ratio"] = torch.ones(len(x), 1, device=x.device)
        found = self.network(
            x,
            timestep=t,
            encoder_hidden_states=words,
            encoder_attention_mask=mask,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return found[0]


class ByWordsAndSummary(_Network):
    """SD3Transformer2DModel."""

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        words, pooled = self.unpacked(conditions)
        found = self.network(
            hidden_states=x,
            timestep=t,
            encoder_hidden_states=words,
            pooled_projections=pooled,
            return_dict=False,
        )
        return found[0]


class ByWordsInPatches(_Network):
    """FluxTransformer2DModel: latents go in as patches of 2 x 2, time runs to 1, guidance is an input."""

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        words, pooled = self.unpacked(conditions)
        batch, channels, height, width = x.shape
        rows, columns = height // 2, width // 2
        patches = x.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
        places = torch.zeros(rows, columns, 3, device=x.device)
        places[..., 1] += torch.arange(rows, device=x.device)[:, None]
        places[..., 2] += torch.arange(columns, device=x.device)[None, :]
        given = self.facts.guidance
        found = self.network(
            hidden_states=patches.reshape(batch, rows * columns, channels * 4),
            timestep=t / 1000,
            guidance=None if given is None else torch.full_like(t, given),
            pooled_projections=pooled,
            encoder_hidden_states=words,
            txt_ids=torch.zeros(words.shape[1], 3, device=x.device),
            img_ids=places.reshape(rows * columns, 3),
            return_dict=False,
        )[0]
        image = found.reshape(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return image.reshape(batch, channels, height, width)


def _words(pipeline: Any, prompt: str | None, device: Any) -> tuple[Tensor, ...]:
    empty = prompt is None
    found = pipeline.encode_prompt(
        prompt=prompt or "", device=device, num_images_per_prompt=1, do_classifier_free_guidance=empty
    )
    return (found[1 if empty else 0],)


def _words_and_summary(*other_prompts: str) -> Encoder:
    """Of a pipeline with several text encoders, which all read the one prompt where others are None."""

    def encode(pipeline: Any, prompt: str | None, device: Any) -> tuple[Tensor, ...]:
        empty, others = prompt is None, dict.fromkeys(other_prompts)
        words, no_words, pooled, no_pooled = pipeline.encode_prompt(
            prompt=prompt or "", device=device, do_classifier_free_guidance=empty, **others
        )
        return (no_words, no_pooled) if empty else (words, pooled)

    return encode


def _masked_words(pipeline: Any, prompt: str | None, device: Any) -> tuple[Tensor, ...]:
    empty = prompt is None
    found = pipeline.encode_prompt(prompt or "", do_classifier_free_guidance=empty, device=device)
    return tuple(found[2:] if empty else found[:2])


def _flux_words(pipeline: Any, prompt: str | None, device: Any) -> tuple[Tensor, ...]:
    words, pooled, _ = pipeline.encode_prompt(prompt=prompt or "", prompt_2=None, device=device)
    return words, pooled


def _bert_words(pipeline: Any, prompt: str | None, device: Any) -> tuple[Tensor, ...]:
    """The pipeline has no function of its own for this step."""
    tokens = pipeline.tokenizer(
        [prompt or ""], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    return (pipeline.bert(tokens.input_ids.to(device))[0],)


@dataclass(frozen=True)
class PipelineKind:
    """A class of pipelines.

    parts: those that are loaded, by name, each with its library and the classes it may have; the first is the
    network, and the second, if there is one, the decoder. optional: parts that may be missing. wrap: the
    network's wrapper. encode: None where there is no text. wanted: entries of the network's configuration
    that it must have. shifted: whether the latents have a mean that the decoder's configuration says;
    normalised: whether it may say mean and standard deviation of each channel. side: of the latents by
    default, None for what the network's configuration says. sized: whether other sizes can be made. patch:
    side of the squares of latents that go into the network as one. classes: the entry of the network's
    configuration that says how many there are, None where images have no class.
    """

    parts: Mapping[str, tuple[str, tuple[str, ...]]]
    wrap: type[_Network]
    encode: Encoder | None = None
    optional: tuple[str, ...] = ()
    wanted: Mapping[str, Any] = field(default_factory=dict)
    shifted: bool = False
    normalised: bool = False
    side: int | None = None
    sized: bool = True
    patch: int = 1
    classes: str | None = None

    @property
    def network(self) -> str:
        return next(iter(self.parts))

    @property
    def decoder(self) -> str | None:
        return list(self.parts)[1] if len(self.parts) > 1 else None


def _one(library: str, *classes: str) -> tuple[str, tuple[str, ...]]:
    return library, classes


_VAE = _one("diffusers", "AutoencoderKL")
_ANY_VAE = _one("diffusers", "AutoencoderKL", "VQModel")
_CLIP = _one("transformers", "CLIPTextModel", "CLIPTextModelWithProjection")
_CLIP_TOKENS = _one("transformers", "CLIPTokenizer", "CLIPTokenizerFast")
_T5 = _one("transformers", "T5EncoderModel")
_T5_TOKENS = _one("transformers", "T5Tokenizer", "T5TokenizerFast")
_NO_EXTRAS = {"class_embed_type": None, "time_cond_proj_dim": None, "encoder_hid_dim_type": None}
_PIXART = PipelineKind(
    {
        "transformer": _one("diffusers", "PixArtTransformer2DModel", "Transformer2DModel"),
        "vae": _VAE,
        "text_encoder": _T5,
        "tokenizer": _T5_TOKENS,
    },
    ByMaskedWords,
    _masked_words,
)

UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that a folder may have and that are never loaded."""

PIPELINES = {
    "ScoreSdeVePipeline": PipelineKind(
        {"unet": _one("diffusers", "UNet2DModel")},
        Unconditional,
        wanted={"time_embedding_type": "fourier", "class_embed_type": None},
        sized=False,
    ),
    "LDMPipeline": PipelineKind(
        {"unet": _one("diffusers", "UNet2DModel"), "vqvae": _ANY_VAE},
        Unconditional,
        wanted={"time_embedding_type": "positional", "class_embed_type": None},
    ),
    "DiTPipeline": PipelineKind(
        {"transformer": _one("diffusers", "DiTTransformer2DModel", "Transformer2DModel"), "vae": _VAE},
        ByClass,
        sized=False,
        classes="num_embeds_ada_norm",
    ),
    "StableDiffusionPipeline": PipelineKind(
        {
            "unet": _one("diffusers", "UNet2DConditionModel"),
            "vae": _VAE,
            "text_encoder": _CLIP,
            "tokenizer": _CLIP_TOKENS,
        },
        ByWords,
        _words,
        wanted={**_NO_EXTRAS, "addition_embed_type": None},
    ),
    "StableDiffusionXLPipeline": PipelineKind(
        {
            "unet": _one("diffusers", "UNet2DConditionModel"),
            "vae": _VAE,
            "text_encoder": _CLIP,
            "tokenizer": _CLIP_TOKENS,
            "text_encoder_2": _CLIP,
            "tokenizer_2": _CLIP_TOKENS,
        },
        ByWordsAndSize,
        _words_and_summary("prompt_2"),
        normalised=True,
        wanted={**_NO_EXTRAS, "addition_embed_type": "text_time"},
    ),
    "StableDiffusion3Pipeline": PipelineKind(
        {
            "transformer": _one("diffusers", "SD3Transformer2DModel"),
            "vae": _VAE,
            "text_encoder": _CLIP,
            "tokenizer": _CLIP_TOKENS,
            "text_encoder_2": _CLIP,
            "tokenizer_2": _CLIP_TOKENS,
            "text_encoder_3": _T5,
            "tokenizer_3": _T5_TOKENS,
        },
        ByWordsAndSummary,
        _words_and_summary("prompt_2", "prompt_3"),
        optional=("text_encoder_3", "tokenizer_3"),
        shifted=True,
    ),
    "FluxPipeline": PipelineKind(
        {
            "transformer": _one("diffusers", "FluxTransformer2DModel"),
            "vae": _VAE,
            "text_encoder": _CLIP,
            "tokenizer": _CLIP_TOKENS,
            "text_encoder_2": _T5,
            "tokenizer_2": _T5_TOKENS,
        },
        ByWordsInPatches,
        _flux_words,
        shifted=True,
        side=128,
        patch=2,
    ),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "LDMTextToImagePipeline": PipelineKind(
        {
            "unet": _one("diffusers", "UNet2DConditionModel"),
            "vqvae": _ANY_VAE,
            "bert": _one("latent_diffusion", "LDMBertModel"),
            "tokenizer": _one("transformers", "BertTokenizer", "BertTokenizerFast"),
        },
        ByWords,
        _bert_words,
        wanted={**_NO_EXTRAS, "addition_embed_type": None},
    ),
}
