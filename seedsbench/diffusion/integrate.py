"""The fixed-step loop: steps, the end of the path, the finiteness check and the evaluation count.

Everything that every sampler would otherwise repeat lives here once; solvers hold only the method.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand


class Method(Protocol):
    """What the loop needs of a solver (seedsbench.solvers.base.Solver says what each part means)."""

    def init(self, process: Process, x: Tensor, times: Tensor) -> Any: ...

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: Any, noise: Noise
    ) -> Any: ...

    def finish(
        self, process: Process, x: Tensor, t: Tensor, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor]: ...

    def land(
        self, process: Process, x: Tensor, t: Tensor, denoised: Tensor, state: Any, noise: Noise
    ) -> Tensor: ...

    def total_nfe(self, n_steps: int, final: Any = ..., *, afs: bool = ...) -> int: ...


@runtime_checkable
class Adaptive(Protocol):
    """A solver that chooses its own steps (seedsbench.solvers.adaptive.AdaptiveSolver)."""

    def solve(self, process: Process, x: Tensor, times: Tensor, noise: Noise) -> Iterator[Tensor]: ...


class NonFiniteError(ArithmeticError):
    """A state became NaN or infinite; the message names the step and the noise level."""


def starting_point(process: Process, latents: Tensor, t: Tensor) -> Tensor:
    """s(t) sigma(t) z: the state at the first time for standard normal latents z."""
    sigma = process.schedule.sigma(t)
    return latents * expand(sigma * process.schedule.scale_at(sigma), latents)


def integrate(
    process: Process, solver: Method, latents: Tensor, times: Tensor, noise: Noise, final: str
) -> Iterator[Tensor]:
    """Yield the state at each of the (n_steps + 1) times, then the finished sample.

    An adaptive solver takes steps of its own between the first and the last time, at most n_steps
    trials for each sample; its states are yielded after each trial.

    latents: (B, C, H, W) standard normal. times: decreasing, of positive noise level. final says how
    the last level is left: "denoise" returns D; "euler" takes one Euler step of the probability-flow
    ODE to t = 0 in the schedule's coordinates; "stop" returns the (scaled) state as it is.
    States are in the schedule's scaled coordinates. Raises NonFiniteError naming step and sigma, and
    RuntimeError if the evaluations counted are not those the solver promised. Beside the host, on a GPU,
    the former comes in place of the finished sample, whichever the step.
    """
    n_steps, checks = len(times) - 1, _Checks(process)
    x = starting_point(process, latents, times[0])
    state = solver.init(process, x, times)
    if isinstance(solver, Adaptive):
        for result in solver.solve(process, x, times, noise):
            yield x
            x = result
            checks.add(x, "an adaptive step", times[0])
            checks.settle()  # its solver waits for the device in each trial anyway
        yield x
    else:
        for i in range(n_steps):
            yield x
            result = solver.step(process, x, times[i], times[i + 1], state, noise)
            x, state = result.x, result.state
            checks.add(x, f"step {i + 1} of {n_steps}", times[i])
        yield x
    if final != "stop":
        x, t = solver.finish(process, x, times[-1], state, noise)
        if final == "euler":
            x = x - expand(t, x) * process.drift(x, t)
        else:
            x = solver.land(process, x, t, process.denoise(x, t), state, noise)
        checks.add(x, f"the final step ({final})", times[-1])
    checks.settle()
    _check_promise(solver, n_steps, process, final)
    yield x


class _Checks:
    """Whether the states of a path are finite: asked at once on the CPU, and elsewhere at `settle`.

    To ask a GPU is to wait until it has nothing left to do, and the next step would then start from rest.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asked: list[tuple[Tensor, str, Tensor]] = []

    def add(self, x: Tensor, where: str, t: Tensor) -> None:
        """The state x (B, ...) after the step that `where` names, which left time t."""
        self._asked.append((x.isfinite().flatten(1).all(1), where, t))
        if x.device.type == "cpu":
            self.settle()

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


def _check_promise(solver: Method, n_steps: int, process: Process, final: str) -> None:
    promised = solver.total_nfe(n_steps, final, afs=process.afs) * process.cost
    kept = process.nfe <= promised if isinstance(solver, Adaptive) else process.nfe == promised
    if not bool(kept.all()):
        raise RuntimeError(
            f"{type(solver).__name__} promises {promised} network evaluations for {n_steps} steps and "
            f"final={final}, but {process.nfe.min()}..{process.nfe.max()} were counted: correct its nfe()"
        )


def snapped_levels(process: Process, sigmas: Tensor) -> Tensor:
    """Levels rounded to those the denoiser knows, repeats merged: a fine grid on a coarse table."""
    return torch.unique_consecutive(process.round_sigma(sigmas))
