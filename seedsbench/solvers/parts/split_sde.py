"""What the exponential solvers of the reverse SDE are chosen by: the part of it that they carry exactly."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from seedsbench.checks import Range, Share
from seedsbench.solvers.base import Unscaled
from seedsbench.solvers.parts.splitting import SPLITTINGS, Splitting


@dataclass(frozen=True)
class SplitSDE(Unscaled):
    """prediction: which splitting (see solvers/parts/splitting.py). eta in [0, 1]: strength of the reverse
    SDE; 0 is the ODE twin. sigma_data: data std, for prediction="edm" alone.
    """

    family: ClassVar[str] = "seeds"
    prediction: Literal["data", "noise", "edm"] = "data"
    eta: Share = 1.0
    sigma_data: Annotated[float, Range(1e-3, 1e3)] = 0.5

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def splitting(self) -> Splitting:
        """The splitting that is meant."""
        return SPLITTINGS[self.prediction](self.eta, self.sigma_data)
