"""The list `all_modules` of score SDE's networks: what each entry is, from its keys and shapes.

The entries stand in the order in which they are used, so their kinds and shapes tell the architecture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor

PREFIX = "all_modules."
Kind = Literal["fourier", "linear", "convolution", "norm", "block", "attention", "resample", "pyramid"]


@dataclass(frozen=True)
class Entry:
    """One module: its place in the list, what it is, its tensors by the rest of their keys.

    kind "resample": an up- or downsampling convolution of its own. "pyramid": what takes the input image
    into a coarser level.
    """

    index: int
    kind: Kind
    tensors: Mapping[str, Tensor]

    @property
    def outputs(self) -> int:
        """Channels it puts out; of a convolution or block."""
        return self.tensors["Conv_0.weight" if self.kind == "block" else "weight"].shape[0]

    @property
    def inputs(self) -> int:
        """Channels it takes in; of a convolution or block."""
        return self.tensors["Conv_0.weight" if self.kind == "block" else "weight"].shape[1]

    @property
    def resamples(self) -> bool:
        """Whether it is a block that halves or doubles: a projection without a change of width."""
        return self.kind == "block" and "Conv_2.weight" in self.tensors and self.inputs == self.outputs


def entries(state: Mapping[str, Tensor]) -> list[Entry]:
    """The modules that have weights, in order. state: keys all_modules.N.*, and others, left aside.

    Raises ValueError, naming the entry, for one of no kind that these networks have.
    """
    grouped: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(PREFIX):
            index, _, rest = key.removeprefix(PREFIX).partition(".")
            if not index.isdecimal():
                raise ValueError(f"{key[:80]} has no place in the list")
            grouped.setdefault(int(index), {})[rest] = value
    return [Entry(index, _kind(index, grouped[index]), grouped[index]) for index in sorted(grouped)]


def _kind(index: int, tensors: Mapping[str, Tensor]) -> Kind:
    names = set(tensors)
    if names == {"W"}:
        return "fourier"
    if "weight" in names:
        kinds: dict[int, Kind] = {1: "norm", 2: "linear", 4: "convolution"}
        if tensors["weight"].ndim in kinds:
            return kinds[tensors["weight"].ndim]
    if {"GroupNorm_0.weight", "GroupNorm_1.weight", "Conv_0.weight"} <= names:
        return "block"
    if {"GroupNorm_0.weight", "NIN_3.W"} <= names:
        return "attention"
    if "Conv2d_0.weight" in names:
        return "pyramid"
    if "Conv_0.weight" in names:
        return "pyramid" if tensors["Conv_0.weight"].shape[-1] == 1 else "resample"
    raise ValueError(f"{PREFIX}{index} ({', '.join(sorted(names))[:80]}) is no module of these networks")


@dataclass(frozen=True)
class Shape:
    """What the list tells of any of these networks.

    blocks: residual blocks a level on the way down. channels: of each level, finest first.
    attended: indices of the levels with attention. embedding: None where it is told no noise level.
    """

    levels: int
    blocks: int
    width: int
    channels: tuple[int, ...]
    attended: tuple[int, ...]
    embedding: Literal["fourier", "positional"] | None


def shape_of(found: Sequence[Entry], levels: int, *, own_blocks: bool) -> Shape:
    """Read off the numbers of blocks and channels, and where attention is.

    own_blocks: whether each change of resolution is a residual block among the others.

    Raises StopIteration or IndexError where there are too few modules.
    """
    blocks = [entry for entry in found if entry.kind == "block"]
    changes = levels - 1 if own_blocks else 0
    # n a level on the way down, n + 1 on the way up, two in the middle.
    n = (len(blocks) - 2 - 2 * changes - levels) // (2 * levels)
    firsts = [blocks[level * (n + own_blocks)] for level in range(levels)]
    following = {entry.index: after.kind for entry, after in pairwise(found)}
    embedding: Literal["fourier", "positional"] | None = None
    if found[0].kind in ("fourier", "linear"):
        embedding = "fourier" if found[0].kind == "fourier" else "positional"
    return Shape(
        levels=levels,
        blocks=n,
        width=next(entry for entry in found if entry.kind == "convolution").outputs,
        channels=tuple(block.outputs for block in firsts),
        attended=tuple(i for i, block in enumerate(firsts) if following.get(block.index) == "attention"),
        embedding=embedding,
    )


def next_of(rest: Iterator[Entry], kind: Kind) -> Mapping[str, Tensor]:
    """Tensors of the next module, which must be of that kind; ValueError otherwise."""
    entry = next(rest, None)
    if entry is None or entry.kind != kind:
        what = "the end of the list" if entry is None else f"a {entry.kind} at {entry.index}"
        raise ValueError(f"found {what} where this network has a {kind}")
    return entry.tensors


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors under other names of their modules; ValueError for a module that has none."""
    found = {}
    for key, value in tensors.items():
        module, _, what = key.rpartition(".")
        if module not in names:
            raise ValueError(f"a module holds {key[:60]}, which our network does not")
        found[f"{names[module]}.{what}".lstrip(".")] = value
    return found


def prefixed(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under names with `name.` in front."""
    return {f"{name}.{key}": value for key, value in tensors.items()}
