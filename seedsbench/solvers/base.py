"""What a solver is: a frozen choice of method whose `step` may evaluate only the process.

A solver declares what it promises (network evaluations per step, orders) and the program measures
it: the evaluation count is checked after every run and the orders are measured by the tests.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

from torch import Tensor

from seedsbench.checks import check_fields, named
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand

Final = Literal["denoise", "euler", "stop"]
Self = TypeVar("Self", bound="Solver")


def check_final(final: str) -> None:
    """Raise ValueError unless it is a policy for the way from the last noise level to zero."""
    if final not in get_args(Final):
        raise ValueError(f"final={final!r} must be one of {', '.join(get_args(Final))}")


class BudgetError(ValueError):
    """A budget of network evaluations that fits no step; the message names the smallest that does."""


@dataclass(frozen=True)
class StepResult:
    """x at the next time; `state` for the next step (history)."""

    x: Tensor
    state: Any = None


@dataclass(frozen=True)
class Solver(ABC):
    """Base of all solvers. Subclasses are frozen dataclasses whose fields are the YAML's options and
    say their ranges (`seedsbench.checks`).

    Class attributes:
        family: groups solvers in figures and tables.
        evaluations: network evaluations of a step, where these are the same number in each.
        without_noise: options, with their values, that switch its noise off and leave a method of `order`.
        zero_snr: whether its formula is exact, in float32 too, from the end of a table that ends without
            signal (schedule.Discrete). Others start from a stand-in with a little signal.
        adaptive: whether it chooses its own steps (solvers/parts/adaptive.py); nfe(n) is then the most that
            n trial steps can cost, and the grid's inner levels are not used.
        library: a module beside the package's own dependencies that it cannot do without.
    """

    family: ClassVar[str] = "other"
    evaluations: ClassVar[int] = 1
    without_noise: ClassVar[dict[str, Any]] = {}
    zero_snr: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    library: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        check_fields(self)

    # Properties: a subclass may declare a constant (ClassVar), an option, or what follows from its options.

    @property
    def order(self) -> int:
        """Global order of the drift (noise off)."""
        raise NotImplementedError

    @property
    def weak_order(self) -> int | None:
        """Order of the mean and variance of a stochastic solver, None for an ODE solver."""
        return None

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    @property
    def before_final_nfe(self) -> int:
        """Evaluations that `before_final` spends (a corrector at the last level)."""
        return 0

    @property
    def noise_free(self: Self) -> Self:
        """The solver whose drift has the order `order`, if no noise is drawn (or only zeros)."""
        return replace(self, **self.without_noise)

    def init(self, process: Process, x: Tensor, times: Tensor) -> Any:
        """State before the first step; `times` are all the (n_steps + 1) times of the run."""
        return None

    @abstractmethod
    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """One step from t to t_next < t. x: (B, C, H, W) in the schedule's scaled coordinates."""

    def before_final(
        self, process: Process, x: Tensor, t: Tensor, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """(x, t) from which the loop's `final` policy takes over: churn and correctors act here too.

        Spends `before_final_nfe` evaluations. Not called for final="stop".
        """
        return x, t

    def final_sample(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Any, noise: Noise
    ) -> Tensor:
        """The sample of final="denoise": x scaled, at t, and its denoised image, which is the default."""
        return denoised

    def notes(self) -> tuple[str, ...]:
        """What a reader of its scores should know, a sentence each: the row's warnings."""
        return ()

    def nfe(self, n_steps: int) -> int:
        """Network evaluations of n_steps steps, without the final one: a promise that is checked."""
        return self.evaluations * n_steps

    def total_nfe(self, n_steps: int, final: Final = "denoise", *, afs: bool = False) -> int:
        """Evaluations of a whole run: its steps and its end, less a free first one."""
        check_final(final)
        end = 0 if final == "stop" else 1 + self.before_final_nfe
        return self.nfe(n_steps) + end - afs

    def steps_for(
        self, budget: int, final: Final = "denoise", *, afs: bool = False, own_steps: int | None = None
    ) -> int:
        """The most steps that cost at most `budget` evaluations, the final one included.

        afs: the first evaluation is replaced by its analytic limit and costs nothing. own_steps: of a grid
        that leaves no choice (`Grid.own_steps`). Raises BudgetError, with the smallest budget that works, if
        they do not fit, or not even one step does.
        """
        smallest = self.total_nfe(own_steps or 1, final, afs=afs)
        if smallest > budget:
            what = f"not the {own_steps} steps of the explicit grid" if own_steps else "no step"
            raise BudgetError(
                f"nfe={budget} fits {what} of {type(self).__name__} (final={final}): "
                f"the smallest budget that works is {smallest}"
            )
        if own_steps is not None:
            return own_steps
        available, most = budget - smallest + self.nfe(1), 2
        while self.nfe(most) <= available:
            if most > 2 * available:
                raise ValueError(f"{named(self)}: nfe({most}) is {self.nfe(most)}, less than one a step")
            most *= 2
        return bisect_right(range(most), available, lo=most // 2, key=self.nfe) - 1


def check_declared(solver: Any) -> None:
    """Raise ValueError unless a solver from outside is one and says what a row says of it.

    The file that defines it is named, and what was expected.
    """
    who, expected = named(solver), {"order": (int,), "stochastic": (bool,), "family": (str,)}
    if not isinstance(solver, Solver):
        raise ValueError(f"{who} is no solver: derive it from seedsbench.solvers.Solver")
    for name, types in {**expected, "weak_order": (int, type(None))}.items():
        try:
            value = getattr(solver, name)
        except NotImplementedError as error:
            raise ValueError(f"{who} has no {name}: write `{name} = 1`, if that is its order") from error
        if type(value) not in types:
            raise ValueError(f"{who}: {name}={value!r} must be of type {types[0].__name__}")
    costs = [solver.nfe(n) for n in (1, 2)]
    if not (all(type(cost) is int for cost in costs) and 0 <= costs[0] < costs[1]):
        raise ValueError(f"{who}: nfe(1), nfe(2) are {costs}: expected the evaluations of so many steps")


@dataclass(frozen=True)
class Unscaled(Solver):
    """A solver whose rule is written for x = data + sigma noise, whatever the schedule: `advance`.

    The schedule's scaling is taken off before it and put back after.
    """

    @abstractmethod
    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """From x at sigma to sigma_next, x unscaled on both sides. Evaluates `process.predict(x, sigma)`."""

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        schedule = process.schedule
        sigma, sigma_next = schedule.sigma(t), schedule.sigma(t_next)
        x = x / expand(schedule.scale_at(sigma), x)
        result = self.advance(process, x, sigma, sigma_next, state, noise)
        return StepResult(result.x * expand(schedule.scale_at(sigma_next), x), result.state)


@dataclass(frozen=True)
class OneStage(Unscaled):
    """One evaluation a step, at its start: a subclass writes `update`."""

    @abstractmethod
    def update(
        self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """From x at sigma, whose denoised image is given, to sigma_next; x unscaled on both sides."""

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        return self.update(x, process.predict(x, sigma), sigma, sigma_next, state, noise)
