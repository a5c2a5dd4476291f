"""From what an EDM file says (class, constructor arguments, tensors) to a denoiser.

The four preconditioned classes of Karras et al. 2022 differ in their constructors' numbers and in the
network they wrap; both come with the file. Their weights are named `model.*`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from seedsbench.checks import nearest
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.networks.dhariwal_unet import DhariwalUNet, DhariwalUNetConfig
from seedsbench.denoisers.networks.song_unet import SongUNet, SongUNetConfig
from seedsbench.denoisers.networks.unet_blocks import Resampler
from seedsbench.denoisers.preconditioning.denoiser import Preconditioned
from seedsbench.denoisers.preconditioning.karras import (
    EDMPreconditioner,
    IDDPMPreconditioner,
    Preconditioner,
    VEPreconditioner,
    VPPreconditioner,
)


class Record(Protocol):
    """What is read of an EDM file.

    class_name: of the outer object. init_args, init_kwargs: of its constructor. state_dict: names to tensors.
    """

    @property
    def class_name(self) -> str: ...
    @property
    def init_args(self) -> tuple: ...
    @property
    def init_kwargs(self) -> dict[str, Any]: ...
    @property
    def state_dict(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class _Kind:
    """One published class: its preconditioner, the names of that one's numbers in order, its usual network.

    outputs: channels of the network for each channel of the image (2: a variance is predicted too).
    """

    preconditioner: type[Preconditioner]
    numbers: tuple[str, ...]
    network: str
    outputs: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Arguments of the constructor in order; what follows by keyword goes to the network."""
        return (*_COMMON, *self.numbers, "model_type")


_COMMON = ("img_resolution", "img_channels", "label_dim", "use_fp16")
_KINDS = {
    "VPPrecond": _Kind(VPPreconditioner, ("beta_d", "beta_min", "M", "epsilon_t"), "SongUNet"),
    "VEPrecond": _Kind(VEPreconditioner, ("sigma_min", "sigma_max"), "SongUNet"),
    "iDDPMPrecond": _Kind(IDDPMPreconditioner, ("C_1", "C_2", "M"), "DhariwalUNet", outputs=2),
    "EDMPrecond": _Kind(EDMPreconditioner, ("sigma_min", "sigma_max", "sigma_data"), "DhariwalUNet"),
}
_NETWORKS = {"SongUNet": (SongUNetConfig, SongUNet), "DhariwalUNet": (DhariwalUNetConfig, DhariwalUNet)}
_TRAINING_ONLY = ("dropout", "label_dropout")
# Far above any network in use, low enough that building an absurd one ends at once.
_LIMITS = {"img_resolution": 4096, "img_channels": 64, "label_dim": 10**6, "M": 10**5}
_LIMITS |= {"model_channels": 4096, "channel_mult_emb": 64, "channel_mult_noise": 64, "num_blocks": 64}
_LIMITS |= {"channel_mult": 64, "attn_resolutions": 4096, "resample_filter": 10**4, "augment_dim": 4096}
_LONGEST = 12


def denoiser_of(record: Record) -> Preconditioned:
    """The denoiser a record describes: float32, on the CPU, eval mode, without gradients.

    Raises CheckpointError for a class, an argument or a tensor that does not fit.
    """
    kind = _KINDS.get(record.class_name)
    if kind is None:
        raise CheckpointError(nearest(record.class_name, _KINDS, what="EDM class"))
    given = _bound(record, kind)
    preconditioner = _preconditioner(record.class_name, kind, given)
    state = dict(record.state_dict)
    if isinstance(preconditioner, IDDPMPreconditioner):
        _check_levels(state.pop("u", None), preconditioner)
    network = _network(record.class_name, kind, given, state)
    return Preconditioned(
        # Measured (scripts/benchmarks/networks.py): 5 % quicker than the default format on a CPU.
        network.to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
        preconditioner,
        img_channels=network.config.in_channels,
        img_resolution=network.config.img_resolution,
        label_dim=network.config.label_dim,
    )


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Fill a network (which may be on the meta device) with a state dict of exactly its names and shapes.

    Values become float32 on the CPU; the network is then in eval mode, without gradients. what: names
    the network in the CheckpointError raised for missing, unknown or misshapen tensors.
    """
    expected = network.state_dict()
    for names, said in (
        (expected.keys() - state.keys(), "lacks"),
        (state.keys() - expected.keys(), "has no use for"),
    ):
        if names:
            first = ", ".join(sorted(names)[:3])
            raise CheckpointError(f"{what}: {said} {len(names)} of the tensors, such as {first}"[:300])
    for name, value in expected.items():
        found = state[name]
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise CheckpointError(f"{what}: {name} holds no floating-point tensor")
        if found.shape != value.shape:
            raise CheckpointError(
                f"{what}: {name} has shape {tuple(found.shape)}, its arguments ask for {tuple(value.shape)}"
            )
    # Copied: tensors mapped from a file may lie at odd addresses, where kernels round differently.
    ready = {name: value.detach().to("cpu", torch.float32).clone() for name, value in state.items()}
    network.load_state_dict(ready, strict=True, assign=True)
    network.eval().requires_grad_(False)


def _bound(record: Record, kind: _Kind) -> dict[str, Any]:
    """Arguments by name, positional ones included."""
    positional, named = tuple(record.init_args), dict(record.init_kwargs)
    if len(positional) > len(kind.names):
        raise CheckpointError(
            f"{record.class_name}: {len(positional)} positional arguments, of {len(kind.names)} known"
        )
    given = dict(zip(kind.names, positional, strict=False))
    twice = sorted(given.keys() & named.keys())
    if twice:
        raise CheckpointError(f"{record.class_name}: argument {twice[0]} is given twice")
    return given | named


def _preconditioner(name: str, kind: _Kind, given: dict[str, Any]) -> Preconditioner:
    numbers = {}
    for key in kind.numbers:
        if key in given:
            value = given.pop(key)
            numbers[key] = _whole(name, key, value) if key == "M" else _number(name, key, value)
    preconditioner = kind.preconditioner(**numbers)
    try:
        low, high = preconditioner.sigma_min, preconditioner.sigma_max
    except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise CheckpointError(f"{name}: no noise levels from {numbers}: {_one_line(error)}") from error
    if not 0 <= low < high:
        raise CheckpointError(f"{name}: noise levels [{low:g}, {high:g}] are no range")
    return preconditioner


def _network(
    name: str, kind: _Kind, given: dict[str, Any], state: dict[str, Tensor]
) -> SongUNet | DhariwalUNet:
    """The network, built from what is left of the arguments and filled."""
    model_type = given.pop("model_type", kind.network)
    if not isinstance(model_type, str) or model_type not in _NETWORKS:
        raise CheckpointError(f"{name}: {nearest(_shown(model_type), _NETWORKS, what='model_type')}")
    config_class, network_class = _NETWORKS[model_type]
    given.pop("use_fp16", None)  # half precision was a choice of speed; the weights are the same
    for key in _TRAINING_ONLY:
        given.pop(key, None)
    if "img_channels" not in given or "img_resolution" not in given:
        raise CheckpointError(f"{name}: img_resolution and img_channels must be among the arguments")
    channels = _whole(name, "img_channels", given.pop("img_channels"))
    options = {key: _option(name, config_class, key, value) for key, value in given.items()}
    options |= {"in_channels": channels, "out_channels": kind.outputs * channels}
    try:
        config = config_class(**options)
        with torch.device("meta"):
            network = network_class(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{model_type} cannot be built: {_one_line(error)}") from error
    prefixed = {
        key.removeprefix("model.") if key.startswith("model.") else f"({key})": v for key, v in state.items()
    }
    filters = {
        key: module.resample_filter
        for key, module in network.named_modules()
        if isinstance(module, Resampler)
    }
    load_strictly(network, prefixed, what=f"{name} with {model_type}")
    for key, expected in filters.items():
        if not torch.allclose(prefixed[f"{key}.resample_filter"].float(), expected, rtol=1e-3, atol=1e-6):
            raise CheckpointError(f"{name}: {key}.resample_filter is not the filter its arguments name")
    return network


def _option(name: str, config_class: type, key: str, value: Any) -> Any:
    """One argument of the network's configuration, of the type its default has."""
    computed = ("in_channels", "out_channels")
    known = {field.name: field for field in fields(config_class) if field.name not in computed}
    if key not in known:
        names = [*known, *_COMMON, *_TRAINING_ONLY]
        raise CheckpointError(f"{name}: {nearest(str(key), names, what='argument')}")
    default = known[key].default
    if isinstance(default, str):
        return value
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or len(value) > _LONGEST:
            raise CheckpointError(
                f"{name}: {key}={_shown(value)} must be a list of at most {_LONGEST} integers"
            )
        return tuple(_whole(name, key, entry) for entry in value)
    assert default is MISSING or isinstance(default, int)
    return _whole(name, key, value)


def _whole(name: str, key: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= int(value) <= _LIMITS[key]:
        raise CheckpointError(f"{name}: {key}={_shown(value)} must be an integer from 0 to {_LIMITS[key]}")
    return int(value)


def _number(name: str, key: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise CheckpointError(f"{name}: {key}={_shown(value)} must be a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise CheckpointError(f"{name}: {key}={_shown(value)} is too large a number") from error
    if not number >= 0:
        raise CheckpointError(f"{name}: {key}={number} must be a number of at least 0")
    return number


def _shown(value: Any) -> str:
    """The start of a value from the file, whatever it is; very long integers have no text at all."""
    try:
        return " ".join(str(value)[:60].split())
    except ValueError:
        return f"({type(value).__name__})"


def _check_levels(stored: Tensor | None, preconditioner: IDDPMPreconditioner) -> None:
    """Compare the stored table of noise levels with the one its constructor's numbers give."""
    if stored is None:
        raise CheckpointError("iDDPMPrecond: the table of noise levels `u` is missing from its tensors")
    expected = preconditioner.table("cpu")
    if not isinstance(stored, Tensor) or stored.shape != expected.shape:
        shape = tuple(stored.shape) if isinstance(stored, Tensor) else type(stored).__name__
        raise CheckpointError(
            f"iDDPMPrecond: `u` has shape {shape}, M={preconditioner.M} asks for {expected.shape[0]}"
        )
    # As far as half precision, in which some files are kept, can tell.
    if not torch.allclose(stored.float(), expected, rtol=2e-3, atol=1e-6):
        raise CheckpointError("iDDPMPrecond: `u` is not the table that its C_1, C_2 and M give")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
