"""A problem: a model to sample from, with the features and the truth to score it against.

`conf/model/<name>.yaml` names a builder of one (or of a model, where `metrics` names the features). A builder
takes the regime's name and the device, and knows nothing about solvers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from seedsbench.bench.problems.exact_path import PathRule
from seedsbench.checks import Pixels
from seedsbench.denoisers.base import Denoiser
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.moments import Moments


class Decode(Protocol):
    """From latents (B, C, h, w) to images (B, *image_shape) in [-1, 1].

    An image's bits depend on its own latents alone, whatever the batch. pixels: how they become uint8.
    """

    image_shape: tuple[int, int, int]
    pixels: Pixels

    def __call__(self, latents: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)  # hashed by identity: it holds a network
class Model:
    """A network to sample from, without features: `metrics` must name those to score it with.

    warnings: what a reader of its scores should know, a sentence each. decode: what makes images of samples
    that are latents, None where they are the images. weaker_id: of the network that guidance=auto guides away
    from, None where there is none; its denoiser then has that one beside it.
    """

    name: str
    denoiser: Denoiser
    model_id: str
    warnings: tuple[str, ...] = field(default=(), kw_only=True)
    decode: Decode | None = field(default=None, kw_only=True)
    weaker_id: str | None = field(default=None, kw_only=True)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that are scored: of its samples, or of what they are decoded to."""
        return self.denoiser.image_shape if self.decode is None else self.decode.image_shape

    @property
    def pixels(self) -> Pixels:
        """How images become uint8."""
        return "signed" if self.decode is None else self.decode.pixels

    def images(self, samples: Tensor) -> Tensor:
        """The images in samples (B, C, H, W)."""
        return samples if self.decode is None else self.decode(samples)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Real features (n, D), for scores that compare samples one by one, and those scores' options.

    id: of the images and the extractor. kid_subsets: 0 for no KID. neighbours: 0 for no precision and recall.
    """

    rows: Tensor
    id: str
    kid_subsets: int
    kid_subset_size: int
    neighbours: int


@dataclass(frozen=True, eq=False)
class Problem(Model):
    """Everything about a cell that is neither solver nor grid.

    real(indices, labels, seed): real images, (n, C, H, W) float in [-1, 1], of the given classes (or
    of the whole distribution for None): the error of so many samples itself. None where there are no more
    real images than the reference's. reference_name: what a reader would call the reference. reference_shape:
    of its images, as 3x64x64, "unknown" if nothing says so, None for the model's own. paths: how the exact
    paths are found that samples are held against, in place of a reference, which is then None; features are
    those of pairs (n, 2 C, H, W), a sample and the end of its exact path.
    """

    features: Extractor
    reference: Moments | None
    reference_id: str
    real: Callable[[Tensor, Tensor | None, int], Tensor] | None = None
    reference_name: str = "the model's own"
    reference_shape: str | None = None
    pairs: Pairs | None = None
    paths: PathRule | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether scores need the features of every sample, and not only sums of them."""
        return self.pairs is not None or self.paths is not None

    @property
    def real_id(self) -> str | None:
        """Of the real images that samples are compared with one by one; None where there are none."""
        return None if self.pairs is None else self.pairs.id
