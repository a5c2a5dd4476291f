"""Solvers that choose their own steps, each sample for itself, within a budget of trial steps.

The error of a trial step, in units of the tolerance, decides whether the sample moves and how long its next
trial is. Lengths are measured in the solver's clock (time, or lambda). Only samples that have not arrived are
evaluated and counted. Of the grid only the ends matter; n_steps is the most trials of a sample.

Budget: with m trials left and the length L still to go, a trial is never shorter than L/m, and one of that
length is accepted whatever its error. With enough budget this never acts.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.checks import PositiveShare, Range, named
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, check_like, expand
from seedsbench.exact.same_bits import tree_sum
from seedsbench.solvers.base import Solver, StepResult

Memory = dict[str, Tensor]  # what a method remembers of each sample: tensors whose first axis is the batch
RelativeTolerance = Annotated[float, Range(0, 0.5)]
NO_TOLERANCE = 1e-100  # every step fails, so that all have the smallest length: L / n_steps


@dataclass(frozen=True)
class Leg:
    """A step that n samples try, from clock reading now (n,) to then (n,).

    rows: (n,) their places in the batch. z: (n, ...) standard normals of this trial, None without noise.
    """

    rows: Tensor
    now: Tensor
    then: Tensor
    z: Tensor | None


@dataclass(frozen=True)
class Trial:
    """One trial step of n samples. x: (n, ...) where each arrives, if accepted; error: (n,), 1 is tolerable.

    accepted, rejected: the entries of a sample's memory that change in either case.
    """

    x: Tensor
    error: Tensor
    accepted: Memory
    rejected: Memory


@dataclass(frozen=True)
class AdaptiveSolver(Solver):
    """rtol, atol: relative and absolute tolerance of a step, of data in [-1, 1].

    norms: "per_sample" takes the mean square of an error over a sample's own elements, so that its path
    does not depend on its neighbours; "batch" over all samples, which then share every step, as public
    implementations do.
    without_noise: steps are uniform in the solver's clock, so that exactly n_steps are taken.
    """

    family: ClassVar[str] = "adaptive"
    adaptive: ClassVar[bool] = True
    without_noise: ClassVar[dict[str, Any]] = {"rtol": NO_TOLERANCE, "atol": NO_TOLERANCE}
    rtol: RelativeTolerance
    atol: PositiveShare
    norms: Literal["per_sample", "batch"] = "per_sample"

    @property
    def shortens_proposal(self) -> bool:
        """Whether `control` scales the length proposed, even where the end of the way cut the step short."""
        return False

    def clock(self, process: Process, t: Tensor) -> Tensor:
        """The reading at time t of the clock in which steps are measured; any monotone one."""
        return t

    @abstractmethod
    def begin(self, process: Process, x: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Memory]:
        """Length (B,) of each sample's first trial, and its memory. start, end: (B,) clock readings."""

    @abstractmethod
    def trial(self, process: Process, x: Tensor, leg: Leg, memory: Memory) -> Trial:
        """Try a step from x (n, ...), scaled. Everything is of the n samples of the leg, memory too."""

    @abstractmethod
    def control(self, trial: Trial, memory: Memory) -> tuple[Tensor, Tensor]:
        """(accept, factor), both (n,): whether to move, and the next length as a multiple of this one."""

    def solve(self, process: Process, x: Tensor, times: Tensor, noise: Noise) -> Iterator[Tensor]:
        """Yield the state of the batch after each trial, until every sample has arrived at times[-1].

        The path is computed in float64 whatever x's type: tolerances are near the resolution of float32.
        """
        dtype, trials = x.dtype, len(times) - 1
        start, end = (self.clock(process, t).to(x.device).expand(len(x)) for t in (times[0], times[-1]))
        x, now = x.double(), start.clone()
        length, memory = self.begin(process, x, start, end)
        length = length.clone()
        for left in range(trials, 0, -1):
            rows = (now != end).nonzero().flatten()
            if len(rows) == 0:
                return
            here, goal = now[rows], end[rows]
            gap = (goal - here).abs()
            smallest = gap / left
            proposal = length[rows].maximum(smallest)
            step = proposal.minimum(gap)
            then = torch.where(step < gap, here + (goal - here).sign() * step, goal)
            known = {name: value[rows] for name, value in memory.items()}
            # Drawn for the whole batch, so that draw i is a sample's i-th trial.
            leg = Leg(rows, here, then, noise.normal()[rows].double() if self.stochastic else None)
            tried, who = x[rows], f"in {process.place}, {named(self)}"
            trial = self.trial(process, tried, leg, known)
            check_like(trial.x, tried, who, dtype=x.dtype)
            check_like(trial.error, here, f"{who} as error", dtype=x.dtype)
            accept, factor = self.control(trial, known)
            accept = accept | (step <= smallest)
            moved = rows[accept]
            x = x.clone()  # the state yielded before belongs to the caller
            x[moved], now[moved] = trial.x[accept], then[accept]
            length[rows] = (proposal if self.shortens_proposal else step) * factor
            for name, value in trial.accepted.items():
                kept = trial.rejected.get(name, known[name])
                memory[name] = memory[name].index_put((rows,), torch.where(expand(accept, kept), value, kept))
            yield x.to(dtype)

    def mean_square_root(self, error: Tensor) -> Tensor:
        """(n,) root of the mean square of (n, ...) over the elements of each sample, or of all of them."""
        squares = error.flatten(1).square()
        mean = tree_sum(squares) / squares.shape[1]
        return (mean.mean().expand_as(mean) if self.norms == "batch" else mean).sqrt()

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> StepResult:
        """Not used: the loop calls `solve`."""
        raise NotImplementedError(f"{type(self).__name__} chooses its own steps: call solve")
