"""Pipelines of diffusers as models: a denoiser, mostly of latents, and what makes images of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench.denoisers.base import check_labels
from seedsbench.denoisers.checkpoints.diffusers_folder import LIMITS, read_object, scheduler_table
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.own import OfNetwork
from seedsbench.diffusion.grid import DiscreteGrid
from seedsbench.diffusion.process import expand
from seedsbench.diffusion.schedule import Discrete
from seedsbench.files.archives import one_line
from seedsbench.integrations.decoder import Decoder, pixels_a_latent
from seedsbench.integrations.pipeline_folder import (
    Folder,
    checked_folder,
    diffusers_class,
    load_parts,
    network_config,
)
from seedsbench.integrations.pipeline_kinds import Facts, packed_row
from seedsbench.integrations.prompts import Classes, NoConditions, Prompts
from seedsbench.integrations.schedulers import KNOWN, REFUSED
from seedsbench.integrations.trained import FLOW, Trained, TrainedOnFlow, TrainedOnTable


class PipelineDenoiser(OfNetwork):
    """The network of a pipeline as a denoiser of its latents.

    network: (x_t, timesteps (B,), conditions) -> output, whose first channels count (what follows is a learnt
    variance). conditions: labels and x to what the network is told of each image.
    """

    def __init__(
        self,
        network: nn.Module,
        trained: Trained,
        conditions: NoConditions | Classes | Prompts,
        shape: tuple[int, int, int],
        spacing: DiscreteGrid | None,
        table: Discrete | None,
    ) -> None:
        self.net = self._run = network
        self.conditions, self.label_dim = conditions, conditions.label_dim
        self.prediction_type = trained.prediction
        self._trained, self._shape, self.spacing, self.table = trained, shape, spacing, table
        self.img_channels, self.img_resolution = shape[:2]
        first = 1 if isinstance(trained, TrainedOnFlow) else 0
        low, high = trained.level(torch.tensor([first, trained.steps - 1 + first])).tolist()
        self.sigma_min, self.sigma_max = low, high

    def to(self, device: torch.device | str) -> "PipelineDenoiser":
        """Move the network and the text encoders, in place. Returns self."""
        super().to(device)
        self.conditions.to(device)
        return self

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self._trained.round_sigma(sigma)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, len(x))
        dtype, given = self._dtype_for(x), self.conditions(labels, x)
        times = self._trained.timesteps(sigma.double()).to(x.device, torch.float32)
        level = sigma if sigma.ndim == 0 else expand(sigma.to(x.dtype), x)
        state = (x * self._trained.scale_at(level)).to(dtype)
        output = self._run(state, times.expand(len(x)), given)[:, : self.img_channels]
        return self._trained.denoised(output.to(x.dtype), x, level)


class ScoreDenoiser(OfNetwork):
    """A network of variance-exploding noise on images in [0, 1], whose output is the score, as a denoiser.

    network: (y (B, C, H, W), its noise levels (B,), None) -> score. lowest, highest: its levels. Noise on
    [-1, 1] has twice the level: y = (x + 1) / 2.
    """

    def __init__(
        self, network: nn.Module, shape: tuple[int, int, int], lowest: float, highest: float
    ) -> None:
        self.net = self._run = network
        self._shape = shape
        self.img_channels, self.img_resolution = shape[:2]
        self.sigma_min, self.sigma_max = 2 * lowest, 2 * highest

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, len(x))
        dtype = self._dtype_for(x)
        levels = (sigma.double() / 2).to(x.device, torch.float32).expand(len(x))
        score = self._run(((x + 1) / 2).to(dtype), levels, None).to(x.dtype)
        return x + expand(sigma.to(x.dtype), x) ** 2 / 2 * score


@dataclass(frozen=True)
class Pipeline:
    """decoder: None where samples are the images. notes: what a reader of its scores should know."""

    denoiser: PipelineDenoiser | ScoreDenoiser
    decoder: Decoder | None
    notes: tuple[str, ...]


def load_pipeline(
    path: Path,
    prompts: Sequence[str] | None = None,
    *,
    variant: str | None = None,
    allow_pickle: bool = False,
    distilled_guidance: float | None = None,
    size: int | None = None,
) -> Pipeline:
    """A pipeline from its folder, on the CPU in float32; class k of a text pipeline is prompt k.

    variant: of the weights, as fp16. allow_pickle: read .bin files, which can run code. distilled_guidance:
    of a network that takes guidance as an input; None is the pipeline's own default. size: side of the
    images in pixels, None for the pipeline's own.

    Raises CheckpointError or ValueError, in one line, for what cannot be.
    """
    folder = checked_folder(path)
    kind, name = folder.kind, folder.name
    if kind.encode is None and prompts is not None:
        what = "images of one kind" if kind.classes is None else "images of classes"
        raise ValueError(f"{path} is a {name}, which makes {what}: leave model.prompts out")
    if kind.encode is not None and prompts is None:
        raise ValueError(f"{path} is a {name}, which makes images of texts: give model.prompts=<file.txt>")
    config = network_config(folder, kind.network)
    guidance = _guidance(folder, config, distilled_guidance)
    if kind.decoder is None:
        return _of_scores(folder, config, size, variant, allow_pickle=allow_pickle)
    trained, table, spacing = _trained(folder)
    shape, factor = _shape(folder, config, network_config(folder, kind.decoder), size)
    parts = load_parts(folder, variant, allow_pickle=allow_pickle)
    network, decoder = parts[kind.network], parts[kind.decoder]
    conditions, shapes = _conditions(folder, config, parts, prompts)
    pixels = shape[1] * factor
    denoiser = PipelineDenoiser(
        kind.wrap(network, shapes, Facts(pixels, guidance)).eval(), trained, conditions, shape, spacing, table
    )
    images = (int(decoder.config.out_channels), pixels, pixels)
    scale, shift = _latents_of(decoder.config, folder)
    said = "guidance is distilled into the network: one evaluation a call, model.distilled_guidance="
    notes = () if guidance is None else (f"{said}{guidance:g}",)
    return Pipeline(denoiser, Decoder(decoder, scale, shift, images), notes)


def _of_scores(
    folder: Folder, config: Mapping[str, Any], size: int | None, variant: str | None, *, allow_pickle: bool
) -> Pipeline:
    """A ScoreSdeVePipeline."""
    found = folder.path / "scheduler" / "scheduler_config.json"
    levels = read_object(found)
    ends = levels.get("sigma_min", 0.01), levels.get("sigma_max", 1348.0)
    if not all(isinstance(end, int | float) for end in ends) or not 0 < ends[0] < ends[1]:
        said = "expected 0 < sigma_min < sigma_max"
        raise CheckpointError(f"{found} has noise levels {one_line(ends)}: {said}")
    latents = {"latent_channels": config.get("in_channels")}
    shape, _ = _shape(folder, config, latents, size)
    network = load_parts(folder, variant, allow_pickle=allow_pickle)[folder.kind.network]
    wrapped = folder.kind.wrap(network, [], Facts(shape[1])).eval()
    return Pipeline(ScoreDenoiser(wrapped, shape, *map(float, ends)), None, ())


def _trained(folder: Folder) -> tuple[Trained, Discrete | None, DiscreteGrid | None]:
    """How the network was trained, by its scheduler's configuration."""
    found = folder.path / "scheduler" / "scheduler_config.json"
    config = read_object(found)
    name = config.get("_class_name")
    if name not in KNOWN:
        why = REFUSED.get(str(name), f"a scheduler of another kind; {', '.join(KNOWN)} are known")
        raise CheckpointError(f"{found} is a {one_line(name, 60)}: {why}")
    if KNOWN[name].kind == "flow" or config.get("use_flow_sigmas") or config.get("prediction_type") == FLOW:
        steps, prediction = config.get("num_train_timesteps", 1000), config.get("prediction_type", FLOW)
        if type(steps) is not int or not 2 <= steps <= LIMITS["num_train_timesteps"]:
            raise CheckpointError(f"{found} has num_train_timesteps={one_line(steps)}: expected 2 to 100000")
        if prediction not in (FLOW, "epsilon", "sample"):
            raise CheckpointError(f"{found} has prediction_type={one_line(prediction)}: expected {FLOW}")
        flow = TrainedOnFlow(steps, prediction, shift=1.0, to_lowest=True, time_shift="none", terminal=None)
        return flow, None, None
    table, prediction, spacing = scheduler_table(config, found)
    own = spacing or DiscreteGrid(timestep_spacing="leading")
    trained = TrainedOnTable(table, prediction, own.timestep_spacing, own.steps_offset, exact_end=False)
    return trained, table, spacing


def _shape(
    folder: Folder, config: Mapping[str, Any], decoder: Mapping[str, Any], size: int | None
) -> tuple[tuple[int, int, int], int]:
    """(C, h, w) of the latents, and how many pixels one of theirs becomes."""
    channels, factor = decoder.get("latent_channels", 4), pixels_a_latent(decoder)
    given = config.get("in_channels", 4)
    if given != channels * folder.kind.patch**2:
        raise CheckpointError(
            f"{folder.path}: its network takes {given} channels, its latents have {channels}"
        )
    side = folder.kind.side or config.get("sample_size")
    if isinstance(side, list) and len(set(side)) == 1:
        side = side[0]
    if size is not None:
        step = folder.kind.patch * factor
        if not folder.kind.sized:
            raise ValueError(f"model.size={size}: the network of a {folder.name} has a size of its own")
        if size % step:
            raise ValueError(f"model.size={size}: its images have a multiple of {step} pixels each way")
        side = size // factor
    if type(side) is not int or not 1 <= side <= LIMITS["sample_size"]:
        raise CheckpointError(f"{folder.path}: sample_size={one_line(side)} of its network is no known size")
    return (channels, side, side), factor


def _guidance(folder: Folder, config: Mapping[str, Any], asked: float | None) -> float | None:
    if not config.get("guidance_embeds", False):
        if asked is not None:
            raise ValueError(
                f"model.distilled_guidance={asked}: the network of {folder.path} has no guidance for an input"
            )
        return None
    own = signature(diffusers_class(folder.name).__call__).parameters["guidance_scale"].default
    return float(own if asked is None else asked)


def _conditions(
    folder: Folder, config: Mapping[str, Any], parts: Mapping[str, Any], prompts: Sequence[str] | None
) -> tuple[NoConditions | Classes | Prompts, list[Sequence[int]]]:
    """What the network is told of labels, and the shapes of an encoded prompt's parts."""
    encode = folder.kind.encode
    if encode is None or prompts is None:
        classes = None if folder.kind.classes is None else config.get(folder.kind.classes)
        return (NoConditions() if classes is None else Classes(classes)), []
    pipeline, encoders = _of_text(folder, parts), [part for name, part in parts.items() if _reads(name)]

    def row(prompt: str | None, device: torch.device) -> Tensor:
        return packed_row(encode(pipeline, prompt, device))

    def move(device: torch.device) -> None:
        for encoder in filter(None, encoders):
            encoder.to(device)

    try:
        with torch.no_grad():
            found = encode(pipeline, None, torch.device("cpu"))
    except Exception as error:  # of the libraries, for text parts that do not go together
        raise CheckpointError(f"{folder.path} cannot encode a prompt: {one_line(error)}") from error
    return Prompts(prompts, row, move), [tuple(part.shape[1:]) for part in found]


def _reads(part: str) -> bool:
    return part.startswith("text_encoder") or part == "bert"


def _of_text(folder: Folder, parts: Mapping[str, Any]) -> Any:
    """The pipeline itself, for its way with prompts."""
    source, given = diffusers_class(folder.name), dict(parts)
    declared = signature(source.__init__).parameters
    given |= {name: None for name in ("safety_checker", "feature_extractor") if name in declared}
    if "requires_safety_checker" in declared:
        given["requires_safety_checker"] = False
    zeros = folder.config.get("force_zeros_for_empty_prompt")
    if zeros is not None and "force_zeros_for_empty_prompt" in declared:
        given["force_zeros_for_empty_prompt"] = bool(zeros)
    unused = diffusers_class("DDIMScheduler")(steps_offset=1, clip_sample=False)
    try:
        return source(scheduler=unused, **given)
    except Exception as error:
        raise CheckpointError(f"{folder.path} is no {folder.name}: {one_line(error)}") from error


def _latents_of(config: Any, folder: Folder) -> tuple[Tensor, Tensor]:
    """(scale, shift): a decoder is given latents * scale + shift."""
    factor = config.get("scaling_factor")
    if not isinstance(factor, int | float) or factor == 0:
        raise CheckpointError(
            f"{folder.path}: scaling_factor={one_line(factor)} of its decoder must be a number"
        )
    scale, shift = torch.tensor(1 / factor), torch.tensor(0.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if folder.kind.normalised and mean is not None and std is not None:
        return scale * torch.tensor(std).reshape(-1, 1, 1), torch.tensor(mean).reshape(-1, 1, 1)
    return scale, torch.tensor(float(config.get("shift_factor") or 0.0)) if folder.kind.shifted else shift
