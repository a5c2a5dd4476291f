"""The path that a sample would have followed with far more evaluations, from its own latents and labels.

An ODE has one solution: all ODE solvers are held against the same, found by a multistep solver of order 3
between the cell's first and last noise level, on EDM's grid there. An SDE has one for each Brownian path, and
its samples follow that in their solver's own clock: they are held against the same solver with more steps,
whose levels contain the cell's. The evaluations of either are no part of the cell's NFE.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seedsbench import registry
from seedsbench.diffusion.grid import EDM
from seedsbench.diffusion.noise import Silent
from seedsbench.diffusion.path import BrownianPath, NoPathError
from seedsbench.diffusion.process import Process, analytic
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Final, Solver
from seedsbench.solvers.integrate import integrate

ODE_SOLVER = "dpmpp_3m"
"""At 256 evaluations within 4e-6 of the solution, on the mixture and on the glyphs' networks; RK4: 3e-5."""
TOO_NEAR = 4
"""An ODE solver with a larger share than 1 / TOO_NEAR of the solution's evaluations gets a warning."""


@dataclass(frozen=True)
class PathRule:
    """How exact paths are found: the ODE's in `fine` calls of the denoiser, an SDE's in `refine` steps for
    each of the cell's."""

    fine: int
    refine: int

    def evaluations(self, solver: Solver, nfe: int) -> int:
        """What the exact path of a sample costs beside the solver's nfe, about."""
        return self.refine * nfe if solver.stochastic else self.fine


@dataclass(frozen=True)
class ExactPath:
    """A run that stands for the exact path: its solver and its (n + 1,) noise levels.

    refine: its steps for one of the cell's, along the same Brownian path; None for an ODE. notes: what a
    reader should know, a sentence each.
    """

    solver: Solver
    sigmas: Tensor
    refine: int | None = None
    notes: tuple[str, ...] = ()


def exact_path(
    rule: PathRule, solver: Solver, sigmas: Tensor, schedule: Schedule, denoiser: Any, final: Final
) -> ExactPath:
    """The exact path of a cell's solver on its (n + 1,) noise levels, with its fitted schedule.

    Raises NoPathError, in one line, for a stochastic solver of fresh normals, or of steps of its own choice.
    """
    if solver.stochastic:
        _check_path(solver, sigmas, schedule, final)
        return ExactPath(solver, refined(sigmas, rule.refine), rule.refine)
    reference: Solver = registry.build(
        registry.configured("solver", ODE_SOLVER, lower_order_final=False, denoise_to_zero=final != "stop")
    )
    n_steps = reference.steps_for(rule.fine, final)
    high, low = sigmas[0], sigmas[-1]
    levels = EDM().levels(n_steps + 1, float(low), float(high), schedule)
    levels = torch.unique_consecutive(Process(denoiser, schedule, 0).round_sigma(levels))
    inner = levels[(levels < high) & (levels > low)]
    own, notes = solver.total_nfe(len(sigmas) - 1, final), ()
    if TOO_NEAR * own > rule.fine:
        told = f"the exact path has {rule.fine} evaluations, less than {TOO_NEAR} times the solver's {own}"
        notes = (f"{told}: small distances may be its own error, set metrics.fine={2 * TOO_NEAR * own}",)
    return ExactPath(reference, torch.cat((high[None], inner, low[None])), notes=notes)


def refined(sigmas: Tensor, refine: int) -> Tensor:
    """(refine n + 1,) levels that contain the n + 1 given ones, uniform in log sigma from one to the next."""
    shares = torch.arange(refine, dtype=sigmas.dtype) / refine
    between = sigmas[:-1, None] * (sigmas[1:] / sigmas[:-1])[:, None] ** shares
    return torch.cat((between.flatten(), sigmas[-1:]))


def side_by_side(
    own: Iterator[Tensor], exact: Iterator[Tensor], n_steps: int, refine: int, path: BrownianPath
) -> tuple[Tensor, Tensor]:
    """The finished samples of two runs of `integrate` along one path: each of the n_steps of the one, then
    `refine` of the other, so that no more of the path is remembered than a step's."""
    next(own)
    next(exact)
    for _ in range(n_steps):
        next(own)
        for _ in range(refine):
            next(exact)
        path.forget()
    return finished(own), finished(exact)


def finished(states: Iterator[Tensor]) -> Tensor:
    """The last of a run's states."""
    return deque(states, maxlen=1)[0]


def _check_path(solver: Solver, sigmas: Tensor, schedule: Schedule, final: Final) -> None:
    """Raise NoPathError for a solver without a path: by a rehearsal on one number, without the network."""
    start, times = torch.ones(1, 1, 1, 1, dtype=torch.float64), schedule.sigma_inv(sigmas)
    silent = Silent(start.shape)
    process = Process(lambda x, sigma, labels: analytic(x, sigma), schedule, 1)
    try:
        if solver.adaptive:
            raise NoPathError("this solver has noise and steps of its own choice: it follows no path")
        finished(integrate(process, solver, start, times, BrownianPath(silent, silent), final))
    except NoPathError as error:
        raise NoPathError(f"metrics=trajectory: {error}. Take another solver or metrics") from error
