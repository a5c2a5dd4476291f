"""What is said of a data set that comes with the package: glyphs and digits are two."""

from dataclasses import dataclass
from pathlib import Path

_ASSETS = Path(__file__).resolve().parents[1] / "assets"


@dataclass(frozen=True)
class EmbeddedSet:
    """A data set with networks, features and reference statistics of its own.

    name: of its folder of assets too. shape: (C, H, W) of an image. classes: their names. targets: how many
    numbers beside the class its features are trained to tell.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    targets: int

    @property
    def assets(self) -> Path:
        """The folder of its files."""
        return _ASSETS / self.name

    @property
    def features(self) -> Path:
        """Where its feature network lies."""
        return self.assets / "features.safetensors"

    @property
    def reference(self) -> Path:
        """Where the feature statistics of its real images lie."""
        return self.assets / f"{self.name}_reference.npz"

    def weights(self, regime: str, training: int = 0) -> Path:
        """Where the network of a regime lies. training: which of several, from other seeds."""
        return self.assets / f"{weights_stem(regime, training)}.safetensors"


def weights_stem(regime: str, training: int) -> str:
    """What the file of a network is called, without its ending.

    >>> weights_stem("vp", 0), weights_stem("vp", 2)
    ('vp', 'vp-2')
    """
    return regime if training == 0 else f"{regime}-{training}"
