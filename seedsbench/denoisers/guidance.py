"""Guidance as a choice: `guidance=none | cfg | auto`. It wraps a denoiser; solvers know nothing of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from seedsbench.checks import Range, Share, check_fields
from seedsbench.denoisers.autoguidance import AutoGuided, WithWeaker
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.prediction import Guided

_Level = Annotated[float, Range(0, 1e8)]
_Scale = Annotated[float, Range(0, 1000)]
_Interval = tuple[_Level, _Level] | None


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
    low < sigma <= high alone (Kynkaanniemi et al. 2024); null: at all of them. null_label: the class that
    stands for none in D_u; null: no class at all. channels: guide the first so many alone; null: all.
    """

    scale: _Scale = 2.0
    rescale: Share = 0.0
    interval: _Interval = None
    null_label: Annotated[int, Range(0, 10**6)] | None = None
    channels: Annotated[int, Range(1, 10**6)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_interval(self, self.interval)

    def of(self, denoiser: Denoiser) -> Denoiser:
        return Guided(
            denoiser,
            self.scale,
            self.rescale,
            interval=self.interval,
            null_label=self.null_label,
            channels=self.channels,
        )


@dataclass(frozen=True)
class Auto(Guidance):
    """Autoguidance (Karras et al. 2024), by a weaker network of the same task, see `AutoGuided`.

    scale: w of D_g + w (D - D_g), D_g the weaker network; 1 is no guidance. interval: as classifier-free
    guidance has it. Which network that is, one of: model, a file or folder or the name of a model; training,
    another training of the model that is sampled.
    """

    needs_labels: ClassVar[bool] = False
    scale: _Scale = 2.0
    interval: _Interval = None
    model: str | None = None
    training: Annotated[int, Range(0, 10**6)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_interval(self, self.interval)
        if (self.model is None) == (self.training is None):
            raise ValueError(
                f"Auto: model={self.model} and training={self.training}: give one of them, for the weaker "
                "network, as guidance.training=1 or guidance.model=<file, folder or name of a model>"
            )

    def of(self, denoiser: Denoiser) -> Denoiser:
        if not isinstance(denoiser, WithWeaker):
            raise ValueError("guidance=auto has no weaker network beside this denoiser: make it a WithWeaker")
        return AutoGuided(denoiser, self.scale, self.interval)


def _check_interval(guidance: Guidance, interval: tuple[float, float] | None) -> None:
    if interval is not None and not interval[0] < interval[1]:
        name, (low, high) = type(guidance).__name__, interval
        raise ValueError(f"{name}: interval [{low:g}, {high:g}] is empty: give [0.3, 5]")
