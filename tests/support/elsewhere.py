"""A second device that every machine has: it refuses what a GPU refuses, and counts what a GPU waits for.

Its tensors say that they are of device "meta" and hold their values in one of the CPU beside. An operation
that mixes them with tensors of the host is refused as CUDA does, unless the latter are single numbers.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")
ATEN = torch.ops.aten
MOVES = {ATEN._to_copy.default, ATEN.copy_.default}
INDEXING = {ATEN.index.Tensor, ATEN.index_put_.default, ATEN._index_put_impl_.default}
STRICT = {ATEN.cat.default, ATEN.stack.default, ATEN.searchsorted.Tensor, ATEN.gather.default}
WAITS = {ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.equal.default}


class There(torch.Tensor):
    """A tensor of the second device; `held` is where its values are."""

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=ELSEWHERE
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func}: only inside `SecondDevice`")


class SecondDevice(TorchDispatchMode):
    """While it holds, device="meta" is a place to compute. waits: how often the host had to wait for it."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        there = [value for value in tensors if isinstance(value, There)]
        goes = bool(there)
        if kwargs.get("device") is not None:
            goes = torch.device(kwargs["device"]) == ELSEWHERE
            kwargs["device"] = torch.device("cpu")
        if there:
            self._check(func, args, tensors)
            # Moving to the host waits, and so does an index of truth values, whose length is not known.
            self.waits += func in WAITS or (func in MOVES and not goes) or self._masks(func, args)
        if func is ATEN.copy_.default:
            self.waits += isinstance(args[1], There) and not isinstance(args[0], There)
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        names = {id(value.held): value for value in there}

        def back(value):
            if not goes or not isinstance(value, torch.Tensor):
                return value
            return names[id(value)] if id(value) in names else There(value)  # in place: the very same

        return tree_map(back, result)

    def _check(self, func, args, tensors):
        if func in MOVES:
            return
        here = [value for value in tensors if not isinstance(value, There)]
        if func in INDEXING and isinstance(args[0], There):
            return  # indices of the host are fetched
        if not here or (func not in STRICT | INDEXING and all(value.ndim == 0 for value in here)):
            return
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found two")

    def _masks(self, func, args):
        return func in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1])


def _held(value):
    return value.held if isinstance(value, There) else value
