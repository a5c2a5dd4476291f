"""What makes images of latents: an autoencoder of diffusers, in a folder of its own or in a pipeline's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedsbench.checks import Pixels
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.exact.blocks import map_blocks
from seedsbench.files.archives import one_line
from seedsbench.files.model_files import Latents
from seedsbench.integrations.pipeline_folder import checked_config, load_module

KIND = "AutoencoderKL"


class Decoder:
    """Latents (B, C, h, w) to images (B, 3, H, W), float32, about [-1, 1] (not clipped), one by one.

    image_shape: (3, H, W). scale, shift: () or (C, 1, 1), so that latents * scale + shift is what the
    decoder was trained on. pixels: "unit" where the network makes images in [0, 1].
    """

    def __init__(
        self,
        network: Any,
        scale: Tensor,
        shift: Tensor,
        image_shape: tuple[int, int, int],
        pixels: Pixels = "signed",
    ) -> None:
        self.network, self.image_shape = network, image_shape
        self.pixels: Pixels = pixels
        self._scale, self._shift = scale, shift

    def __call__(self, latents: Tensor) -> Tensor:
        """Deterministic: an image's bits depend on its own latents alone."""

        def decoded(one: Tensor) -> Tensor:
            given = one.float() * self._scale.to(one.device) + self._shift.to(one.device)
            image = self.network.decode(given[None], return_dict=False)[0]
            return image if self.pixels == "signed" else 2 * image - 1

        with torch.inference_mode(False), torch.no_grad():
            if latents.device.type == "cpu":
                return torch.cat(map_blocks(decoded, list(latents)))
            return torch.cat([decoded(one) for one in latents])  # many side by side would fill its memory

    def to(self, device: torch.device | str) -> "Decoder":
        """Move the network, in place; returns self."""
        self.network.to(device)
        return self


def load_decoder(path: str | Path, latents: Latents, shape: tuple[int, int, int]) -> Decoder:
    """The decoder in a folder of diffusers' AutoencoderKL, on the CPU in float32.

    latents: how samples of `shape`, (C, h, w), were made of what its encoder gives. The scaling_factor in the
    folder is not asked: what counts is how the network was trained.

    Raises CheckpointError, in one line, for another kind of folder, for weights that are a pickle alone or do
    not fit, and for latents of another number of channels.
    """
    place = Path(path).expanduser()
    config = checked_config(place)
    if config.get("_class_name") != KIND:
        found = one_line(config.get("_class_name"), 60)
        raise CheckpointError(f"{place} is a {found}: give the folder of diffusers' {KIND}")
    channels = config.get("latent_channels", 4)
    if channels != shape[0]:
        raise CheckpointError(
            f"{place} decodes latents of {channels} channels, the network's have {shape[0]}"
        )
    if not any(place.glob("*.safetensors")):
        raise CheckpointError(
            f"{place} holds no .safetensors: copy the folder with them, pickles are not read"
        )
    network = load_module("diffusers", KIND, place, config, variant=None, allow_pickle=False)
    scale, bias = (_a_channel(value, channels, name, place) for name, value in latents.affine)
    factor = pixels_a_latent(config)
    image_shape = (int(network.config.out_channels), shape[1] * factor, shape[2] * factor)
    return Decoder(network, 1 / scale, -bias / scale, image_shape, latents.pixels)


def pixels_a_latent(config: Mapping[str, Any]) -> int:
    """How many pixels, each way, one of a decoder's latents becomes, by its configuration."""
    return 2 ** (len(config.get("block_out_channels") or (0,)) - 1)


def _a_channel(value: float | list[float], channels: int, name: str, place: Path) -> Tensor:
    """() or (C, 1, 1)."""
    numbers = torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1)
    if len(numbers) not in (1, channels):
        raise CheckpointError(
            f"model.latents.{name} has {len(numbers)} numbers: {place} has {channels} channels"
        )
    return numbers.float() if len(numbers) > 1 else numbers.float().reshape(())
