"""How a cell's network is run: in which floating-point type, and compiled or not.

Only the raw network is concerned. Preconditioning, states and the coefficients of solvers keep their own
types, and so do the network's noise level and whatever it computes elementwise from it: products and
convolutions alone get the low precision, as in the half-precision mode of Karras et al.'s networks (2022).
"""

import copy
import functools
import inspect
import os
import shutil
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from seedsbench.bench.cell import check_precision
from seedsbench.denoisers.base import Denoiser, FixedBatch

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
MOST_MADE = 4
"""Variants kept of a denoiser, and sizes compiled of each: they hold weights, and graphs on a GPU memory."""
ISOLATED = "isolate_recompiles" in inspect.signature(torch.compile).parameters
"""Whether torch keeps the graphs of one network apart from those of others of its class. Each then has one
graph for each kind of argument, whose check (which fails by chance where several threads make it) can be left
out. Without this, threads take turns, and a process can compile eight graphs of a class."""
NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED", "not enough memory")
"""In messages of torch's allocator on the CPU, of CUDA itself, and of cuBLAS and cuDNN."""

_MADE: WeakKeyDictionary[Denoiser, dict[Hashable, Denoiser]] = WeakKeyDictionary()


def variant(
    denoiser: Denoiser, device: str, *, precision: str = "fp32", compiled: bool = False, size: int = 0
) -> Denoiser:
    """The denoiser with its network run this way; made once, and kept as long as the denoiser is.

    precision: fp32, tf32, bf16 or fp16 (the first two differ by `tensor_cores` alone). compiled: by
    torch.compile, for batches of one size: smaller ones are padded to `size`, or by the denoiser itself
    where it evaluates in batches of a fixed size anyway.

    Raises ValueError where model, device or machine cannot.
    """
    if precision != "fp32":
        _check_device(precision, device)
        low = LOW.get(precision)
        change = (lambda network: network) if low is None else functools.partial(Lowered, dtype=low)
        denoiser = _kept(denoiser, precision, change)
    if compiled:
        _check_compiler(device)
        padded = None if isinstance(denoiser, FixedBatch) else size
        change = functools.partial(Compiled, size=padded, graphs=device.startswith("cuda"))
        denoiser = _kept(denoiser, ("compiled", padded), change)
    return denoiser


def release(device: str) -> None:
    """Give back what compiled variants hold of a device's memory; they are made anew when next asked for."""
    made = list(_MADE.values())
    compiled = [(variants, key) for variants in made for key in variants if isinstance(key, tuple)]
    for variants, key in compiled:
        del variants[key]
    if compiled:  # torch keeps graphs longer than the networks they are of
        torch.compiler.reset()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _kept(denoiser: Denoiser, key: Hashable, change: Callable[[nn.Module], nn.Module]) -> Denoiser:
    made = _MADE.setdefault(denoiser, {})
    variant = made.pop(key) if key in made else denoiser.with_network(change)
    while len(made) >= MOST_MADE:
        del made[next(iter(made))]  # the one not used for longest
    made[key] = variant
    return variant


@contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """float32 products and convolutions on CUDA in TF32 (10 bits of fraction), or strictly not.

    For an evaluation at a time, as these flags are the whole process's.
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
        """As the network's own."""
        with torch.autocast(x.device.type, self.dtype, cache_enabled=False):
            return self.network(x, c_noise, labels)


class _LowNorm(nn.Module):
    """A group norm that hands on the low precision: on CUDA autocast would widen the image."""

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
        self._runs = {labelled: _compiled(network, graphs=graphs) for labelled in (False, True)}
        self._ready: set[bool] = set()
        self._compiling = threading.Lock()

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the network's own. Raises ValueError, in one line, if it cannot be compiled."""
        # One noise level for each sample, also where all have the same: one graph for both.
        c_noise = c_noise.expand(len(x)).contiguous()
        given = [value if value is None else self._padded(value) for value in (x, c_noise, labels)]
        labelled = labels is not None
        try:
            if labelled in self._ready and ISOLATED:
                return self._runs[labelled](*given)[: len(x)]
            with self._compiling:  # one thread compiles, the others wait
                found = self._runs[labelled](*given)[: len(x)]
                self._ready.add(labelled)
                return found
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ValueError(f"compile=true: {said.strip()[:300]}: use compile=false") from error

    def _padded(self, value: Tensor) -> Tensor:
        missing = 0 if self.size is None else self.size - len(value)
        return value if missing == 0 else torch.cat([value, value[-1:].expand(missing, *value.shape[1:])])


def _compiled(network: nn.Module, *, graphs: bool) -> Callable[..., Any]:
    """The network, compiled at its first call for arguments like that call's; others are not asked for."""
    how: dict[str, Any] = {"fullgraph": True, "dynamic": False, "options": {"triton.cudagraphs": graphs}}
    if ISOLATED:
        how["isolate_recompiles"] = True
        how["options"]["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
    return torch.compile(network, **how)


def out_of_memory(error: Exception) -> bool:
    """Whether less at a time may help: torch has a class for some of these errors, and words for the rest."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in NO_MEMORY)
    )


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


def _check_compiler(device: str) -> None:
    if device.startswith("cuda") and find_spec("triton") is None:
        raise ValueError("compile=true on CUDA needs Triton: pip install triton, or use compile=false")
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else ["g++", "clang++", "cl"])):
        tried = f"CXX={named} is not there" if named else "neither g++ nor clang++ is there"
        raise ValueError(f"compile=true needs a C++ compiler, but {tried}: install g++ or use compile=false")
