"""The first few samples of a cell as one strip of images, for the report's sheets."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedsbench.files.atomic import write_atomic
from seedsbench.metrics.base import State

N_SHOWN = 10


class Strip:
    """Collects samples 0 .. N_SHOWN - 1 and writes them side by side as a PNG, losslessly.

    Samples that are no pictures (not uint8, not 1 or 3 channels, smaller than 4 pixels) leave no file.
    """

    def __init__(self) -> None:
        self._images: dict[int, Tensor] = {}

    def add(self, indices: Tensor, images: Tensor) -> None:
        """indices (B,); images (B, C, H, W)."""
        for i in (indices < N_SHOWN).nonzero().flatten().tolist():
            self._images[int(indices[i])] = images[i]

    def state(self) -> State:
        """The images kept, and their sample indices; nothing where there is none."""
        if not self._images:
            return {}
        images = torch.stack(list(self._images.values()))
        return {"indices": np.array(list(self._images), dtype=np.int64), "images": images.numpy()}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Keep the images of another strip's state() too; ValueError, with nothing kept, for no state."""
        if not state:
            return
        indices, images = torch.from_numpy(state["indices"]), torch.from_numpy(state["images"])
        if indices.ndim != 1 or images.ndim != 4 or len(indices) != len(images):
            raise ValueError(f"its preview is {tuple(images.shape)} of {tuple(indices.shape)}")
        self.add(indices, images)

    def write(self, path: Path) -> None:
        """Write the strip; nothing if there is no picture."""
        images = [self._images[i] for i in sorted(self._images)]
        if not images or images[0].dtype != torch.uint8:
            return
        channels, *size = images[0].shape
        if channels not in (1, 3) or min(size) < 4:
            return
        strip = torch.cat(images, dim=2).expand(3, -1, -1).permute(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(strip.contiguous().numpy()).save(buffer, format="PNG", optimize=True)
        write_atomic(path, buffer.getvalue())
