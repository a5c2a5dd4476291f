"""What feature extractors share: one shape, an identity by content, the same arithmetic everywhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from seedsbench.exact.blocks import map_blocks, one_thread

BLOCK = 128
"""Features are computed in blocks of this many consecutive sample indices, whatever the batch size."""


@dataclass(frozen=True)
class Extractor:
    """A feature extractor: images -> (features (n, D), logits (n, K) or None).

    name: for axes and tables. id: changes when the numbers would. bound: largest |feature| allowed.
    quantised: whether images reach it as uint8 (n, C, H, W) or as float64 samples. weights_id: of its
    weights file. block: images it sees at a time, always exactly so many. device: where it runs; on a GPU it
    sets what flags it needs by `full_precision`.
    """

    name: str
    id: str
    dim: int
    n_classes: int
    bound: float
    quantised: bool
    extract: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    weights_id: str | None = None
    block: int = BLOCK
    device: str = "cpu"

    def each(self, blocks: Sequence[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
        """padded() of each block of images; on a CPU as many at a time as torch has threads."""
        if self.device != "cpu":
            return list(map(self.padded, blocks))
        return map_blocks(self.padded, blocks)

    def padded(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (float64) and logits of at most `block` images, computed as a whole block.

        A network may round differently for another batch shape or number of threads. Both stay on the
        extractor's device.
        """
        n = len(images)
        missing = self.block - n
        whole = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
        with one_thread():
            features, logits = self.extract(whole)
        return features[:n].double(), None if logits is None else logits[:n]


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """float32 convolutions and products as such, not TF32, and by algorithms that do not depend on luck.

    TF32 keeps 10 bits of a feature: enough to move a small FID, and only on some devices. A CPU has none.
    """
    if torch.device(device).type == "cpu":
        yield
        return
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
