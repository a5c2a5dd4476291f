"""DPM-Solver-fast (Lu et al. 2022, section 3.4 and appendix C): order 3, with lower orders at the end.

n steps are all of order 3 but the last, or the last two, which use up what is left of a budget of 3 n - 3,
3 n - 2 or 3 n - 1 evaluations. The paper and k-diffusion take levels uniform in log sigma: grid=logsnr,
final=stop. eta > 0 is k-diffusion's ancestral form: see solvers/ancestral.py.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process
from seedsbench.solvers.ancestral import AncestralOptions, split
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.dpm_solver import RULES

_Left = tuple[tuple[int, ...], Tensor]  # orders of the steps to come, the last level


@dataclass(frozen=True)
class DPMFast(AncestralOptions):
    """remainder: evaluations of the end, [3, ..., 3, 2, 1] for 0, [3, ..., 3, 1] for 1, [3, ..., 3, 2] for 2.

    One step alone is of order 1 for remainder 0 and 1, and of order 2 for 2.
    """

    family: ClassVar[str] = "dpm_solver"
    eta: Share = 0.0
    remainder: Literal[0, 1, 2] = 1

    @property
    def order(self) -> int:
        # One step of order p < 3 at the end costs O(h^(p + 1)).
        return 3 if self.remainder == 2 else 2

    def orders(self, n_steps: int) -> tuple[int, ...]:
        """The order of each step, which is its number of evaluations."""
        end = ((2, 1), (1,), (2,))[self.remainder][-n_steps:]
        return (3,) * (n_steps - len(end)) + end

    def nfe(self, n_steps: int) -> int:
        return sum(self.orders(n_steps))

    def init(self, process: Process, x: Tensor, times: Tensor) -> _Left:
        return self.orders(len(times) - 1), process.schedule.sigma(times[-1])

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: _Left, noise: Noise
    ) -> StepResult:
        (order, *later), end = state
        # Never to below the last level, where the network may know nothing: then less noise is added.
        down = split(sigma, sigma_next, self.eta)[0].clamp(min=end)
        x, _ = RULES[order](process.predict, x, sigma, down)
        up = (sigma_next**2 - down**2).clamp(min=0).sqrt()
        return StepResult(self.noisy(x, up, sigma, sigma_next, noise), (tuple(later), end))
