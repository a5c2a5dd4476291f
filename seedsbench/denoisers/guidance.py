"""Guidance as a choice: `guidance=none | cfg`. It wraps a model's denoiser; solvers know nothing of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from seedsbench.checks import Range, Share, check_fields
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.prediction import Guided

_Level = Annotated[float, Range(0, 1e8)]


@dataclass(frozen=True)
class Guidance(ABC):
    """Base of all guidance. Subclasses are frozen dataclasses whose fields are the YAML's options.

    Class attributes:
        needs_labels: whether it has nothing to guide with where samples have no class.
    """

    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def of(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser, guided: what it costs a sample is what its `evaluations_at` says."""


@dataclass(frozen=True)
class Unguided(Guidance):
    """The denoiser as it is."""

    needs_labels: ClassVar[bool] = False

    def of(self, denoiser: Denoiser) -> Denoiser:
        return denoiser


@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """Classifier-free guidance (Ho and Salimans 2022), see `Guided`.

    scale: w of D_u + w (D_c - D_u); 1 is no guidance, 0 no class. rescale: how much of the growth in
    standard deviation is taken back (Lin et al. 2024). interval: [low, high], guide at noise levels
    low < sigma <= high alone (Kynkaanniemi et al. 2024); null: at all of them.
    """

    scale: Annotated[float, Range(0, 1000)] = 2.0
    rescale: Share = 0.0
    interval: tuple[_Level, _Level] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval is not None and not self.interval[0] < self.interval[1]:
            low, high = self.interval
            raise ValueError(f"ClassifierFree: interval [{low:g}, {high:g}] is empty: give [0.3, 5]")

    def of(self, denoiser: Denoiser) -> Denoiser:
        return Guided(denoiser, self.scale, self.rescale, interval=self.interval)
