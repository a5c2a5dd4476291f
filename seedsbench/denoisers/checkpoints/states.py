"""State dicts: telling one from other objects, their prefixes, and loading one strictly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.files.archives import one_line

DATA_PARALLEL = "module."
"""What DataParallel puts before every key."""
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_Network = TypeVar("_Network", bound=nn.Module)


def is_state(value: Any) -> bool:
    """Whether it is a non-empty dict from names to tensors."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and is_dense(v) for k, v in value.items())
    )


def is_dense(value: Any) -> bool:
    """Whether it is a tensor with its numbers in memory: not sparse, nested, quantised or without data."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_nested or value.is_quantized or value.is_meta)
    )


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without DataParallel's prefix, if all of its keys have it."""
    if not all(name.startswith(DATA_PARALLEL) for name in state):
        return dict(state)
    return {name.removeprefix(DATA_PARALLEL): value for name, value in state.items()}


def bare_state(content: Any, path: str | Path, family: str) -> dict[str, Tensor]:
    """The weights of a file that holds one state dict and nothing else; CheckpointError for another one.

    family: whose checkpoints are so, for the error.
    """
    if not is_state(content):
        raise CheckpointError(
            f"{path} holds {type(content).__name__}: a {family} checkpoint is one bare state dict"
        )
    return without_prefix(content)


def numbered(state: Mapping[str, Tensor], part: str) -> int:
    """How many different numbers follow `part.` in the names: counted, as any of them may be huge."""
    return len({key.split(".")[1] for key in state if key.startswith(f"{part}.")})


@contextmanager
def understood(path: str | Path) -> Iterator[None]:
    """Turn the errors of reading an architecture off a state dict into one CheckpointError."""
    try:
        yield
    except (KeyError, IndexError, StopIteration) as error:  # a weight is missing
        raise CheckpointError(
            f"{path} is no checkpoint of this family: it lacks {error or 'weights'}"
        ) from error
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of this family: {one_line(error)}"
        ) from error


def network_of(build: Callable[[], _Network], state: Mapping[str, Tensor], path: str | Path) -> _Network:
    """The network that `build` makes, with these weights: float32, eval mode, no gradients.

    Raises CheckpointError unless keys and shapes agree exactly and all values are finite.
    """
    # Without memory first: shapes in a damaged file may describe a network of any size.
    with understood(path), torch.device("meta"):
        wanted = build().state_dict()
    check_state(state, wanted, path)
    network = build()
    network.load_state_dict({name: value.detach() for name, value in state.items()}, strict=True)
    return network.eval().requires_grad_(False)


def check_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], owner: str | Path) -> None:
    """Raise CheckpointError unless `state` has just the keys and shapes of `wanted`, and finite numbers."""
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    for names, fault in ((missing, "lacks"), (unknown, "has no use for")):
        if names:
            raise CheckpointError(f"{owner} {fault} {len(names)} of the weights, such as {names[0][:100]}")
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            found, expected = tuple(value.shape), tuple(wanted[name].shape)
            raise CheckpointError(f"{owner}: {name} has shape {found}, expected {expected}")
        if value.dtype not in FLOATS or not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{owner}: {name} ({value.dtype}) must hold finite floating-point numbers")
