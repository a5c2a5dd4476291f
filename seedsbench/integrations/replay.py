"""A solver driven from outside, one network evaluation at a time: record and replay.

A solver's `step` calls its network; a scheduler's is called by the one who calls it. So a step is run from
its beginning with the network outputs there are. Where it asks for one more, the run stops, and the point
it asked for is where the network is evaluated next. The random numbers of a step are drawn once and handed
out again.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from seedsbench.checks import named
from seedsbench.diffusion.noise import Noise, Silent
from seedsbench.diffusion.process import Process, expand
from seedsbench.diffusion.schedule import Schedule
from seedsbench.solvers.base import Final, Solver, StepResult, check_final

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


class _Answers:
    """The denoiser of a replay: denoised images given so far, in order; then `_Missing`."""

    def __init__(self, round_sigma: Rounding) -> None:
        self.round_sigma, self.given, self._next = round_sigma, [], 0

    def rewind(self) -> None:
        self._next = 0

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        if self._next == len(self.given):
            raise _Missing(x, sigma)
        self._next += 1
        return self.given[self._next - 1]


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


class _Probe:
    """A denoiser of black images that notes the noise levels at which it is asked."""

    def __init__(self, round_sigma: Rounding) -> None:
        self.round_sigma, self.asked = round_sigma, []

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        self.asked.append(sigma)
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Path:
    """The evaluations of a run.

    sigmas: (n,) float64, the noise level of each, decreasing or not. starts: the number of the first
    evaluation of each step, then that of the end of the run. states: the solver's state at each of these.
    """

    sigmas: Tensor
    starts: tuple[int, ...]
    states: tuple[Any, ...]


def recorded(solver: Solver, schedule: Schedule, times: Tensor, final: Final, round_sigma: Rounding) -> Path:
    """The path of a run over these (n_steps + 1) times, from a run on one black pixel.

    Raises ValueError for an adaptive solver and for what the solver cannot do on the schedule.
    """
    check_replayable(solver)
    check_final(final)
    probe, noise = _Probe(round_sigma), Silent(PROBE)
    process, x = Process(probe, schedule, 1), torch.zeros(PROBE, dtype=torch.float64)
    state, starts, states = solver.init(process, x, times), [], []
    for t, t_next in itertools.pairwise(times):
        starts.append(len(probe.asked))
        states.append(state)
        result = solver.step(process, x, t, t_next, state, noise)
        x, state = result.x, result.state
    starts.append(len(probe.asked))
    states.append(state)
    if final != "stop":
        _end(solver, process, x, times[-1], state, noise, final)
    return Path(torch.stack(probe.asked), tuple(starts), tuple(states))


def _end(
    solver: Solver, process: Process, x: Tensor, t: Tensor, state: Any, noise: Noise, final: Final
) -> Tensor:
    """The sample that the run's last state leads to, as `integrate` ends."""
    x, t = solver.before_final(process, x, t, state, noise)
    if final == "euler":
        return x - expand(t, x) * process.drift(x, t)
    return solver.final_sample(process, x, t, process.denoise(x, t), state, noise)


def holds_images(state: Any) -> bool:
    """Whether a solver's state has an image in it: a state that does belongs to one run alone."""
    if isinstance(state, Tensor):
        return state.ndim >= len(PROBE)
    if is_dataclass(state):
        state = [getattr(state, field.name) for field in fields(state)]
    return isinstance(state, (list, tuple)) and any(map(holds_images, state))


class Run:
    """One run of a fixed-step solver, which waits for the denoised image at each point it asks for.

    schedule, times, final: as in `seedsbench.solvers.integrate`. x: (B, C, H, W), scaled, float64 or
    float32: the state at the *first evaluation*, which is that at times[0] unless the solver begins with
    noise (churn). noise: of x's type. state: the solver's, at times[0]; None: what its `init` makes.

    sigma: () float64, the noise level of the point asked for. x: that point, unscaled. Once the run is over
    sigma is None and x is the sample, as `final` leaves it.
    """

    def __init__(
        self,
        solver: Solver,
        schedule: Schedule,
        times: Tensor,
        final: Final,
        round_sigma: Rounding,
        x: Tensor,
        noise: Noise,
        state: Any = None,
    ) -> None:
        self._solver, self._times = solver, times
        self._final: Final = final
        self._answers, self._noise, self._taken = _Answers(round_sigma), _Drawn(noise), 0
        self._process = Process(self._answers, schedule, len(x))
        self._state = solver.init(self._process, x, times) if state is None else state
        self._start, self.x = x, x
        self.sigma: Tensor | None = None
        self._go_on()
        if self.sigma is not None:
            self.move_to(x / expand(schedule.scale_at(self.sigma), x))

    def answer(self, denoised: Tensor) -> None:
        """Go on to the next point with the denoised image, of the type of x, at the present one."""
        self._answers.given.append(denoised)
        self._go_on()

    def move_to(self, x: Tensor) -> None:
        """Take the present point, unscaled, to x. It moves the state if the step is at its first evaluation.

        Later in a step only the point moves: the step has begun elsewhere and ends from there.
        """
        if not self._answers.given and self.sigma is not None:
            schedule, t = self._process.schedule, self._times[self._taken]
            sigma = schedule.sigma(t)
            # Noise that the step adds before it evaluates stays as drawn: what moves is what it is added to.
            before = self._start / expand(schedule.scale_at(sigma), x)
            moved = x if bool(self.sigma == sigma) else before + (x - self.x)
            self._start = moved * expand(schedule.scale_at(sigma), x)
        self.x = x

    def _go_on(self) -> None:
        """Replay the step from its beginning, and those after it, until an answer is missing."""
        try:
            while self._taken < len(self._times) - 1:
                result = self._step()
                self._taken += 1
                self._start, self._state = result.x, result.state
                self._answers.given = []
                self._noise.forget()
            self._rewind()
            last = self._times[-1]
            self.x, self.sigma = self._start, None
            if self._final != "stop":
                given = self._process, self._start, last, self._state, self._noise
                self.x = _end(self._solver, *given, final=self._final)
        except _Missing as missing:
            self.x, self.sigma = missing.x, missing.sigma

    def _rewind(self) -> None:
        self._answers.rewind()
        self._noise.rewind()

    def _step(self) -> StepResult:
        self._rewind()
        t, t_next = self._times[self._taken], self._times[self._taken + 1]
        return self._solver.step(self._process, self._start, t, t_next, self._state, self._noise)
