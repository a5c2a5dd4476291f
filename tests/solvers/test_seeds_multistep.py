"""The multistep scheme of weak order 3: conditions, orders on exact problems, and wrong correlations."""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import seedsbench
from seedsbench.certify.weak import gaussian_moments
from seedsbench.diffusion.noise import Recorded
from seedsbench.diffusion.process import expand
from seedsbench.solvers.parts.bridges import adams, bridge_conditions, moving_average
from seedsbench.solvers.seeds_multistep import SeedsMultistep
from tests.support.measure import log_levels, n_draws, plane_covariance, weak_orders


def correlated(first, second):
    """The solver with other correlations of its bridges."""

    @dataclass(frozen=True)
    class Changed(SeedsMultistep):
        correlations: ClassVar[tuple[float, float]] = (first, second)

    return Changed()


CONTROLS = {
    "independent bridges": correlated(0, 0),
    "all of it at lag 1": correlated(-1 / 6, 0),
    "half of it at either lag": correlated(-1 / 12, -1 / 12),
    "of the other sign": correlated(1 / 168, 27 / 168),
}
WRONG_SUM = ("independent bridges", "of the other sign")


# --- coefficients ---


def test_the_correlations_solve_the_conditions():
    solved = np.linalg.solve(*bridge_conditions(SeedsMultistep.node))
    assert solved == pytest.approx(SeedsMultistep.correlations, abs=1e-14)
    assert SeedsMultistep().weak_order == 3
    assert {name: solver.weak_order for name, solver in CONTROLS.items()} == dict.fromkeys(CONTROLS, 2)
    assert SeedsMultistep(eta=0.0).weak_order is None


def test_weights_in_the_limit_are_those_of_the_derivation():
    assert adams([1 / 2, -1 / 2, -3 / 2], 1.0) * 24 == pytest.approx([25, -2, 1])
    assert adams([-1 / 2, -3 / 2, -5 / 2], 0.5) * 24 == pytest.approx([29, -25, 8])
    assert adams([0.0, -1.0, -2.0], 1.0) * 12 == pytest.approx([23, -16, 5]), "Adams and Bashforth's own"


@pytest.mark.parametrize(("first", "second"), [(-1 / 168, -27 / 168), (0, 0), (0.3, 0.1), (0, -0.4)])
def test_bridges_have_the_correlations_asked_for(first, second):
    weights = moving_average(first, second)
    found = [sum(a * b for a, b in zip(weights, weights[lag:], strict=False)) for lag in range(3)]
    assert found == pytest.approx([1, first, second], abs=1e-14)


def test_noises_drawn_have_the_law_declared():
    """Of six steps: the end's noise is the path's, the middle's its share of it and a correlated bridge."""
    n, size = 6, 2 * 6 + 2
    seen = []

    def denoiser(x, sigma, labels):
        seen.append(x.clone())
        return torch.zeros_like(x)

    noise = Recorded(torch.eye(size, dtype=torch.float64).reshape(size, size, 1, 1, 1))
    levels = log_levels(n, 5.0, 0.4)
    start = torch.zeros(size, 1, 1, 1, dtype=torch.float64)
    seedsbench.sample(denoiser, start, solver="seeds_multistep", sigmas=levels, final="stop", noise=noise)
    clock = 1 / levels**2
    middle = (clock[1:] * clock[:-1]).sqrt()
    drawn = torch.stack([x.flatten() * u for x, u in zip(seen[1:], middle, strict=True)])  # D = 0: B alone
    share = (middle - clock[:-1]) / (clock[1:] - clock[:-1])
    bridge = (share * (1 - share) * (clock[1:] - clock[:-1])).sqrt()
    for i, j in itertools.product(range(n), repeat=2):
        wanted = torch.minimum(middle[i], middle[j]) - clock[0]
        if 0 < abs(i - j) <= 2:
            wanted = wanted + SeedsMultistep.correlations[abs(i - j) - 1] * bridge[i] * bridge[j]
        assert float(drawn[i] @ drawn[j]) == pytest.approx(float(wanted), rel=1e-10)


# --- orders ---

OPTIONS = [
    *({}, {"prediction": "noise"}, {"prediction": "edm"}, {"eta": 0.5}),
    *({"prediction": "noise", "eta": 0.5}, {"prediction": "edm", "eta": 0.5}),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_variance_of_a_gaussian_converges_with_order_three(options):
    solver = seedsbench.solver("seeds_multistep", **options)
    assert weak_orders(solver, 256, std=0.8, low=0.2)[1] == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("symmetric", [True, False])
def test_covariance_converges_with_order_three_for_any_jacobian(symmetric):
    matrix = torch.tensor([[0.3, 0.7], [0.7, 0.6]] if symmetric else [[0.3, -0.4], [0.8, 0.6]]).double()
    ends = [plane_covariance(SeedsMultistep(), matrix, n) for n in (64, 128, 256)]
    coarse, fine = (float((b - a).norm()) for a, b in itertools.pairwise(ends))
    assert np.log2(coarse / fine) == pytest.approx(3, abs=0.25)


@pytest.mark.parametrize("name", WRONG_SUM)
def test_with_another_sum_the_variance_has_order_two(name):
    assert weak_orders(CONTROLS[name], 128, std=0.8, low=0.2)[1] < 2.6


# --- a quadratic drift, whose moments are exact ---

LINEAR, ACROSS, BACK = -0.9, 0.6, 0.5


def quadratic(x, sigma, labels):
    """(B, 2, 1, 1): the second coordinate is driven by the square of the first.

    In u = 1/sigma^2 and y = u x, with g = 1/(1 + u): dy_1 = g LINEAR y_1 du + dW_1,
    dy_2 = (g^2 y_1^2 + g ACROSS y_2 + g BACK y_1) du + dW_2.
    """
    u = 1 / expand(sigma, x) ** 2
    first, second = (u / (1 + u) * x).split(1, dim=1)
    return torch.cat([LINEAR * first, first**2 + ACROSS * second + BACK * first], dim=1)


def exact_moments(high, low):
    """E of y_1^2, y_2, y_1 y_2, y_1^2 y_2, y_2^2 at level low of the SDE that starts at 0 at level high."""

    def rate(u, m):
        g = 1 / (1 + u)
        square, second, cross, cubic, power, fourth = m
        return [
            2 * g * LINEAR * square + 1,
            g**2 * square + g * ACROSS * second,
            g * (LINEAR + ACROSS) * cross + g * BACK * square,
            g * (2 * LINEAR + ACROSS) * cubic + second + g**2 * fourth,
            2 * (g**2 * cubic + g * ACROSS * power + g * BACK * cross) + 1,
            4 * g * LINEAR * fourth + 6 * square,
        ]

    found = solve_ivp(rate, (high**-2, low**-2), np.zeros(6), method="DOP853", rtol=1e-12, atol=1e-14)
    return found.y[:5, -1]


def moments(solver, n, high, low):
    """The same of a solver: y_2 is a quadratic form in the draws, found from runs on one or two of them."""
    levels = log_levels(n, high, low)
    draws = n_draws(solver, quadratic, levels)
    one = torch.eye(draws, dtype=torch.float64)
    rows, columns = torch.triu_indices(draws, draws, 1)
    places = torch.cat([torch.zeros(1, draws, dtype=torch.float64), one, -one, one[rows] + one[columns]])

    def run(channel):
        """y at the end with these draws in one channel and none in the other."""
        normals = torch.zeros(draws, len(places), 2, 1, 1, dtype=torch.float64)
        normals[:, :, channel, 0, 0] = places.T
        start = torch.zeros(len(places), 2, 1, 1, dtype=torch.float64)
        noise = Recorded(normals)
        end = seedsbench.sample(quadratic, start, solver=solver, sigmas=levels, final="stop", noise=noise)
        return end.x.flatten(1) / low**2

    first, second = run(0).T
    own = run(1)[1 : draws + 1, 1]
    offset, plus, minus = second[0], second[1 : draws + 1], second[draws + 1 : 2 * draws + 1]
    linear, diagonal = (plus - minus) / 2, (plus + minus) / 2 - offset
    form = torch.diag(diagonal)
    pairs = second[2 * draws + 1 :] - plus[rows] - plus[columns] + offset
    form[rows, columns] = form[columns, rows] = pairs / 2
    a = first[1 : draws + 1]
    mean = offset + form.trace()
    square, power = a @ a, mean**2 + 2 * (form**2).sum() + linear @ linear + own @ own
    found = [square, mean, a @ linear, mean * square + 2 * a @ form @ a, power]
    return np.array([float(value) for value in found])


def moment_order(solver, n=32):
    """Order of all five moments together, from n to 2n steps."""
    high, low = 30.0, 0.7
    exact = exact_moments(high, low)
    coarse, fine = (np.linalg.norm(moments(solver, k, high, low) - exact) for k in (n, 2 * n))
    return math.log2(coarse / fine)


def test_moments_of_a_quadratic_drift_converge_with_order_three():
    assert moment_order(SeedsMultistep(), 48) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("seeds1", 1),
        ("seeds3", 2),
        ("dpmpp_2m_sde", 2),
        pytest.param("seeds4", 3, marks=pytest.mark.slow),
    ],
)
def test_the_problem_tells_orders_apart(name, wanted):
    assert moment_order(seedsbench.solver(name), 16) == pytest.approx(wanted, abs=0.3)


@pytest.mark.parametrize("name", CONTROLS)
def test_with_other_correlations_the_order_is_two(name):
    assert moment_order(CONTROLS[name]) < 2.6


# --- long steps ---


def test_a_gaussian_has_the_right_variance_from_fourteen_evaluations():
    """Relative to exact, levels uniform in log sigma."""
    for n, within in ((13, 3e-3), (29, 1e-3), (79, 3e-5)):
        variance = gaussian_moments("seeds_multistep", n, high=20.0, low=0.05)[1]
        assert variance == pytest.approx(0.5**2 + 0.05**2, rel=within)


def test_its_cost_is_one_evaluation_a_step_and_one_more():
    solver = seedsbench.solver("seeds_multistep")
    assert [solver.nfe(n) for n in (1, 2, 20)] == [2, 3, 21]
    assert solver.steps_for(10) == 8
