"""State dicts: telling one from other objects, their prefixes, and loading one strictly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.networks.unet_blocks import check_size

DATA_PARALLEL = "module."
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
Network = TypeVar("Network", bound=nn.Module)


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
    """The state without the `module.` that DataParallel puts before every key; other states as they are."""
    if not all(name.startswith(DATA_PARALLEL) for name in state):
        return dict(state)
    return {name.removeprefix(DATA_PARALLEL): value for name, value in state.items()}


@contextmanager
def understood(path: str | Path) -> Iterator[None]:
    """Turn the errors of reading an architecture off a state dict into one CheckpointError.

    KeyError, IndexError and StopIteration mean a weight that every network of the family has is missing.
    """
    try:
        yield
    except (KeyError, IndexError, StopIteration) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of this family: it lacks {error or 'weights'}"
        ) from error
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} cannot be read as a checkpoint of this family: {said}") from error


def network_of(build: Callable[[], Network], state: Mapping[str, Tensor], path: str | Path) -> Network:
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


def check_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise CheckpointError unless `state` has the keys and shapes of `wanted`, and finite numbers."""
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    for names, fault in ((missing, "lacks"), (unknown, "has unknown")):
        if names:
            raise CheckpointError(f"{path} {fault} weights, {len(names)} of them, first {names[0]}")
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            found, expected = tuple(value.shape), tuple(wanted[name].shape)
            raise CheckpointError(f"{path}: {name} has shape {found}, expected {expected}")
        if value.dtype not in FLOATS or not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {name} ({value.dtype}) holds values that are not finite numbers")


def check_resolution(path: str | Path, img_resolution: int, levels: int) -> None:
    """Raise CheckpointError unless images of that many pixels can be halved levels - 1 times."""
    try:
        check_size(img_resolution, levels)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
