"""Where every random number of sampling comes from.

A solver asks either for `normal()`, a fresh N(0, I) (churn, Langevin), or for
`increment(q0, q1)`, the increment of one Brownian path between two readings of the solver's own
clock. Stage noises asked for as increments of one path have the right correlations by construction.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from seedsbench.exact.philox import philox_normal, philox_words

LATENTS, LABELS, STEPS, BRIDGES = 0, 1, 2, 3  # streams; what belongs to data sets starts at 0x100
SEARCH, SEARCH_STEPS = 4, 5  # latents and steps of samples that a choice is made on, and that no cell draws
LARGEST_DENOMINATOR = 2**30  # of a class's share: sample numbers and random words times it fit int64


class Noise(Protocol):
    """What `seedsbench.sample(noise=...)` accepts."""

    def normal(self) -> Tensor:
        """Independent standard normals, (B, C, H, W)."""
        ...

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        """W(q1) - W(q0), variance |q1 - q0|, (B, C, H, W); intervals of one path must not overlap."""
        ...


class FromNormals(Noise):
    """Increments as scaled fresh normals: exact as long as the intervals asked for do not overlap."""

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        return self.normal() * (q1 - q0).abs().sqrt()


class Philox(FromNormals):
    """Counter-based noise: draw d of sample i is a pure function of (seed, stream, i, d).

    indices: (B,) sample indices in [0, 2**32). shape: (C, H, W). Draws are computed in float64 and
    then cast, so a float32 run sees the same noise, rounded.
    """

    def __init__(
        self,
        indices: Tensor,
        shape: tuple[int, ...],
        *,
        seed: int = 0,
        stream: int = STEPS,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self._indices = torch.as_tensor(indices, dtype=torch.int64, device=device)
        self._shape, self._seed, self._stream, self._dtype = tuple(shape), seed, stream, dtype
        self._draw = 0

    def normal(self) -> Tensor:
        size = math.prod(self._shape)
        z = philox_normal(self._indices, size, seed=self._seed, stream=self._stream, draw=self._draw)
        self._draw += 1
        return z.to(self._dtype).reshape(-1, *self._shape)


class Recorded(FromNormals):
    """Replays recorded standard normals z, (n_draws, B, C, H, W), in draw order.

    Raises ValueError when more draws are asked for than were recorded; draws left over are no error.
    """

    def __init__(self, z: Any) -> None:
        self._z = torch.as_tensor(z)
        self._draw = 0

    def normal(self) -> Tensor:
        if self._draw >= len(self._z):
            raise ValueError(
                f"the solver asks for draw {self._draw + 1} but only {len(self._z)} are recorded"
            )
        self._draw += 1
        return self._z[self._draw - 1]


class PerImage(FromNormals):
    """Draws from one torch generator an image: draw d of an image depends on its generator alone.

    generators: one an image. shape: (C, H, W). What a torch generator gives depends on its device and
    may change with torch's version, which is why this is not the default.
    """

    def __init__(
        self, generators: list[torch.Generator], shape: tuple[int, ...], dtype: torch.dtype = torch.float64
    ) -> None:
        self._generators, self._shape, self._dtype = generators, tuple(shape), dtype

    def normal(self) -> Tensor:
        draws = [
            torch.randn(self._shape, generator=g, dtype=self._dtype, device=g.device)
            for g in self._generators
        ]
        return torch.stack(draws)


class EachItsOwn(FromNormals):
    """One source an image, each of a batch of one: an image's draws are the same in any batch."""

    def __init__(self, sources: Sequence[Noise]) -> None:
        self._sources = list(sources)

    def normal(self) -> Tensor:
        return torch.cat([source.normal() for source in self._sources])


class EDMStart(NamedTuple):
    """latents (B, C, H, W) float32; classes (B,) int64 or None; noise: the same generators, further on."""

    latents: Tensor
    classes: Tensor | None
    noise: PerImage


def edm_start(
    seeds: Tensor,
    shape: tuple[int, ...],
    n_classes: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> EDMStart:
    """The random start of images with EDM's published seeds (Karras et al. 2022, code release).

    seeds: (B,) one an image, taken modulo 2^32. shape: (C, H, W). n_classes: 0 for an unconditional
    model, which draws none. dtype: of the noise. Each image has a generator of its own, on `device`, from
    which come, in this order: float32 latents, a class, the noise of each step. Published images were
    made on CUDA: a CPU's generators give others.
    """
    generators = [torch.Generator(device).manual_seed(int(seed) % 2**32) for seed in seeds]
    latents = PerImage(generators, shape, torch.float32).normal()
    drawn = [torch.randint(n_classes, (), generator=g, device=g.device) for g in generators if n_classes]
    return EDMStart(latents, torch.stack(drawn) if drawn else None, PerImage(generators, shape, dtype))


class Silent(FromNormals):
    """No noise: what is left of a stochastic solver is its drift."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        self._zero = torch.zeros(shape, dtype=dtype)

    def normal(self) -> Tensor:
        return self._zero


class OfType:
    """A noise whose draws have the state's type: another would change that of the state."""

    def __init__(self, noise: Noise, dtype: torch.dtype) -> None:
        self._noise, self._dtype = noise, dtype

    def normal(self) -> Tensor:
        return self._noise.normal().to(self._dtype)

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        return self._noise.increment(q0, q1).to(self._dtype)


def latents(
    indices: Tensor, shape: tuple[int, ...], *, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal starting points, (B, C, H, W) float64, a function of (seed, index) alone."""
    return Philox(indices, shape, seed=seed, stream=LATENTS, device=device).normal()


def random_classes(
    indices: Tensor, n_classes: int, *, seed: int, weights: Sequence[float] | None = None
) -> Tensor:
    """One class in [0, n_classes) for each sample index, (B,) int64.

    weights: (n_classes,) probabilities, all equal if None.
    """
    words = philox_words(torch.as_tensor(indices, dtype=torch.int64), seed=seed, stream=LABELS, draw=0)
    if weights is None:
        return (words * n_classes) >> 32
    shares = [Fraction(end).limit_denominator(LARGEST_DENOMINATOR) for end in accumulate(weights[:-1])]
    ends = [-(-share.numerator * 2**32 // share.denominator) for share in shares]
    return torch.bucketize(words, torch.tensor(ends, dtype=torch.int64, device=words.device), right=True)
