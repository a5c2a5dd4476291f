"""What k-diffusion's stochastic samplers share: two options, and one standard normal a step."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from seedsbench.checks import Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.solvers.base import Solver

NoiseFactor = Annotated[float, Range(0, 10)]


@dataclass(frozen=True)
class AddedNoise(Solver):
    """eta in [0, 1]: 0 the ODE, 1 the reverse SDE; s_noise: factor on the noise added."""

    eta: Share = 1.0
    s_noise: NoiseFactor = 1.0

    @property
    def stochastic(self) -> bool:
        return self.eta > 0 and self.s_noise > 0

    @property
    def right_law(self) -> bool:
        """Whether the marginal laws are those of the data, so that a weak order makes sense."""
        return self.stochastic and self.s_noise == 1


def unit_increment(noise: Noise, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The standard normal of a step, as the increment of one path in the clock sigma^-2, made unit.

    That clock is the one of the reverse SDE at eta = 1; a fine and a coarse run can share the path.
    """
    start, end = sigma**-2, sigma_next**-2
    return noise.increment(start, end) / (end - start).sqrt()
