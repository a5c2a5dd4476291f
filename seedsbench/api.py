"""The Python interface: `sample`, `solver`, `solver_names`, `load_denoiser`."""

import logging
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from seedsbench import registry
from seedsbench.checks import check_call
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.own import adapted
from seedsbench.diffusion.grid import Explicit, Grid, check_decreasing
from seedsbench.diffusion.noise import Noise, OfType, Philox
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Discrete, Schedule
from seedsbench.solvers.base import BudgetError, Final, Solver, check_final
from seedsbench.solvers.integrate import integrate, most_steps, promise

log = logging.getLogger(__name__)

Choice = str | Mapping[str, Any]
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    x: (B, C, H, W), the dtype asked for. nfe: (B,) int64, network evaluations counted.
    sigmas: (n_steps + 1,) float64 noise levels. trajectory: (n_steps + 2, B, C, H, W), the state (in the
    schedule's scaled coordinates) at each level and then x; None unless asked for. An adaptive solver's
    has the start, the state after each trial step, and x.
    """

    x: Tensor
    nfe: Tensor
    sigmas: Tensor
    trajectory: Tensor | None = None


def solver_names() -> list[str]:
    """Names of the configured solvers."""
    return registry.names("solver")


def solver(name: Choice, **overrides: Any) -> Solver:
    """A solver by its configuration's name, with options overridden: `solver("seeds3", c2=0.4)`.

    Raises ValueError, with the nearest names, for an unknown solver or option.
    """
    return registry.build(registry.configured("solver", name, **overrides))


def load_denoiser(path: str | Path, **hints: Any) -> Denoiser:
    """The denoiser in a checkpoint: D(x, sigma, labels), images in [-1, 1], float32, on the CPU.

    path: an EDM .pkl (read, never run), a diffusers folder, a score_sde .pth, a .ckpt of the DDIM authors, a
    guided-diffusion, torchcfm, DiT or SiT .pt, or our own .safetensors. hints: `format` where it cannot be
    told, and what a file does not say about itself: the keywords of the readers in
    `seedsbench.denoisers.checkpoints`.

    Raises FileNotFoundError, and ValueError in one line for a file that is damaged, refused or of another
    format, and for hints that are unknown, missing or do not fit.
    """
    from seedsbench.denoisers.checkpoints.formats import load_any

    return load_any(path, hints)


def as_trained(denoiser: Any, schedule: Schedule, grid: Grid) -> tuple[Schedule, Grid]:
    """Both, with what they leave to the network taken from it: its table of levels, its timesteps."""
    table, spacing = getattr(denoiser, "table", None), getattr(denoiser, "spacing", None)
    return schedule.of_network(table), grid.of_network(spacing)


def foreign_table(denoiser: Any, schedule: Schedule) -> str | None:
    """A sentence about a table of noise levels that is not the one the network was trained at, else None."""
    table = getattr(denoiser, "table", None)
    if table is None or not isinstance(schedule, Discrete) or not schedule.differs(table):
        return None
    used, own = (
        f"{len(log)} levels from {log[0].exp():.4g} to {log[-1].exp():.4g}"
        for log in (schedule.log_sigmas, table.log_sigmas)
    )
    return f"schedule=discrete was given {used}, the network was trained at {own}: its own are the default"


def noise_levels(
    denoiser: Any, schedule: Schedule, grid: Grid, n_steps: int, *, zero_snr: bool = False
) -> tuple[Tensor, Schedule]:
    """The (n_steps + 1) or fewer levels of a run and the schedule fitted to their range.

    A discrete schedule or grid that says nothing of its table or timesteps has the network's own.
    Levels are rounded to those the network was trained on, except an explicit list, which is literal.
    zero_snr: the solver's (Solver.zero_snr): whether a table that ends without signal starts in the limit.
    """
    schedule, grid = as_trained(denoiser, schedule, grid)
    low, high = grid.range(getattr(denoiser, "sigma_min", 0.0), getattr(denoiser, "sigma_max", float("inf")))
    in_limit = high > 1e14 if isinstance(grid, Explicit) else zero_snr
    fitted = (schedule if in_limit else schedule.short_of_limit()).through(low, high)
    sigmas = grid.levels(n_steps + 1, low, high, fitted)
    if not isinstance(grid, Explicit):
        sigmas = torch.unique_consecutive(Process(denoiser, fitted, 0).round_sigma(sigmas))
    check_decreasing(sigmas)
    return sigmas, fitted


def levels_within(
    budget: int,
    denoiser: Any,
    solver: Solver,
    schedule: Schedule,
    grid: Grid,
    final: Final,
    *,
    afs: bool = False,
) -> tuple[Tensor, Schedule]:
    """`noise_levels` of the most steps that cost a sample at most `budget` evaluations, the final included.

    Raises BudgetError, with the smallest budget that works, if not even one step fits.
    """
    own_steps, zero_snr = grid.own_steps, solver.zero_snr
    dearest = getattr(denoiser, "evaluations", 1)

    def cost(n_steps: int) -> int:
        levels = noise_levels(denoiser, schedule, grid, n_steps, zero_snr=zero_snr)
        return evaluations_of(denoiser, solver, *levels, final, afs=afs)

    try:
        n_steps = solver.steps_for(budget, final, afs=afs, own_steps=own_steps)
    except BudgetError:
        if dearest == 1:
            raise
        n_steps = own_steps or 1
    if dearest > 1:
        fixed = own_steps is not None
        n_steps = most_steps(budget, solver, cost, n_steps, dearest=dearest, fixed=fixed)
    return noise_levels(denoiser, schedule, grid, n_steps, zero_snr=zero_snr)


def evaluations_of(
    denoiser: Any, solver: Solver, sigmas: Tensor, schedule: Schedule, final: Final, *, afs: bool = False
) -> int:
    """Evaluations of a run over these levels: what it costs each sample, of an adaptive solver at most."""
    process, one = Process(denoiser, schedule, 0, afs=afs), torch.ones(1, *denoiser.image_shape).double()
    return promise(process, solver, one, schedule.sigma_inv(sigmas), final)


def sample(
    denoiser: Any,
    latents: Tensor,
    *,
    solver: Solver | Choice,
    nfe: int | None = None,
    steps: int | None = None,
    schedule: Schedule | Choice = "linear",
    grid: Grid | Choice = "edm",
    sigmas: Sequence[float] | Tensor | None = None,
    final: Final = "denoise",
    afs: bool = False,
    noise: Noise | None = None,
    seed: int = 0,
    indices: Tensor | Sequence[int] | None = None,
    labels: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    gradients: bool = False,
    return_trajectory: bool = False,
) -> Samples:
    """Draw samples: one solver, one path of noise levels, from given standard normal latents.

    A stochastic solver draws sample i's noise from (seed, indices[i]). Left at their defaults these are the
    same in every call, and so is the noise: in a loop, number the samples, as the latents' own counter does.

        for indices in torch.arange(50_000).split(256):
            z = seedsbench.noise.latents(indices, (3, 32, 32), seed=0)
            x = seedsbench.sample(denoiser, z, solver="seeds3", nfe=20, indices=indices).x

    denoiser: D(x, sigma, labels) -> E[data | x] on unscaled x; `sigma_min`, `sigma_max` and
        `round_sigma` are used if there. It is called in its own type (see denoisers/own.py).
    latents: (B, C, H, W) standard normal.
    solver, schedule, grid: objects, config names, or {"name": ..., option: value} dicts.
    nfe: most evaluations a sample may cost, the final one included; or steps: solver steps; or sigmas:
        explicit decreasing noise levels (> 0, used literally). Exactly one of the three.
        An adaptive solver takes of the levels the ends, and of their number the most steps it may try.
    final: from the last level to 0: "denoise" returns D, "euler" steps the ODE in the schedule's
        coordinates, "stop" leaves the (scaled) state there.
    afs: analytic first step: the first evaluation is replaced by its high-noise limit and costs nothing.
    noise: object with normal() and increment(q0, q1), in place of seed and indices; None is counter-based.
    seed, indices: of that noise: in [0, 2**64), and (B,) sample numbers in [0, 2**32), 0 .. B - 1 if None.
    labels: (B, K) one-hot or None. dtype: of the state, float64 or float32 (half is for networks).
    gradients: so that x can be differentiated by latents and parameters; memory grows with each evaluation.

    Raises ValueError for unusable input before any evaluation, and for a denoiser's or a solver's answer that
    is no real tensor of the shape of x; NonFiniteError naming step and sigma.
    """
    _check_inputs(denoiser, latents, labels, dtype)
    step_noise, method = _noise(noise, seed, indices, latents, dtype), _object("solver", solver, Solver)
    rule = _object("grid", grid, Grid) if sigmas is None else _explicit(sigmas)
    n_steps = _count(nfe, steps, sigmas, final)
    model, chosen = adapted(denoiser, tuple(latents.shape[1:])), _object("schedule", schedule, Schedule)
    if n_steps is not None:
        levels, fitted = noise_levels(model, chosen, rule, n_steps, zero_snr=method.zero_snr)
    else:
        assert nfe is not None
        levels, fitted = levels_within(nfe, model, method, chosen, rule, final, afs=afs)
    if said := foreign_table(model, fitted):
        log.warning(said)
    process = Process(model, fitted, len(latents), labels, afs=afs)
    states, x = [], latents
    with torch.set_grad_enabled(gradients):
        for x in integrate(process, method, latents.to(dtype), fitted.sigma_inv(levels), step_noise, final):
            if return_trajectory:
                states.append(x)
        return Samples(x, process.nfe, levels, torch.stack(states) if return_trajectory else None)


def _object(group: str, choice: Any, kind: type[Kind]) -> Kind:
    """choice itself if it is an object of the kind, else the configured one of that name."""
    return choice if isinstance(choice, kind) else registry.build(registry.configured(group, choice))


def _check_inputs(denoiser: Any, latents: Any, labels: Tensor | None, dtype: Any) -> None:
    """Raise ValueError unless latents are images and the denoiser's signature takes (x, sigma, labels)."""
    if not isinstance(latents, Tensor) or latents.ndim != 4:
        got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"latents must be a tensor of shape (B, C, H, W), got {got}")
    if not latents.is_floating_point():
        raise ValueError(f"latents must be standard normal numbers, got {latents.dtype}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"dtype={dtype} must be torch.float64 or torch.float32: it is the sampler's state that has it; "
            "a network of lower precision is called in its own"
        )
    called = denoiser.forward if isinstance(denoiser, torch.nn.Module) else denoiser
    check_call("denoiser", called, "D(x, sigma, labels)", latents, latents, labels)


def _noise(
    given: Noise | None,
    seed: int,
    indices: Tensor | Sequence[int] | None,
    latents: Tensor,
    dtype: torch.dtype,
) -> Noise:
    """What the steps draw from; ValueError for numbers that are none, or that a given noise would ignore."""
    if given is not None:
        if seed != 0 or indices is not None:
            raise ValueError("seed and indices number the default noise: give either these or noise")
        return OfType(given, dtype)
    batch = len(latents)
    numbered = torch.as_tensor(range(batch) if indices is None else indices)
    if tuple(numbered.shape) != (batch,) or numbered.is_floating_point() or numbered.dtype == torch.bool:
        found = f"shape {tuple(numbered.shape)} and dtype {numbered.dtype}"
        raise ValueError(f"indices have {found}: expected ({batch},) integers")
    numbered = numbered.long()
    if bool(((numbered < 0) | (numbered >= 2**32)).any()):
        raise ValueError("indices must lie in [0, 2**32): give each sample a number of its own")
    _check_whole("seed", seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed={seed} must lie in [0, 2**64)")
    return Philox(numbered, latents.shape[1:], seed=int(seed), dtype=dtype, device=latents.device)


def _check_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value!r} must be an integer")


def _explicit(sigmas: Sequence[float] | Tensor) -> Explicit:
    levels = torch.as_tensor(sigmas, dtype=torch.float64)
    if levels.ndim != 1:
        raise ValueError(f"sigmas have shape {tuple(levels.shape)}: expected a list of noise levels")
    check_decreasing(levels)
    return Explicit(sigmas=tuple(levels.tolist()))


def _count(
    nfe: int | None,
    steps: int | None,
    sigmas: Sequence[float] | Tensor | None,
    final: Final,
) -> int | None:
    """Number of solver steps, None where the budget nfe decides.

    Raises ValueError unless exactly one of nfe, steps and sigmas is given, and usable.
    """
    if sum(value is not None for value in (nfe, steps, sigmas)) != 1:
        raise ValueError(
            f"give exactly one of nfe, steps and sigmas; got nfe={nfe}, steps={steps}, sigmas={sigmas}"
        )
    check_final(final)
    if nfe is not None:
        _check_whole("nfe", nfe)
        return None
    if sigmas is not None:
        return len(sigmas) - 1
    _check_whole("steps", steps)
    assert steps is not None
    if steps < 1:
        raise ValueError(f"steps={steps}: a run needs at least one step")
    return steps
