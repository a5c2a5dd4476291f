"""The loop that every sampler shares: steps, the end of the path, checks, the evaluation count."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from seedsbench.checks import named
from seedsbench.diffusion.noise import Noise, Silent
from seedsbench.diffusion.process import Process, analytic, check_like, evaluations_at, expand
from seedsbench.solvers.base import BudgetError, Final, Solver, StepResult
from seedsbench.solvers.parts.adaptive import AdaptiveSolver


class NonFiniteError(ArithmeticError):
    """A state became NaN or infinite; the message names the step and the noise level."""


def integrate(
    process: Process, solver: Solver, latents: Tensor, times: Tensor, noise: Noise, final: Final
) -> Iterator[Tensor]:
    """Yield the state at each of the (n_steps + 1) times, then the finished sample.

    An adaptive solver takes steps of its own between the first and the last time, at most n_steps
    trials for each sample; its states are yielded after each trial.

    latents: (B, C, H, W) standard normal. times: decreasing, of positive noise level. final says how the last
    level is left: "denoise" returns D; "euler" takes one Euler step of the probability-flow ODE to t = 0 in
    the schedule's coordinates; "stop" returns the (scaled) state as it is. States are in the schedule's
    scaled coordinates. Raises ValueError, naming solver and step, for a result that has not the shape, type
    and device of the state; NonFiniteError, naming step and sigma, at once on the CPU and in place of the
    finished sample on a GPU; RuntimeError if the evaluations counted are not those that the solver promised:
    one more is refused before it is made.
    """
    n_steps, checks = len(times) - 1, _Checks(process, solver)
    process.allow(promise(process, solver, latents, times, final), named(solver))
    sigma = process.schedule.sigma(times[0])
    x = latents * expand(sigma * process.schedule.scale_at(sigma), latents)
    state = solver.init(process, x, times)
    if isinstance(solver, AdaptiveSolver):
        process.place = "adaptive step 1"
        for i, result in enumerate(solver.solve(process, x, times, noise), 1):
            yield x
            x = checks.add(result, x, times[0])
            checks.settle()  # its solver waits for the device in each trial anyway
            process.place = f"adaptive step {i + 1}"
        yield x
    else:
        for i in range(n_steps):
            yield x
            process.place = f"step {i + 1} of {n_steps}"
            result = solver.step(process, x, times[i], times[i + 1], state, noise)
            if not isinstance(result, StepResult):
                found = f"in {process.place}, {named(solver)} returned {type(result).__name__}"
                raise ValueError(f"{found}, expected a StepResult: return StepResult(x, state)")
            x, state = checks.add(result.x, x, times[i]), result.state
        yield x
    if final != "stop":
        process.place = f"the final step ({final})"
        before, (x, t) = x, solver.before_final(process, x, times[-1], state, noise)
        if final == "euler":
            x = x - expand(t, x) * process.drift(x, t)
        else:
            x = solver.final_sample(process, x, t, process.denoise(x, t), state, noise)
        checks.add(x, before, times[-1])
    checks.settle()
    _check_promise(solver, n_steps, process, final)
    yield x


def promise(process: Process, solver: Solver, latents: Tensor, times: Tensor, final: Final) -> int:
    """Network evaluations that a run of `integrate` costs each sample; of an adaptive solver the most.

    Where an evaluation costs more at some noise levels than at others (guidance within an interval), the
    levels are found by a rehearsal: one sample's run without the network. (They do not depend on the state.)
    """
    total = solver.total_nfe(len(times) - 1, final, afs=process.afs)
    differs = isinstance(evaluations_at(process.denoiser, process.schedule.sigma(times)), Tensor)
    if solver.adaptive or not differs:
        return total * process.cost
    rehearsed = _Rehearsed(process.denoiser)
    start = torch.ones_like(latents[:1], device="cpu")
    run, noise = Process(rehearsed, process.schedule, 1, afs=process.afs), Silent(start.shape, start.dtype)
    deque(integrate(run, solver, start, times, noise, final), maxlen=0)
    return rehearsed.cost


class _Rehearsed:
    """In place of a denoiser: unit-variance data. cost: what the evaluations so far would have cost it."""

    def __init__(self, denoiser: Any) -> None:
        self._denoiser, self.cost = denoiser, 0
        self.round_sigma = getattr(denoiser, "round_sigma", lambda sigma: sigma)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        self.cost += int(evaluations_at(self._denoiser, sigma))
        return analytic(x, sigma)


def most_steps(
    budget: int,
    solver: Solver,
    cost: Callable[[int], int],
    first: int,
    *,
    dearest: int,
    fixed: bool = False,
) -> int:
    """The most steps, `first` at most (if fixed, no fewer), whose cost(n_steps) is within the budget.

    cost: evaluations of a whole run. Runs of more steps have other noise levels, so it may rise unevenly.
    dearest: the most evaluations that one call of the denoiser costs.
    Raises BudgetError, with the smallest budget that works, if none fits.
    """
    # A step less saves at most this, and twice as much again where the levels left come to lie elsewhere.
    n_steps, step = first, dearest * max(solver.nfe(1), solver.nfe(2) - solver.nfe(1))
    while n_steps > 0 and (excess := cost(n_steps) - budget) > 0:
        n_steps -= n_steps if fixed else max(1, excess // step - 2)
    if n_steps > 0:
        return n_steps
    what = f"not the {first} steps of the explicit grid" if fixed else "no step"
    smallest = cost(first) if fixed else min(map(cost, (1, 2, 3)))
    raise BudgetError(
        f"nfe={budget} fits {what} of {named(solver)} with a denoiser of several evaluations a call "
        f"(guidance): the smallest budget that works is {smallest}"
    )


class _Checks:
    """Checks that a solver's states keep their shape and type and are finite.

    The latter at once on the CPU, elsewhere at `settle`: to ask a GPU is to wait until it has nothing to do.
    """

    def __init__(self, process: Process, solver: Solver) -> None:
        self._process, self._who = process, named(solver)
        self._asked: list[tuple[Tensor, str, Tensor]] = []

    def add(self, found: Tensor, before: Tensor, t: Tensor) -> Tensor:
        """The state `found` after the step that process.place names, which led from `before` at time t."""
        where = self._process.place
        x = check_like(found, before, f"in {where}, {self._who}", dtype=before.dtype)
        self._asked.append((x.isfinite().flatten(1).all(1), where, t))
        if x.device.type == "cpu":
            self.settle()
        return x

    def settle(self) -> None:
        """Raise NonFiniteError for the first of the states added since the last call that is not finite."""
        asked, self._asked = self._asked, []
        if not asked:
            return
        finite = torch.stack([samples for samples, _, _ in asked]).cpu()
        if bool(finite.all()):
            return
        samples, (_, where, t) = next(pair for pair in zip(finite, asked, strict=True) if not pair[0].all())
        sigma = float(self._process.schedule.sigma(t).max())
        raise NonFiniteError(
            f"{int((~samples).sum())} of {len(samples)} samples became non-finite in {where}, leaving "
            f"sigma={sigma:.6g}: the network or the solver returned NaN or infinity there"
        )


def _check_promise(solver: Solver, n_steps: int, process: Process, final: Final) -> None:
    promised = process.allowed
    if not (isinstance(solver, AdaptiveSolver) or bool((process.nfe == promised).all())):
        raise RuntimeError(
            f"{named(solver)} promises {promised} network evaluations for {n_steps} steps and "
            f"final={final}, but {process.nfe.min()}..{process.nfe.max()} were counted: correct its nfe()"
        )
