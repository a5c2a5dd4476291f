"""SEEDS-3 as the authors' released code computes it, so that a published number can be checked.

The released three-stage branches depart from the paper's own formulas in two places:

* data prediction: the weight of the second stage in the third is (c3/c2)(1 - 2 phi_1(-c2 z)) where
  (c3^2/c2) z phi_2(-c3 z) is due. It tends to -c3/c2 instead of 0 with the step, so it is no
  exponential Runge-Kutta weight and the drift is of order 1;
* noise prediction: the noise of the third stage carries the std of the step's end instead of its
  own, and in the final noise the first two draws change places. The marginal variance is right,
  the correlation with the stages is not.

Use it beside `seeds3`, which follows the mathematics.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.parts.splitting import Splitting
from seedsbench.solvers.parts.tableau import Phis, Weight, phi
from seedsbench.solvers.seeds import Seeds3


@dataclass(frozen=True)
class Seeds3AsReleased(Seeds3):
    """Three evaluations a step; drift order 1 with data prediction, 3 with noise; weak order 1 and 2."""

    prediction: Literal["data", "noise"] = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction == "noise" and self.c2 >= self.c3:
            raise ValueError(
                f"Seeds3AsReleased: c2={self.c2} must be less than c3={self.c3}: with prediction=noise the "
                "release exchanges the noises of its stages in this order"
            )

    @property
    def order(self) -> int:
        return 1 if self.prediction == "data" else 3

    @property
    def weak_order(self) -> int | None:
        return None if not self.stochastic else 1 if self.prediction == "data" else 2

    def _weights(self, i: int, weights: tuple[Weight, ...], z: Tensor, known: Phis) -> list[Tensor]:
        values = super()._weights(i, weights, z, known)
        if i == 2 and self.prediction == "data":
            # z here is -log(y_end/y_start); the engine multiplies by the step, the release does not.
            released = (self.c3 / self.c2) * (1 - 2 * phi(1, self.c2 * z)) / -z
            values = [values[0] + values[1] - released, released]
        return values

    def _path(
        self, process: Process, splitting: Splitting, sigmas: list[Tensor], noise: Noise
    ) -> list[Tensor]:
        exact = super()._path(process, splitting, sigmas, noise)
        if self.prediction == "data":
            return exact
        schedule = process.schedule
        std = [sigma * schedule.scale_at(sigma) for sigma in sigmas]
        first, second = exact[1] - exact[0], exact[2] - exact[1]  # amplitude is 1 with noise prediction
        q = [splitting.noise_clock(sigma) for sigma in sigmas]
        ratio = expand(((q[2] - q[1]) / (q[1] - q[0])).sqrt(), first)
        swapped = first * ratio + second / ratio
        return [exact[0], exact[1], exact[2] * expand(std[3] / std[2], first), exact[3] - exact[2] + swapped]
