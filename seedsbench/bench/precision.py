"""How a cell's network is run: in which floating-point type, and compiled or not.

Only the raw network is concerned. Preconditioning, states and the coefficients of solvers keep their own
types, and so do the network's noise level and whatever it computes elementwise from it: products and
convolutions alone get the low precision, as in the half-precision mode of Karras et al.'s networks (2022).
"""

import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.bench.batching import out_of_memory
from seedsbench.bench.cell import check_precision
from seedsbench.denoisers.base import Denoiser

LOW_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_VARIANTS = 8
"""Networks kept in low precision, and as many compiled: they hold weights, and graphs a GPU's memory."""
ISOLATED = "isolate_recompiles" in inspect.signature(torch.compile).parameters
"""Whether torch keeps the graphs of one network apart from those of others of its class. Each then has one
graph for each kind of argument, whose check (which fails by chance where several threads make it) can be left
out. Without this, threads take turns, and a process can compile eight graphs of a class."""


def variant(
    denoiser: Denoiser, device: str, *, precision: str = "fp32", compiled: bool = False, size: int = 0
) -> Denoiser:
    """The denoiser with its network run this way; the latest are kept, and not made again.

    precision: fp32, tf32, bf16 or fp16 (the first two differ by `tensor_cores` alone). compiled: by
    torch.compile, for batches of one size: smaller ones are padded to `size`, or by the denoiser itself
    where it evaluates in batches of a fixed size anyway.

    Raises ValueError where model or device cannot.
    """
    if precision != "fp32":
        _check_device(precision, device)
        denoiser = _lowered(denoiser, precision)
    if compiled:
        denoiser = _compiled(denoiser, None if denoiser.fixed_batch else size, device)
    return denoiser


@lru_cache(maxsize=MAX_VARIANTS)
def _lowered(denoiser: Denoiser, precision: str) -> Denoiser:
    low = LOW_PRECISIONS.get(precision)
    return denoiser.with_network(lambda network: network if low is None else Lowered(network, low))


@lru_cache(maxsize=MAX_VARIANTS)
def _compiled(denoiser: Denoiser, size: int | None, device: str) -> Denoiser:
    graphs = device.startswith("cuda")
    return denoiser.with_network(lambda network: Compiled(network, size, graphs=graphs))


def release(device: str) -> None:
    """Give back what compiled networks hold of a device's memory; they are made anew when next asked for."""
    if _compiled.cache_info().currsize:
        _compiled.cache_clear()
        torch.compiler.reset()  # torch keeps graphs longer than the networks they are of
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


@contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """float32 products and convolutions on CUDA in TF32 (10 bits of fraction), or strictly not.

    These flags are the whole process's: nothing but sampling may run meanwhile.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Lowered(nn.Module):
    """A copy of a network whose products and convolutions have inputs and weights of a low precision.

    Inputs stay as they are, so that a noise level of 999 is not rounded to 1000; sums inside attention's
    softmax and the statistics of group norms are float32 (torch's kernels see to both). The output is of
    the low precision. channels_last: tensor cores want it.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = copy.deepcopy(network), dtype
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for parameter in self.network.parameters():
            if parameter.ndim > 1:  # weights, converted now and not at each call
                parameter.data = parameter.data.to(dtype)
        for module in list(self.network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.GroupNorm):
                    setattr(module, name, _LowNorm(child, dtype))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, self.dtype, cache_enabled=False):
            return self.network(x, c_noise, labels)


class _LowNorm(nn.Module):
    """A group norm whose output has the low precision: on CUDA autocast would make it float32."""

    def __init__(self, norm: nn.GroupNorm, dtype: torch.dtype) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight.data.to(dtype), norm.bias.data.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return nnf.group_norm(x.to(self.weight.dtype), self.groups, self.weight, self.bias, self.eps)


class Compiled(nn.Module):
    """A network through torch.compile, for batches padded to `size` (None: they come in one size).

    graphs: with CUDA graphs, whose results the next call overwrites: a preconditioner has made another
    tensor of them by then. A network that cannot be compiled whole is an error: part of it would else
    run as before, and nobody would know which. Threads may call it together.
    """

    def __init__(self, network: nn.Module, size: int | None, *, graphs: bool) -> None:
        super().__init__()
        self.network, self.size = network, size
        how: dict[str, Any] = {"fullgraph": True, "dynamic": False, "options": {"triton.cudagraphs": graphs}}
        if ISOLATED:
            how["isolate_recompiles"] = True
            how["options"]["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
        self._runs: dict[bool, Callable[..., Any]] = {
            labelled: torch.compile(network, **how) for labelled in (False, True)
        }
        self._ready: set[bool] = set()
        self._lock = threading.Lock()

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the network's own. Raises ValueError, in one line, if it cannot be compiled here."""
        # One noise level for each sample, also where all have the same: one graph for both.
        c_noise = c_noise.expand(len(x)).contiguous()
        given = [value if value is None else self._padded(value) for value in (x, c_noise, labels)]
        labelled = labels is not None
        turn = nullcontext() if ISOLATED and labelled in self._ready else self._lock
        try:
            with turn:  # one thread compiles, at the first call, and the others wait
                found = self._runs[labelled](*given)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"compile=true: {said[:300]}: use compile=false") from error
        self._ready.add(labelled)
        return found[: len(x)]

    def _padded(self, value: Tensor) -> Tensor:
        missing = 0 if self.size is None else self.size - len(value)
        return value if missing == 0 else torch.cat([value, value[-1:].expand(missing, *value.shape[1:])])


def _check_device(precision: str, device: str) -> None:
    if not device.startswith("cuda"):
        check_precision(precision, device)
        return
    major, minor = torch.cuda.get_device_capability(device)
    if precision in ("tf32", "bf16") and major < 8:
        raise ValueError(
            f"precision={precision} needs a GPU of compute capability 8.0, this one has {major}.{minor}: "
            "use fp32 or fp16"
        )
