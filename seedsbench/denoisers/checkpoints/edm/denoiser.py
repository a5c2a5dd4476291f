"""From what an EDM file says (class, constructor arguments, tensors) to a denoiser.

The four preconditioned classes of Karras et al. 2022 (EDM) and the one of Karras et al. 2024 (EDM2) differ in
their constructors' numbers and in the network they wrap; both come with the file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from seedsbench.checks import nearest
from seedsbench.denoisers.checkpoints.edm.read import EDMRecord
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.checkpoints.states import check_state
from seedsbench.denoisers.networks.edm2_unet import EDM2UNet, EDM2UNetConfig, normalised
from seedsbench.denoisers.networks.unet import (
    DhariwalUNet,
    DhariwalUNetConfig,
    SongUNet,
    SongUNetConfig,
    UNet,
    UNetConfig,
)
from seedsbench.denoisers.networks.unet_blocks import Resampler
from seedsbench.denoisers.preconditioning.karras import (
    EDMPreconditioner,
    IDDPMPreconditioner,
    Preconditioned,
    Preconditioner,
    VEPreconditioner,
    VPPreconditioner,
)
from seedsbench.files.archives import one_line

_NETWORKS: dict[str, tuple[type[UNetConfig], type[UNet]]] = {
    "SongUNet": (SongUNetConfig, SongUNet),
    "DhariwalUNet": (DhariwalUNetConfig, DhariwalUNet),
}


@dataclass(frozen=True)
class _Kind:
    """One published class: its preconditioner, the names of that one's numbers in order, its usual network.

    networks: those that it may wrap. then: the positional argument after the numbers. outputs: channels of
    the network for each channel of the image (2: a variance is predicted too). prefix: of the names of its
    weights. beside: of those of weights that only training used. ready: from a file's weights to its own.
    """

    preconditioner: type[Preconditioner]
    numbers: tuple[str, ...]
    network: str
    networks: Mapping[str, tuple[type[UNetConfig], type[UNet]]] = field(default_factory=lambda: _NETWORKS)
    then: str = "model_type"
    outputs: int = 1
    prefix: str = "model."
    beside: tuple[str, ...] = ()
    ready: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict


_KINDS = {
    "VPPrecond": _Kind(VPPreconditioner, ("beta_d", "beta_min", "M", "epsilon_t"), "SongUNet"),
    "VEPrecond": _Kind(VEPreconditioner, ("sigma_min", "sigma_max"), "SongUNet"),
    "iDDPMPrecond": _Kind(IDDPMPreconditioner, ("C_1", "C_2", "M"), "DhariwalUNet", outputs=2),
    "EDMPrecond": _Kind(EDMPreconditioner, ("sigma_min", "sigma_max", "sigma_data"), "DhariwalUNet"),
    "Precond": _Kind(
        EDMPreconditioner,
        ("sigma_data",),
        "UNet",
        {"UNet": (EDM2UNetConfig, EDM2UNet)},
        then="logvar_channels",
        prefix="unet.",
        beside=("logvar_fourier.", "logvar_linear."),
        ready=normalised,
    ),
}
_COMMON = ("img_resolution", "img_channels", "label_dim", "use_fp16")
"""The first arguments of all constructors; then come the numbers, `_Kind.then`, the network's arguments."""
_WITHOUT_EFFECT = ("use_fp16", "dropout", "label_dropout", "logvar_channels")
"""Half precision was a choice of speed, the rest of training; the weights are the same."""
# Far above any network in use, low enough that building an absurd one ends at once.
_LIMITS = {"img_resolution": 4096, "img_channels": 64, "label_dim": 10**6, "M": 10**5}
_LIMITS |= {"model_channels": 4096, "channel_mult_emb": 64, "channel_mult_noise": 64, "num_blocks": 64}
_LIMITS |= {"channel_mult": 64, "attn_resolutions": 4096, "resample_filter": 10**4, "augment_dim": 4096}
_LONGEST = 12


def denoiser_of(record: EDMRecord) -> Preconditioned:
    """The denoiser a record describes: float32, on the CPU, eval mode, without gradients.

    Raises CheckpointError for a class, an argument or a tensor that does not fit.
    """
    name = record.class_name
    if name not in _KINDS:
        raise CheckpointError(nearest(name, _KINDS, what="EDM class"))
    kind = _KINDS[name]
    state = {key: value for key, value in record.state_dict.items() if not key.startswith(kind.beside)}
    try:
        given = _bound(record, kind)
        preconditioner = _preconditioner(kind, given)
        network = _network(kind, given)
        if isinstance(preconditioner, IDDPMPreconditioner):
            _check_levels(state.pop("u", None), preconditioner)
    except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
        raise CheckpointError(f"{name} cannot be built: {one_line(error)}") from error
    _fill(network, state, name, kind)
    return Preconditioned(
        # Measured (scripts/benchmarks/networks.py): 5 % quicker than the default format on a CPU.
        network.to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
        preconditioner,
        img_channels=network.config.in_channels,
        img_resolution=network.config.img_resolution,
        label_dim=network.config.label_dim,
        latents=record.latents,
    )


def _bound(record: EDMRecord, kind: _Kind) -> dict[str, Any]:
    """Arguments by name, positional ones included."""
    names = (*_COMMON, *kind.numbers, kind.then)
    if len(record.init_args) > len(names):
        raise ValueError(f"{len(record.init_args)} positional arguments, of {len(names)} known")
    given = dict(zip(names, record.init_args, strict=False))
    if twice := sorted(given.keys() & record.init_kwargs.keys()):
        raise ValueError(f"argument {twice[0]} is given twice")
    return given | record.init_kwargs


def _preconditioner(kind: _Kind, given: dict[str, Any]) -> Preconditioner:
    """The preconditioner with those of the arguments that are its numbers, which are taken out."""
    numbers = {key: given.pop(key) for key in kind.numbers if key in given}
    checked = {key: _size(key, v) if key == "M" else _number(key, v) for key, v in numbers.items()}
    preconditioner = kind.preconditioner(**checked)
    try:
        low, high = preconditioner.sigma_min, preconditioner.sigma_max
    except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise ValueError(f"no noise levels from {checked}: {one_line(error)}") from error
    if not 0 <= low < high:
        raise ValueError(f"noise levels [{low:g}, {high:g}] are no range")
    return preconditioner


def _network(kind: _Kind, given: dict[str, Any]) -> UNet:
    """The network that the rest of the arguments describe, without memory for its weights."""
    model_type = given.pop("model_type", kind.network)
    if not isinstance(model_type, str) or model_type not in kind.networks:
        raise ValueError(nearest(_shown(model_type), kind.networks, what="model_type"))
    config_class, network_class = kind.networks[model_type]
    channel_counts = ("in_channels", "out_channels")
    known = [one.name for one in fields(config_class) if one.name not in channel_counts]
    options = {key: value for key, value in given.items() if key not in _WITHOUT_EFFECT}
    channels = _size("img_channels", options.pop("img_channels", None))
    for key, value in options.items():
        if key not in known:
            raise ValueError(nearest(str(key), [*known, *_COMMON, *_WITHOUT_EFFECT], what="argument"))
        options[key] = _size(key, value) if key in _LIMITS and value is not None else value
    with torch.device("meta"):
        return network_class(
            config_class(**options, in_channels=channels, out_channels=kind.outputs * channels)
        )


def _fill(network: UNet, state: dict[str, Tensor], name: str, kind: _Kind) -> None:
    """Give a network on the meta device its weights. Raises CheckpointError unless they fit exactly."""
    check_state(state, {kind.prefix + key: value for key, value in network.state_dict().items()}, name)
    filters = {
        f"{kind.prefix}{key}.resample_filter": module.resample_filter
        for key, module in network.named_modules()
        if isinstance(module, Resampler)
    }
    for key, expected in filters.items():
        if not torch.allclose(state[key].float(), expected, rtol=1e-3, atol=1e-6):
            raise CheckpointError(f"{name}: {key} is not the filter its arguments name")
    # Copied: tensors mapped from a file may lie at odd addresses, where kernels round differently.
    copied = {key: value.detach().to("cpu", torch.float32).clone() for key, value in state.items()}
    ready = kind.ready({key.removeprefix(kind.prefix): value for key, value in copied.items()})
    network.load_state_dict(ready, assign=True)
    network.eval().requires_grad_(False)


def _size(key: str, value: Any) -> Any:
    """An integer, or a tuple of some, that is no larger than networks in use have it."""
    if isinstance(value, list | tuple) and len(value) <= _LONGEST:
        return tuple(_size(key, item) for item in value)
    if isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) <= _LIMITS[key]:
        return int(value)
    raise ValueError(
        f"{key}={_shown(value)} must be an integer from 0 to {_LIMITS[key]}, or {_LONGEST} of them at most"
    )


def _number(key: str, value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, bool) and (number := float(value)) >= 0:
        return number
    raise ValueError(f"{key}={_shown(value)} must be a number of at least 0")


def _shown(value: Any) -> str:
    """The start of a value from the file, whatever it is; very long integers have no text at all."""
    try:
        return " ".join(str(value)[:60].split())
    except ValueError:
        return f"({type(value).__name__})"


def _check_levels(stored: Tensor | None, preconditioner: IDDPMPreconditioner) -> None:
    """Compare the stored table of noise levels with the one its constructor's numbers give."""
    if stored is None:
        raise ValueError("the table of noise levels `u` is missing from its tensors")
    expected = preconditioner.table("cpu")
    if stored.shape != expected.shape:
        raise ValueError(
            f"`u` has shape {tuple(stored.shape)}, M={preconditioner.M} asks for {expected.shape[0]}"
        )
    # As far as half precision, in which some files are kept, can tell.
    if not torch.allclose(stored.float(), expected, rtol=2e-3, atol=1e-6):
        raise ValueError("`u` is not the table that its C_1, C_2 and M give")
