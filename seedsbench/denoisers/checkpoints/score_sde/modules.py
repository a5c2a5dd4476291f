"""The list `all_modules` of score SDE's networks: what each entry is, from its keys and shapes.

The entries stand in the order in which they are used, so their kinds and shapes tell the architecture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

PREFIX = "all_modules."
Embedding = Literal["fourier", "positional"] | None
"""How a network is told the noise level; None: it is not."""
_Kind = Literal["fourier", "linear", "convolution", "norm", "block", "attention", "resample", "pyramid"]


@dataclass(frozen=True)
class ModuleEntry:
    """One module: its place in the list, what it is, its tensors by the rest of their keys.

    outputs, inputs: channels, of a convolution or block.
    kind "resample": an up- or downsampling convolution of its own. "pyramid": what takes the input image
    into a coarser level.
    """

    index: int
    kind: _Kind
    tensors: Mapping[str, Tensor]

    @property
    def outputs(self) -> int:
        return self.tensors["Conv_0.weight" if self.kind == "block" else "weight"].shape[0]

    @property
    def inputs(self) -> int:
        return self.tensors["Conv_0.weight" if self.kind == "block" else "weight"].shape[1]

    @property
    def resamples(self) -> bool:
        """Whether it is a block that halves or doubles: a projection without a change of width."""
        return self.kind == "block" and "Conv_2.weight" in self.tensors and self.inputs == self.outputs


def module_entries(state: Mapping[str, Tensor]) -> list[ModuleEntry]:
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
    return [ModuleEntry(index, _kind(index, grouped[index]), grouped[index]) for index in sorted(grouped)]


def _kind(index: int, tensors: Mapping[str, Tensor]) -> _Kind:
    names = set(tensors)
    if names == {"W"}:
        return "fourier"
    if "weight" in names:
        kinds: dict[int, _Kind] = {1: "norm", 2: "linear", 4: "convolution"}
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

    img_channels: of the images. width: of the first convolution. channels: of each level, finest first.
    blocks: residual blocks a level on the way down. attended: indices of the levels with attention.
    """

    img_channels: int
    width: int
    channels: tuple[int, ...]
    blocks: int
    attended: tuple[int, ...]
    embedding: Embedding


def shape_of(found: Sequence[ModuleEntry], levels: int, *, own_blocks: bool) -> Shape:
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
    embeddings: dict[str, Embedding] = {"fourier": "fourier", "linear": "positional"}
    convolution = next(entry for entry in found if entry.kind == "convolution")
    return Shape(
        img_channels=convolution.inputs,
        width=convolution.outputs,
        channels=tuple(block.outputs for block in firsts),
        blocks=n,
        attended=tuple(i for i, block in enumerate(firsts) if following.get(block.index) == "attention"),
        embedding=embeddings.get(found[0].kind),
    )


@dataclass(frozen=True)
class Layout:
    """A network of ours with the layers of a list, and the list's weights under its names."""

    shape: Shape
    build: Callable[[], nn.Module]
    state: dict[str, Tensor]


class InOrder:
    """The modules, taken one after another: each must be of the kind that our network has in its place."""

    def __init__(self, found: Sequence[ModuleEntry]) -> None:
        self._rest = iter(found)

    def take(self, kind: _Kind, name: str = "", parts: Mapping[str, str] | None = None) -> dict[str, Tensor]:
        """Tensors of the next module under keys that begin with `name`; ValueError for one of another kind.

        parts: what the network calls the layers of a module of several. Their matrices (inputs, outputs)
        become 1x1 convolutions.
        """
        entry = next(self._rest, None)
        if entry is None or entry.kind != kind:
            what = "the end of the list" if entry is None else f"a {entry.kind} at {entry.index}"
            raise ValueError(f"found {what} where this network has a {kind}")
        tensors = dict(entry.tensors) if parts is None else _renamed(entry.tensors, parts)
        return {f"{name}.{key}".lstrip("."): value for key, value in tensors.items()}

    def finish(self) -> None:
        """Raise ValueError if modules are left."""
        if left := list(self._rest):
            raise ValueError(
                f"{len(left)} modules are left over, the first a {left[0].kind} at {left[0].index}"
            )


def _renamed(tensors: Mapping[str, Tensor], parts: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, value in tensors.items():
        part, _, what = key.rpartition(".")
        if part not in parts:
            raise ValueError(f"a module holds {key[:60]}, which our network does not")
        what = {"W": "weight", "b": "bias"}.get(what, what)
        value = value.T[:, :, None, None] if key.endswith(".W") else value
        found[f"{parts[part]}.{what}".lstrip(".")] = value
    return found
