"""What a solver is: a frozen choice of method whose `step` may evaluate only the process.

A solver declares what it promises (network evaluations per step, orders) and the program measures
it: the evaluation count is checked after every run and the orders are measured by the tests.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from seedsbench.checks import check_fields
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process

Final = Literal["denoise", "euler", "stop"]


def check_final(final: str) -> None:
    """Raise ValueError unless it is a policy for the way from the last noise level to zero."""
    if final not in get_args(Final):
        raise ValueError(f"final={final!r} must be one of {', '.join(get_args(Final))}")


class BudgetError(ValueError):
    """A budget of network evaluations that fits no step; the message names the smallest that does."""


@dataclass(frozen=True)
class StepResult:
    """x at the next time; `state` for the next step (history); `error`: embedded estimate, shape of x."""

    x: Tensor
    state: Any = None
    error: Tensor | None = None


@dataclass(frozen=True)
class Solver(ABC):
    """Base of all solvers. Subclasses are frozen dataclasses whose fields are the YAML's options and
    say their ranges (`seedsbench.checks`).

    Class attributes (properties where they depend on options):
        family: groups solvers in figures and tables.
        order: global order of the drift (noise off).
        weak_order: order of the mean and variance of a stochastic solver, None for an ODE solver.
        stochastic: whether it draws noise.
        finish_nfe: evaluations `finish` spends (a corrector at the last level); for all but final="stop".
        zero_snr: whether its formula is exact, in float32 too, from the end of a table that ends without
            signal (schedule.Discrete). Others start from a stand-in with a little signal.
        adaptive: whether it chooses its own steps (solvers/adaptive.py); nfe(n) is then the most that n
            trial steps can cost, and the grid's inner levels are not used.
    """

    family: ClassVar[str] = "other"
    order: ClassVar[int]
    weak_order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = False
    finish_nfe: ClassVar[int] = 0
    zero_snr: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def noise_free(self) -> "Solver":
        """The solver without its noise, whose order is `order`; one that also churns must stop that."""
        return self

    def init(self, process: Process, x: Tensor, times: Tensor) -> Any:
        """State before the first step; `times` are all the (n_steps + 1) times of the run."""
        return None

    @abstractmethod
    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """One step from t to t_next < t. x: (B, C, H, W) in the schedule's scaled coordinates."""

    def finish(
        self, process: Process, x: Tensor, t: Tensor, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """(x, t) from which the loop's `final` policy takes over: churn and correctors act here too.

        Spends `finish_nfe` evaluations. Not called for final="stop".
        """
        return x, t

    def land(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Any, noise: Noise
    ) -> Tensor:
        """The sample of final="denoise": x scaled, at t, and its denoised image, which is the default."""
        return denoised

    @abstractmethod
    def nfe(self, n_steps: int) -> int:
        """Network evaluations of n_steps steps, without the final one: a promise that is checked."""

    def total_nfe(self, n_steps: int, final: Final = "denoise", *, afs: bool = False) -> int:
        """Evaluations of a whole run: its steps, `finish` and the final one, less a free first one."""
        check_final(final)
        end = 0 if final == "stop" else 1 + self.finish_nfe
        return self.nfe(n_steps) + end - afs

    def steps_for(self, budget: int, final: Final = "denoise", *, afs: bool = False) -> int:
        """The most steps that cost at most `budget` evaluations, the final one included.

        afs: the first evaluation is replaced by its analytic limit and costs nothing.
        Raises BudgetError if not even one step fits.
        """
        available = budget - self.total_nfe(1, final, afs=afs) + self.nfe(1)
        if self.nfe(1) > available:
            smallest = self.total_nfe(1, final, afs=afs)
            raise BudgetError(
                f"nfe={budget} fits no step of {type(self).__name__} (final={final}): "
                f"the smallest budget that works is {smallest}"
            )
        low, high = 1, 2
        while self.nfe(high) <= available:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.nfe(middle) <= available else (low, middle)
        return low
