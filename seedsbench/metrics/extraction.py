"""What feature extractors share: one shape, weights files, and arithmetic that is the same everywhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from seedsbench.exact.blocks import map_blocks, one_thread
from seedsbench.files.digests import file_sha256
from seedsbench.files.download import cached_path
from seedsbench.files.extractor_files import extractor_weights
from seedsbench.files.torch_files import load_tensors

BLOCK = 128
"""Features are computed in blocks of this many consecutive sample indices, whatever the batch size."""
LARGE_NETWORK_BLOCK = 16
"""The same for Inception and DINOv2: more images cost 20 MB each and thread, and gain nothing on a CPU."""

Extracted = tuple[Tensor, Tensor | None]
"""Features (n, D), and logits (n, K) or None."""
Extraction = Callable[[Tensor], Extracted]
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class Extractor:
    """A feature extractor: images -> (features (n, D), logits (n, K) or None).

    name: for axes and tables. id: changes when the numbers would. bound: largest |feature| allowed.
    quantised: whether images reach it as uint8 (n, C, H, W) or as float64 samples. weights_id: of its
    weights file. block: images it sees at a time, always exactly so many. device: where it runs; on a GPU it
    sets what flags it needs by `full_precision`. entry: what EDM2's files of statistics call those of its
    features, None where they have none.
    """

    name: str
    id: str
    dim: int
    n_classes: int
    bound: float
    quantised: bool
    extract: Extraction
    weights_id: str | None = None
    block: int = BLOCK
    device: str = "cpu"
    entry: str | None = None

    def each(self, blocks: Sequence[Tensor]) -> list[Extracted]:
        """padded() of each block of images; on a CPU as many at a time as torch has threads."""
        if self.device != "cpu":
            return list(map(self.padded, blocks))
        return map_blocks(self.padded, blocks)

    def padded(self, images: Tensor) -> Extracted:
        """Features (float64) and logits of at most `block` images, on the extractor's device.

        Computed as a whole block on one thread: a network may round differently for another number of either.
        """
        n = len(images)
        whole = torch.cat([images, images[-1:].expand(self.block - n, *images.shape[1:])])
        with one_thread():
            features, logits = self.extract(whole)
        return features[:n].double(), None if logits is None else logits[:n]


def load_weights(
    extractor: str, weights: str | Path | None, build: Callable[[dict[str, Tensor]], _Network]
) -> tuple[_Network, str]:
    """The network that `build` makes of a weights file, for evaluation, and 16 digits of the file's sha256.

    weights: the file; None for where the published one of `extractor` would be. Downloads nothing, and reads
    tensors alone: no code in a file runs. Raises FileNotFoundError, and ValueError for a file that is not
    these weights (a KeyError or RuntimeError of `build`); both say what to get and where to put it.
    """
    published = extractor_weights(extractor)
    place = cached_path(published)
    advice = f"download {published.source}, put it at {place} or give its place as metrics.weights=..."
    if published.url:
        advice = f"get it by seedsbench-fetch metrics={extractor}, or {advice}"
    path = place if weights is None else Path(weights).expanduser()
    try:
        sha256 = file_sha256(path)
        if weights is None and (fault := published.fault(sha256)) is not None:
            raise ValueError(fault)
        state = load_tensors(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{extractor} weights: {path} is not there: {advice}") from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ValueError(f"{path} cannot be read as plain weights ({reason}): {advice}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of tensors: {advice}")
    try:
        network = build(state)
    except (KeyError, RuntimeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights of {extractor} ({reason}): {advice}") from error
    return network.eval().requires_grad_(False), sha256[:16]


def on_colour(network: Extraction, device: torch.device | str) -> Extraction:
    """A network of uint8 colour images as an `Extractor` wants it: grey ones get three equal channels."""

    def extract(images: Tensor) -> Extracted:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images are {found}; expected uint8 (n, 3 or 1, H, W)")
        with torch.inference_mode(), full_precision(device):
            return network(images.expand(-1, 3, -1, -1).to(device))

    return extract


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """float32 convolutions and products as such, not TF32, and by algorithms that repeat their result.

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
