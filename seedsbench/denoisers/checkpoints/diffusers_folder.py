"""diffusers folders: a UNet2DModel and the configuration of its scheduler, through the diffusers library.

Two layouts: a pipeline (`unet/`, `scheduler/scheduler_config.json`) or the model's own folder
(`config.json`, weights) with `scheduler/` inside or beside it. The library is an extra,
`seedsbench[diffusers]`, and only ever reads local files here. Networks with discrete timesteps whose data has
unit variance in scaled coordinates (DDPM, DDIM and their kin); epsilon, v and sample prediction. A pipeline
with any part beside these two, as a latent one, is refused: its network's samples are not its images.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedsbench.denoisers.checkpoints.reading import CheckpointError, checked_safetensors
from seedsbench.denoisers.networks.unet_blocks import check_size
from seedsbench.denoisers.own import OfNetwork
from seedsbench.denoisers.prediction import Predicted, PredictionType, check_prediction
from seedsbench.diffusion.grid import DiscreteGrid
from seedsbench.diffusion.schedule import Discrete
from seedsbench.files.archives import one_line
from seedsbench.files.json_files import read_json
from seedsbench.files.torch_files import check_torch_file

SCHEDULE_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
PARTS = ("unet", "scheduler")
READABLE = {"_class_name": "UNet2DModel", "time_embedding_type": "positional", "class_embed_type": None}
"""The networks that can be read, by their config.json."""
WEIGHTS = re.compile(r"diffusion_pytorch_model(?:\.(\w+))??(?:-\d+-of-\d+)?\.(?:safetensors|bin)")
"""File names of weights, and the variant in them."""


LIMITS = {"layers_per_block": 64, "block_out_channels": 65536, "sample_size": 4096, "in_channels": 64}
LIMITS |= {"out_channels": 128, "num_class_embeds": 10**6, "num_train_timesteps": 10**5}
"""Far above any network in use, low enough that building an absurd one ends at once."""
LEVELS = 12


class _Plain(nn.Module):
    """A UNet2DModel whose result is its output."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.unet(x_t, t, class_labels=classes).sample


class DiffusersDenoiser(OfNetwork, Predicted):
    """A UNet2DModel, float32, as a denoiser; shape and classes are those of its configuration.

    Samples are not clipped on the way: a scheduler's `clip_sample` is the sampler's affair, not the
    network's. spacing: that scheduler's timesteps.
    """

    def __init__(
        self,
        unet: Any,
        prediction_type: PredictionType,
        schedule: Discrete,
        spacing: DiscreteGrid | None = None,
    ) -> None:
        config = unet.config
        super().__init__(
            None,
            prediction_type,
            schedule,
            img_channels=config.in_channels,
            img_resolution=_resolution(config.sample_size),
            label_dim=config.num_class_embeds or 0,
        )
        self.unet, self.spacing = unet, spacing
        self.net = self._run = _Plain(unet)
        self._shape = (self.img_channels, self.img_resolution, self.img_resolution)

    def _output(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The network's output (B, C, H, W) at the scaled state x_t and time t, () or (B,)."""
        classes = self._classes(labels)
        output = self._run(x_t.to(self.unet.dtype), t.to(x_t.device, torch.float32), classes)
        return output[:, : self.img_channels]  # what follows is a learnt variance

    def _classes(self, labels: Tensor | None) -> Tensor | None:
        if self.label_dim == 0:
            return None
        if labels is None or not bool(labels.any(dim=1).all()):
            raise ValueError(
                f"the network has {self.label_dim} classes and no unconditional mode: use labels=balanced"
            )
        return labels.argmax(dim=1)


def load_diffusers(path: str | Path) -> DiffusersDenoiser:
    """The denoiser in a diffusers folder, on the CPU in float32.

    Raises CheckpointError for what is missing, for another kind of model or scheduler, for a pipeline with
    other parts, for weights that do not fit the configuration, and where diffusers is not installed.
    """
    path = Path(path).expanduser()
    folder = path / "unet" if (path / "unet").is_dir() else path
    _check_parts(path)
    if folder.name == "unet" and path == folder:
        _check_parts(path.parent)
    config = _model_config(folder)
    schedule, prediction, spacing = _scheduler(path, folder)
    try:
        check_size(_resolution(config.get("sample_size")), len(config.get("block_out_channels", range(4))))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return DiffusersDenoiser(_unet(folder), prediction, schedule, spacing)


def _check_parts(pipeline: Path) -> None:
    """Refuse a pipeline by the parts that its model_index.json names and nothing here would use."""
    if not (pipeline / "model_index.json").is_file():
        return
    index = read_object(pipeline / "model_index.json")
    parts = {
        name: value[1]
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) and name not in PARTS
    }
    if parts:
        named = ", ".join(f"{name} ({kind})" for name, kind in parts.items())
        latent = any(name.startswith(("vae", "vq")) for name in parts)
        why = "its network makes latents that those would decode" if latent else "its network needs those"
        raise CheckpointError(
            f"{pipeline} is a {index.get('_class_name', 'pipeline')} with {named}: {why}, "
            "and only pipelines of a unet and a scheduler can be read"
        )


def _model_config(folder: Path) -> dict[str, Any]:
    config = read_object(folder / "config.json")
    for key, most in LIMITS.items():
        value = config.get(key)
        numbers = value if isinstance(value, list) else [value or 0]
        if len(numbers) > LEVELS or not all(isinstance(n, int) and 0 <= n <= most for n in numbers):
            raise CheckpointError(f"{folder} has {key}={one_line(value)}: at most {most} can be read")
    for key, wanted in READABLE.items():
        if (value := config.get(key, wanted)) != wanted:
            raise CheckpointError(f"{folder} has {key}={value!r}: only {json.dumps(wanted)} can be read")
    out, channels = config.get("out_channels", 3), config.get("in_channels", 3)
    if out not in (channels, 2 * channels):
        raise CheckpointError(
            f"{folder} maps {channels} channels to {out}: expected as many, or twice as many"
        )
    return config


def _scheduler(path: Path, folder: Path) -> tuple[Discrete, PredictionType, DiscreteGrid | None]:
    name = "scheduler/scheduler_config.json"
    places = [path / name, folder.parent / name, path / "scheduler_config.json"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise CheckpointError(f"{path} has no {name}: the network's noise levels are written there")
    return scheduler_table(read_object(found), found)


def scheduler_table(
    config: dict[str, Any], found: Path
) -> tuple[Discrete, PredictionType, DiscreteGrid | None]:
    """The noise levels, prediction and timesteps that a scheduler's configuration says.

    found: its file, for errors. Raises CheckpointError for one without a table, and for one that cannot be.
    """
    if "beta_schedule" not in config:
        kind = config.get("_class_name", "a scheduler")
        raise CheckpointError(
            f"{found}: {kind} has no beta_schedule; a DDPM, DDIM or like scheduler would work"
        )
    steps, most = config.get("num_train_timesteps", 0), LIMITS["num_train_timesteps"]
    if isinstance(steps, int | float) and steps > most:
        raise CheckpointError(f"{found} has num_train_timesteps={steps}: at most {most} can be read")
    given = {key: config[key] for key in SCHEDULE_KEYS if config.get(key) is not None}
    prediction, spacing = config.get("prediction_type", "epsilon"), config.get("timestep_spacing")
    offset = config.get("steps_offset", 0) if spacing == "leading" else 0  # the other spacings have none
    try:
        schedule = Discrete(**given, rescale_betas_zero_snr=bool(config.get("rescale_betas_zero_snr", False)))
        grid = None if spacing is None else DiscreteGrid(timestep_spacing=spacing, steps_offset=offset)
        check_prediction(prediction, schedule)
        if prediction == "flow_prediction":
            raise ValueError("prediction_type='flow_prediction' has no table of betas: use_flow_sigmas=true")
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{found}: {error}") from error
    return schedule, prediction, grid


def _variant(folder: Path) -> str | None:
    """The one variant (fp16, ...) of the weights in a folder that holds no plain ones."""
    found = {match[1] for path in folder.iterdir() if (match := WEIGHTS.fullmatch(path.name))}
    if None in found or not found:
        return None
    if len(found) > 1:
        names = ", ".join(f"diffusion_pytorch_model.{variant}.*" for variant in sorted(found))
        raise CheckpointError(f"{folder} holds {names}: copy it with one of them alone")
    return found.pop()


def _unet(folder: Path) -> Any:
    try:
        import diffusers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            f"{folder} needs the diffusers library ({error}): pip install 'seedsbench[diffusers]'"
        ) from error
    library: Any = diffusers
    try:
        _check_weights(folder, library)
        unet, info = library.UNet2DModel.from_pretrained(
            str(folder),
            local_files_only=True,
            output_loading_info=True,
            torch_dtype=torch.float32,
            variant=_variant(folder),
        )
    except CheckpointError:
        raise
    except Exception as error:  # the library's errors are of many types
        said = one_line(error)
        if "torchvision::" in str(error):
            said += "; install a torchvision made for this torch, as pip install torch torchvision does"
        raise CheckpointError(f"{folder} cannot be loaded by diffusers: {said}") from error
    check_keys(info, ("missing_keys", "unexpected_keys", "mismatched_keys"), folder)
    return unet.eval().requires_grad_(False)


def check_keys(info: Mapping[str, Any], kinds: Iterable[str], folder: Path) -> None:
    """Raise CheckpointError for weights that do not fit, by what a library says of their loading.

    The libraries themselves fill what is missing with random numbers and only warn.
    """
    for kind in kinds:
        if keys := sorted(map(str, info.get(kind, ()))):
            raise CheckpointError(
                f"{folder}: {len(keys)} {kind.replace('_', ' ')}, the first is {keys[0]!r}: "
                "weights and config.json belong to different networks"
            )


def _check_weights(folder: Path, library: Any) -> None:
    """Raise CheckpointError for a network of another size than its weights, before there is memory for it."""
    held = 0
    for path in sorted(folder.iterdir()):
        if not WEIGHTS.fullmatch(path.name):
            continue
        is_torch = path.suffix == ".bin"
        held += check_torch_file(path) if is_torch else checked_safetensors(path).stat().st_size
    if held:  # else the library says what it misses
        check_held(library.UNet2DModel, read_object(folder / "config.json"), held, folder)


def check_held(network: Any, config: Mapping[str, Any], held: int, folder: Path) -> None:
    """Raise CheckpointError for a network, a class of diffusers, that weights of `held` bytes cannot fill."""
    with torch.device("meta"):
        made = network.from_config(dict(config))
    wanted = sum(parameter.numel() for parameter in made.parameters())
    if wanted > held:  # a number takes a byte at the very least
        raise CheckpointError(
            f"{folder} cannot be loaded: config.json has {wanted} numbers, its weights {held} bytes"
        )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, which may hold -Infinity; CheckpointError where there is none."""
    try:
        config = read_json(path, infinite=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is not there: give a folder that holds config.json and the weights"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}: expected a JSON object")
    return config


def _resolution(size: Any) -> int:
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise ValueError(f"sample_size={size!r}: only square images of a known size can be sampled")
    return sides.pop()
