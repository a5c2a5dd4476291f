"""What a foreign sampler is said to be, and where it is: data that the measurements are compared with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from seedsbench.certify.problems import AnySolver


@dataclass(frozen=True)
class Published:
    """One sampler with its options, and what is published of it.

    title: as its users call it. source: who says so. drift, weak: the orders they say, None where nothing is
    said. exact: how many of the images D = 1, s, s^2 (s = -log sigma) its formula integrates exactly: what an
    order hidden by float32 does not show. cause: the coefficient at which it departs from all that, in words;
    empty if it does not.
    """

    title: str
    solver: AnySolver
    source: str
    drift: int | None
    weak: int | None = None
    exact: int = 0
    cause: str = ""


@dataclass(frozen=True)
class Probe:
    """A table of its own about one thing that orders do not show. rows: makes its lines of text."""

    heading: str
    text: str
    columns: tuple[str, ...]
    rows: Callable[[], list[list[str]]]


@dataclass(frozen=True)
class Library:
    """A collection of samplers.

    name: in commands and rows. module: what has to be importable, None for coefficients that lie here.
    install: how to get it. rounding: differences below are its rounding, not its order. claims: made when
    the library is there.
    """

    name: str
    module: str | None
    install: str
    rounding: float
    claims: Callable[[], list[Published]]
    probes: list[Probe] = field(default_factory=list)

    def missing(self) -> str | None:
        """Why it cannot be measured here, in one line; None if it can."""
        if self.module is None:
            return None
        if find_spec(self.module) is None:
            return f"{self.name} is not installed: {self.install}"
        try:
            import_module(self.module)
        except ImportError as error:
            return f"{self.name} cannot be imported ({error}): {self.install}"
        return None

    @property
    def version(self) -> str:
        return version(self.name) if self.module else ""


def option_text(options: dict[str, Any]) -> str:
    """Options as in a title: "eta=1.0 order=3", or nothing."""
    return "".join(f" {key}={value}" for key, value in options.items())
