"""seedsbench: a benchmark for diffusion samplers.

`import seedsbench` is cheap (nothing imports torch until a name that needs it is used), so that the
command line and the report start fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from seedsbench import analytic, metrics, noise
    from seedsbench.api import Samples, load_denoiser, sample, solver, solver_names
    from seedsbench.own import check_denoiser, denoiser

_FROM = {
    **dict.fromkeys(("Samples", "load_denoiser", "sample", "solver", "solver_names"), "seedsbench.api"),
    **dict.fromkeys(("check_denoiser", "denoiser"), "seedsbench.own"),
}
_MODULES = ("analytic", "metrics", "noise")

__all__ = [
    "Samples",
    "analytic",
    "check_denoiser",
    "denoiser",
    "load_denoiser",
    "metrics",
    "noise",
    "sample",
    "solver",
    "solver_names",
]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(import_module(_FROM[name]), name)
    if name in _MODULES:
        return import_module(f"seedsbench.{name}")
    raise AttributeError(f"module 'seedsbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
