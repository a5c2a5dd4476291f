"""Running what needs only our own code, not torch's, without waiting seconds for torch to be imported.

Solvers promise their evaluations in whole numbers, in modules that import torch for their steps. While
`without_torch` runs, `import torch` (and anything below it) gives a stand-in that can be named, called and
written in annotations, and refuses to be computed with: no number can come from it. Whatever does need
torch then runs again with torch itself. Modules imported with the stand-in are forgotten afterwards.
"""

import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Made = TypeVar("Made")

STAYS = {*sys.stdlib_module_names, "numpy", "scipy"}
"""Packages that import no torch, or compiled ones that may not be imported twice."""


class TorchNeeded(Exception):
    """Something was asked of the stand-in that only torch can answer."""


def without_torch(make: Callable[[], Made]) -> Made:
    """What make() returns or raises, with torch imported only if it is needed; make() may run twice.

    Errors are those of the run with torch, so that none can be the stand-in's fault.
    """
    if "torch" in sys.modules:
        return make()
    try:
        with _stand_in():
            return make()
    except Exception:
        return make()


class _StandIn:
    """Any name in torch. It can be called, subclassed, joined with `|` and subscripted; nothing more."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _: Any) -> Any:
        return self

    def __or__(self, _: Any) -> Any:
        return self

    __ror__ = __or__
    __call__: Callable[..., Any] = lambda self, *_, **__: self  # takes anything, passes nothing on

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type) or type(other).__module__ == "typing":  # where annotations are made
            return False
        raise TorchNeeded

    __hash__ = object.__hash__  # a dataclass's default must have one

    def _refuse(self, *_: Any) -> Any:
        raise TorchNeeded

    __bool__ = __int__ = __float__ = __index__ = __len__ = __iter__ = _refuse
    __str__ = __repr__ = __format__ = __instancecheck__ = __enter__ = __exit__ = _refuse


@contextmanager
def _stand_in() -> Iterator[None]:
    """`import torch` gives the stand-in; afterwards the modules that may have seen it are forgotten."""
    ordinary, torch, before = builtins.__import__, _StandIn(), set(sys.modules)

    def imported(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if level == 0 and name.split(".")[0] == "torch":
            return torch
        return ordinary(name, globals, locals, fromlist, level)

    builtins.__import__ = imported
    try:
        yield
    finally:
        builtins.__import__ = ordinary
        stays = (STAYS | {name.split(".")[0] for name in before}) - {"seedsbench"}
        for name in set(sys.modules) - before:
            if name.split(".")[0] not in stays:
                package, _, last = name.rpartition(".")
                if package in before:
                    delattr(sys.modules[package], last)
                del sys.modules[name]
