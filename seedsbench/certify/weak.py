"""Weak orders: how fast the *distribution* of a stochastic solver approaches that of its SDE.

Three ways, by what the solver is. On Gaussian data every map is affine, and its moments are exact. On the
mixture, a solver without memory is a Markov chain on the line whose expectations are propagated backwards
(Kolmogorov) by quadrature, without sampling. One with memory is compared with itself at twice the steps
along the same Brownian paths, with error bars.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from seedsbench import api, registry
from seedsbench.certify.orders import Measured
from seedsbench.certify.paths import ends_along_one_path
from seedsbench.certify.problems import (
    END,
    START,
    AnySolver,
    as_solver,
    fixed_steps,
    line_mixture,
    log_levels,
)
from seedsbench.denoisers.analytic import Gaussian
from seedsbench.diffusion.noise import Noise, Recorded, Silent, latents
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Linear
from seedsbench.solvers.base import Solver

_Function = Callable[[np.ndarray], np.ndarray]
_MEAN = 0.3  # of Gaussian data
_WIDTH = 7.5  # of the interval in standard deviations: what lies outside weighs 1e-13


def gaussian_moments(
    solver: AnySolver,
    n_steps: int,
    *,
    std: float = 0.5,
    high: float = 20.0,
    low: float = 0.05,
    schedule: str = "linear",
) -> np.ndarray:
    """(mean, variance) at `low` of a solver on N(0.3, std^2) data, of unscaled states, exactly.

    Every map is affine in the latent and in each normal drawn, so one run on a batch of unit impulses
    (all zero; the latent; each draw) yields all coefficients. The start has the exact law at `high`.
    """
    denoiser = Gaussian(_MEAN, std, image_shape=(1, 1, 1))
    levels = log_levels(n_steps, high, low)
    method = fixed_steps(as_solver(solver))

    options: Any = {"solver": method, "sigmas": levels, "schedule": schedule, "final": "stop"}

    def run(start: Tensor, z: Noise) -> Tensor:
        return api.sample(denoiser, start, noise=z, **options).x.flatten()

    counter = Counted()
    run(torch.zeros(1, 1, 1, 1, dtype=torch.float64), counter)
    draws = max(1, counter.draws)
    start = torch.zeros(draws + 2, 1, 1, 1, dtype=torch.float64)
    start[1] = 1.0
    z = torch.zeros(draws, draws + 2, 1, 1, 1, dtype=torch.float64)
    z[torch.arange(draws), torch.arange(draws) + 2] = 1.0
    x = run(start, Recorded(z)) / float(
        registry.build(registry.load("schedule", schedule)).scale_at(levels[-1])
    )
    offset, coefficients = x[0], x[1:] - x[0]
    # The law of the latent that makes the state at `high` N(mean, std^2 + high^2): x = high * latent.
    start_mean, start_variance = _MEAN / high, (std**2 + high**2) / high**2
    variance = coefficients[0] ** 2 * start_variance + (coefficients[1:] ** 2).sum()
    return np.array([float(offset + coefficients[0] * start_mean), float(variance)])


def weak_orders(
    solver: AnySolver,
    n_steps: int = 128,
    *,
    std: float = 0.5,
    high: float = 20.0,
    low: float = 0.05,
    schedule: str = "linear",
) -> tuple[float, float]:
    """(order of the mean, order of the variance) between n_steps and 2 n_steps; nan where exact."""
    exact = np.array([_MEAN, std**2 + low**2])
    counts = n_steps, 2 * n_steps
    levels: Any = {"std": std, "high": high, "low": low, "schedule": schedule}
    coarse, fine = (abs(gaussian_moments(solver, n, **levels) - exact) for n in counts)
    mean, variance = (math.log2(c / f) if f > 1e-12 else math.nan for c, f in zip(coarse, fine, strict=True))
    return mean, variance


def is_affine(solver: AnySolver) -> bool:
    """Whether the map on Gaussian data is affine in latent and normals: f(2z) - f(z) = f(z) - f(0)."""
    z = latents(torch.arange(64), (1, 1, 1), seed=5).reshape(64, 1, 1, 1, 1)
    method, levels = fixed_steps(as_solver(solver)), log_levels(4, 20.0, 0.2)
    denoiser = Gaussian(_MEAN, 0.5, image_shape=(1, 1, 1))
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    none, once, twice = (
        api.sample(denoiser, f * start, solver=method, sigmas=levels, final="stop", noise=Recorded(f * z)).x
        for f in (0.0, 1.0, 2.0)
    )
    return bool(torch.allclose(twice - once, once - none, rtol=1e-9, atol=1e-12))


class Counted(Silent):
    """No noise for states of a shape, and a count of its normals; an increment takes one."""

    def __init__(self, shape: tuple[int, ...] = (1, 1, 1, 1)) -> None:
        super().__init__(shape)
        self.draws = 0

    def normal(self) -> Tensor:
        self.draws += 1
        return super().normal()


def observables(x: np.ndarray) -> np.ndarray:
    """g, (n,) -> (n, 4): mean, power, and shape at the scale of the mixture's gaps."""
    return np.stack([x, x**2, np.cos(3 * x), np.sin(3 * x)], -1)


def is_markov(solver: AnySolver) -> bool:
    """Whether a step depends on the past through x alone: its state may not change with the path."""
    method = as_solver(solver)
    if method.adaptive:
        return False
    times, process = log_levels(4, 5.0, 0.2), Process(line_mixture(), Linear(), 2)
    start = torch.tensor([-2.0, 3.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    state, x = method.init(process, start, times), start
    for i in range(3):
        noise = Silent(x.shape)
        straight = method.step(process, x, times[i], times[i + 1], state, noise)
        swapped = method.step(process, x.flip(0), times[i], times[i + 1], state, noise)
        if not torch.equal(straight.x, swapped.x.flip(0)):
            return False
        x, state = straight.x, straight.state
    return True


def kolmogorov_expectations(solver: AnySolver, n_steps: int) -> np.ndarray:
    """E[g(X)] at the level END of a solver without memory on the line mixture, by quadrature.

    u_k(x) = E[g(X_n) | X_k = x] obeys u_k(x) = E[u_{k+1}(step(x, z))]: Gauss-Hermite over the normals of
    the step, Chebyshev interpolation in x on an interval that follows the noise level.
    """
    method, denoiser = as_solver(solver), line_mixture()
    times = log_levels(n_steps, START, END)
    states, draws = _walk(method, times)
    mean, variance = (float(moment.item()) for moment in denoiser.moments())
    half = [_WIDTH * math.sqrt(variance + float(t) ** 2) for t in times]

    def backwards(k: int, later: _Function) -> _Function:
        points, weights = _normal_rule(draws[k])

        def expected(place: np.ndarray) -> np.ndarray:
            x = np.repeat(mean + half[k] * place, len(points))
            z = torch.as_tensor(np.tile(points, (len(place), 1)).T.copy())
            start = torch.as_tensor(x).reshape(-1, 1, 1, 1)
            noise = Recorded(z.reshape(-1, len(start), 1, 1, 1))
            process = Process(denoiser, Linear(), len(start))
            end = method.step(process, start, times[k], times[k + 1], states[k], noise).x.flatten().numpy()
            return np.einsum("iqg,q->ig", later(end).reshape(len(place), len(points), -1), weights)

        # One polynomial a test function: the stubs know only the case of one.
        coefficients: Any = chebyshev.chebinterpolate(expected, 139)  # type: ignore[arg-type]
        # Beyond the interval, where no path of weight goes, the value at its end: no polynomial leaves it.
        return lambda x: chebyshev.chebval(((x - mean) / half[k]).clip(-1, 1), coefficients).T

    value: _Function = observables
    for k in reversed(range(n_steps)):
        value = backwards(k, value)
    return _expectation(value, START)


def exact_expectations() -> np.ndarray:
    """E[g(data + END * noise)] on the line mixture."""
    return _expectation(observables, END)


def kolmogorov_order(solver: AnySolver, n_steps: int = 32) -> Measured:
    """Weak order on the line mixture between n_steps and 2 n_steps, over all test functions together."""
    exact = exact_expectations()
    coarse, fine = (kolmogorov_expectations(solver, n) - exact for n in (n_steps, 2 * n_steps))
    return Measured(math.log2(float(np.linalg.norm(coarse)) / float(np.linalg.norm(fine))))


def _walk(method: Solver, times: Tensor) -> tuple[list[Any], list[int]]:
    """The state before each step, which only time changes, and how many normals the step draws."""
    x, noise = torch.ones(1, 1, 1, 1, dtype=torch.float64), Counted()
    process = Process(line_mixture(), Linear(), 1)
    state, states, draws = method.init(process, x, times), [], []
    for t, t_next in itertools.pairwise(times):
        before = noise.draws
        result = method.step(process, x, t, t_next, state, noise)
        states.append(state)
        draws.append(noise.draws - before)
        x, state = result.x, result.state
    return states, draws


def _normal_rule(draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite points (Q, draws) and weights (Q,) of independent standard normals."""
    points, weights = hermegauss(9 if draws <= 1 else 6 if draws == 2 else 4)
    weights = weights / weights.sum()
    if not draws:
        return np.zeros((1, 0)), np.ones(1)
    grids, shares = (np.meshgrid(*[values] * draws, indexing="ij") for values in (points, weights))
    return np.stack([g.ravel() for g in grids], 1), np.prod([s.ravel() for s in shares], 0)


def _expectation(function: _Function, sigma: float) -> np.ndarray:
    """E[function(X)] for X = data + sigma * noise on the line mixture, by Gauss-Hermite a component."""
    denoiser = line_mixture()
    points, weights = hermegauss(81)
    std = math.sqrt(denoiser.std**2 + sigma**2)
    parts = [weights @ function(float(m) + std * points) for m in denoiser.means.flatten()]
    return denoiser.weights.numpy() @ np.stack(parts) / weights.sum()


def common_noise_order(solver: AnySolver, n_steps: int = 8, *, paths: int = 100_000) -> Measured:
    """Weak order on the mixture, n_steps to 4 n_steps, from differences along the same Brownian paths.

    The estimate is log2 of the ratio of |E[g(X_n) - g(X_2n)]|, of both coordinates; its standard error is the
    delta method's. NoPathError as `ends_along_one_path`, but for normals beside the path: these are fresh.
    """
    ends = ends_along_one_path(solver, (n_steps, 2 * n_steps, 4 * n_steps), paths=paths, fresh=True)
    scores = [observables(x.numpy()).reshape(paths, -1) for x in ends]
    fine, coarse = (b - a for a, b in itertools.pairwise(scores))
    means = [d.mean(0) for d in (coarse, fine)]
    norms = [float(np.linalg.norm(m)) for m in means]
    # d log2|m| = m . dm / (|m|^2 ln 2): one number a path, whose spread is the error's.
    influence = coarse @ means[0] / norms[0] ** 2 - fine @ means[1] / norms[1] ** 2
    return Measured(math.log2(norms[0] / norms[1]), float(influence.std() / math.sqrt(paths) / math.log(2)))
