"""The first samples of a cell as files for other people's programs: `<study>/images/`.

One rule: what is scored as pictures (uint8, of 1 or 3 channels) is `<run_key>/<index>.png`, an image each;
anything else is `<run_key>.npz`, whose `arr_0` is (n, height, width, channels), numbers as they were scored.

A sample is written as soon as it is drawn, whole or not at all, by whichever rank drew it, and stays for the
run that goes on. What no run has left, since it was asked for fewer or they were deleted, is drawn again.
"""

import io
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedsbench.files.archives import npz_header, open_zip, reading
from seedsbench.files.atomic import own_folder, replacing, write_atomic
from seedsbench.files.regular import read_ordinary

_PICTURE, _NUMBERS = ".png", ".npy"
_MOST_BYTES = 2**30  # of one sample


@dataclass(frozen=True)
class KeptImages:
    """The first n samples of a cell. folder: `<study>/images/<run_key>`."""

    folder: Path
    n: int

    def add(self, indices: Tensor, images: Tensor) -> None:
        """Write those that are wanted. indices (B,); images (B, C, H, W) as they are scored, on the CPU."""
        wanted = (indices < self.n).nonzero().flatten().tolist()
        if wanted:
            own_folder(own_folder(self.folder.parent) / self.folder.name)
        for i in wanted:
            suffix, data = _encoded(images[i])
            write_atomic(self._path(int(indices[i]), suffix), data, sync=False)

    def missing(self) -> Tensor:
        """Indices of those that are not there."""
        there = {path.name for path in self.folder.glob("*") if path.stat().st_size}
        names = [{self._path(i, suffix).name for suffix in (_PICTURE, _NUMBERS)} for i in range(self.n)]
        return torch.tensor([i for i, either in enumerate(names) if not either & there], dtype=torch.int64)

    @property
    def finished(self) -> bool:
        """Whether all are there as a finished row leaves them."""
        path = self.folder.with_suffix(".npz")
        with suppress(ValueError), reading(str(path)), open_zip(path) as archive:
            return npz_header(archive, "arr_0").shape[0] >= self.n
        return not len(self.missing())

    def finish(self) -> None:
        """Put what is no picture into one file; ValueError where a sample cannot be read any more."""
        paths = [self._path(i, _NUMBERS) for i in range(self.n)]
        if not paths or not paths[0].is_file():
            return
        rows = [_read(path) for path in paths]
        with reading(f"{self.folder}: its samples fit not together"):
            whole = np.stack(rows)
        with replacing(self.folder.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, whole)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, index: int, suffix: str) -> Path:
        return self.folder / f"{index:06d}{suffix}"


def _encoded(image: Tensor) -> tuple[str, bytes]:
    """What a sample's file is called and holds: losslessly, and the same bytes whenever it is written."""
    pixels, buffer = image.permute(1, 2, 0).contiguous().numpy(), io.BytesIO()
    if image.dtype == torch.uint8 and len(image) in (1, 3):
        Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels).save(buffer, format="PNG")
        return _PICTURE, buffer.getvalue()
    np.save(buffer, pixels)
    return _NUMBERS, buffer.getvalue()


def _read(path: Path) -> np.ndarray:
    with reading(f"{path} is no sample: delete it"):
        return np.load(io.BytesIO(read_ordinary(path, max_bytes=_MOST_BYTES)), allow_pickle=False)
