"""A solver driven from outside, one network evaluation at a time: record and replay.

A solver's `step` calls its network; a scheduler's is called by the one who calls it. So a step is run from
its beginning with the network outputs there are. Where it asks for one more, the run stops, and the point
it asked for is where the network is evaluated next. The random numbers of a step are drawn once and handed
out again.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from seedsbench.checks import named
from seedsbench.diffusion.noise import FromNormals, Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Final, Solver, StepResult, Unscaled, check_final

PROBE = (1, 1, 1, 1)
Rounding = Callable[[Tensor], Tensor]


def check_replayable(solver: Solver) -> None:
    """Raise ValueError for a solver whose evaluations cannot be foretold."""
    if solver.adaptive:
        raise ValueError(
            f"{named(solver)} chooses its steps by the image at hand, and a scheduler must know its "
            "timesteps beforehand: use a solver with fixed steps, or seedsbench.sample"
        )


class _Missing(Exception):
    """The step asks for the denoised image of x (unscaled) at sigma, which is not there yet."""

    def __init__(self, x: Tensor, sigma: Tensor) -> None:
        self.x, self.sigma = x, sigma


class _Replay(Process):
    """A process that hands out the denoised images given so far, in order, and then raises `_Missing`.

    Nothing is counted: replays would be, too.
    """

    def __init__(self, round_sigma: Rounding, schedule: Schedule, batch: int) -> None:
        super().__init__(None, schedule, batch)
        self._round, self.given, self._next = round_sigma, [], 0

    def rewind(self) -> None:
        self._next = 0

    def predict(self, x: Tensor, sigma: Tensor, rows: Tensor | None = None) -> Tensor:
        if self._next == len(self.given):
            raise _Missing(x, sigma)
        self._next += 1
        return self.given[self._next - 1]

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self._round(sigma)


class _Drawn:
    """A noise whose draws since `forget` are handed out again after `rewind`."""

    def __init__(self, noise: Noise) -> None:
        self._noise, self._drawn, self._next = noise, [], 0

    def forget(self) -> None:
        self._drawn, self._next = [], 0

    def rewind(self) -> None:
        self._next = 0

    def normal(self) -> Tensor:
        return self._draw(self._noise.normal)

    def increment(self, q0: Tensor, q1: Tensor) -> Tensor:
        return self._draw(lambda: self._noise.increment(q0, q1))

    def _draw(self, draw: Callable[[], Tensor]) -> Tensor:
        if self._next == len(self._drawn):
            self._drawn.append(draw())
        self._next += 1
        return self._drawn[self._next - 1]


class _Probe(FromNormals):
    """A denoiser and a noise for a run on one pixel: it notes the points at which it is asked."""

    def __init__(self, round_sigma: Rounding) -> None:
        self.round_sigma, self.asked = round_sigma, []

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        self.asked.append((x, sigma))
        return x / 2

    def normal(self) -> Tensor:
        return torch.ones(PROBE, dtype=torch.float64)


@dataclass(frozen=True)
class Path:
    """The evaluations of a run.

    sigmas: (n,) float64, the noise level of each, decreasing or not. Of each step, and of the end of the
    run: starts, the number of its first evaluation; at_start, whether that is of the state it begins with
    (not so after churn); states, the solver's.
    """

    sigmas: Tensor
    starts: tuple[int, ...]
    at_start: tuple[bool, ...]
    states: tuple[Any, ...]


def recorded(solver: Solver, schedule: Schedule, times: Tensor, final: Final, round_sigma: Rounding) -> Path:
    """The path of a run over these (n_steps + 1) times, from a run on one pixel.

    Raises ValueError for an adaptive solver and for what the solver cannot do on the schedule.
    """
    check_replayable(solver)
    check_final(final)
    probe = _Probe(round_sigma)
    process, x = Process(probe, schedule, 1), torch.ones(PROBE, dtype=torch.float64)
    state = solver.init(process, x, times)
    starts, begun = [], []
    for t, t_next in itertools.pairwise(times):
        starts.append(len(probe.asked))
        begun.append((x, t, state))
        result = solver.step(process, x, t, t_next, state, probe)
        x, state = result.x, result.state
    starts.append(len(probe.asked))
    begun.append((x, times[-1], state))
    if final != "stop":
        _end(solver, process, x, times[-1], state, probe, final)
    asked = [probe.asked[i] if i < len(probe.asked) else None for i in starts]
    at_start = [_is_at(point, x, t, schedule) for point, (x, t, _) in zip(asked, begun, strict=True)]
    sigmas = torch.stack([sigma for _, sigma in probe.asked])
    return Path(sigmas, tuple(starts), tuple(at_start), tuple(state for *_, state in begun))


def _is_at(point: tuple[Tensor, Tensor] | None, x: Tensor, t: Tensor, schedule: Schedule) -> bool:
    """Whether a point (unscaled) is the scaled state x at time t."""
    if point is None:
        return False
    sigma = schedule.sigma(t)
    same = torch.allclose(point[0] * schedule.scale_at(sigma), x, rtol=1e-12, atol=0)
    return same and torch.allclose(point[1], sigma, rtol=1e-12, atol=0)


def _end(
    solver: Solver, process: Process, x: Tensor, t: Tensor, state: Any, noise: Noise, final: Final
) -> Tensor:
    """The sample that the run's last state leads to, as `integrate` ends."""
    x, t = solver.before_final(process, x, t, state, noise)
    if final == "euler":
        return x - expand(t, x) * process.drift(x, t)
    return solver.final_sample(process, x, t, process.denoise(x, t), state, noise)


def is_unscaled(solver: Solver) -> TypeGuard[Unscaled]:
    """Whether its step is its `advance` with the schedule's scaling around it, and nothing else."""
    return isinstance(solver, Unscaled) and type(solver).step is Unscaled.step


def keeps_images(state: Any) -> bool:
    """Whether a solver's state has an image in it: a state that does belongs to one run alone."""
    if isinstance(state, Tensor):
        return state.ndim >= len(PROBE)
    if is_dataclass(state):
        state = [getattr(state, field.name) for field in fields(state)]
    return isinstance(state, (list, tuple)) and any(map(keeps_images, state))


class Run:
    """One run of a fixed-step solver, which waits for the denoised image at each point it asks for.

    schedule, times, final: as in `seedsbench.solvers.integrate`. at_start: `Path.at_start` of these times. x:
    (B, C, H, W), unscaled, float64 or float32: the state at the *first evaluation*, which is that at times[0]
    unless the solver begins with noise (churn). noise: of x's type. state: the solver's, at times[0]; None:
    what its `init` makes.

    x: the point asked for, unscaled; sigma: () float64, its noise level. Once the run is over sigma is None
    and x is the sample, as `final` leaves it.
    """

    def __init__(
        self,
        solver: Solver,
        schedule: Schedule,
        times: Tensor,
        final: Final,
        at_start: Sequence[bool],
        round_sigma: Rounding,
        x: Tensor,
        noise: Noise,
        state: Any = None,
    ) -> None:
        self._solver, self._at_start = solver, at_start
        self._final: Final = final
        self._process = _Replay(round_sigma, schedule, len(x))
        self._noise, self._taken = _Drawn(noise), 0
        self._times, sigmas = times.unbind(), schedule.sigma(times)
        self._sigmas, self._scales = sigmas.unbind(), schedule.scale_at(sigmas).unbind()
        # A rule for unscaled states is called without the scaling around it.
        self._rule = solver.advance if is_unscaled(solver) else None
        start = x * expand(self._scales[0], x)
        self._state = solver.init(self._process, start, times) if state is None else state
        self._start = start if self._rule is None else x
        self.x, self.sigma = x, None
        self._ask()
        self.move_to(x)

    def answer(self, denoised: Tensor) -> None:
        """Go on to the next point with the denoised image, of the type of x, at the present one."""
        self._process.given.append(denoised)
        self._ask()

    def move_to(self, x: Tensor) -> None:
        """Take the present point to x. It moves the state if the step is at its first evaluation.

        Later in a step only the point moves: the step has begun elsewhere and ends from there.
        """
        if not self._process.given and self.sigma is not None:
            # Noise that the step adds before it evaluates stays as drawn: what it is added to moves.
            change = x if self._at_start[self._taken] else x - self.x
            scaled = change if self._rule else change * expand(self._scales[self._taken], x)
            self._start = scaled if self._at_start[self._taken] else self._start + scaled
        self.x = x

    def _ask(self) -> None:
        """Replay the step from its beginning, and go on, until an answer is missing."""
        try:
            while self._taken < len(self._times) - 1:
                if self._waits_at_start():
                    return
                result = self._step(self._taken)
                self._taken += 1
                self._start, self._state = result.x, result.state
                self._process.given = []
                self._noise.forget()
            if self._final == "stop":
                self.x, self.sigma = self._scaled_start(), None
            elif not self._waits_at_start():
                given = self._process, self._scaled_start(), self._times[-1], self._state, self._noise
                self.x, self.sigma = _end(self._solver, *given, final=self._final), None
        except _Missing as missing:
            self.x, self.sigma = missing.x, missing.sigma

    def _step(self, i: int) -> StepResult:
        if self._rule is not None:
            levels = self._sigmas[i], self._sigmas[i + 1]
            return self._rule(self._process, self._start, *levels, self._state, self._noise)
        times = self._times[i], self._times[i + 1]
        return self._solver.step(self._process, self._start, *times, self._state, self._noise)

    def _scaled_start(self) -> Tensor:
        scale = expand(self._scales[self._taken], self._start)
        return self._start if self._rule is None else self._start * scale

    def _waits_at_start(self) -> bool:
        """Go back to the beginning of the step; whether it is known to wait there for its first answer."""
        self._process.rewind()
        self._noise.rewind()
        if self._process.given or not self._at_start[self._taken]:
            return False
        scale = expand(self._scales[self._taken], self._start)
        self.x = self._start if self._rule else self._start / scale
        self.sigma = self._sigmas[self._taken]
        return True
