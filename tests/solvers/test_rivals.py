"""Cheap methods of 2023 to 2025, against the textbook methods that they are on equal steps."""

import itertools

import pytest
import torch

from tests.support.measure import START, log_levels, mixture, run

EQUAL = torch.linspace(4.0, 0.4, 13, dtype=torch.float64)


def end(solver, sigmas):
    return run(solver, sigmas=sigmas, final="stop").x


def slope(x, sigma):
    return (x - mixture()(x, sigma, None)) / sigma


def test_rx_euler_is_the_midpoint_rule_over_two_equal_steps():
    assert torch.allclose(end("rx_euler", EQUAL), end("midpoint", EQUAL[::2]), atol=1e-12)


def test_rx_euler_leaves_a_last_step_without_its_block_plain():
    x = end("rx_euler", EQUAL[:-1])
    before = end("rx_euler", EQUAL[:-2])
    assert torch.allclose(x, before + (EQUAL[-2] - EQUAL[-3]) * slope(before, EQUAL[-3]), atol=1e-12)
    one_block = {"name": "rx_euler", "k": 100}
    assert torch.allclose(end(one_block, EQUAL), end("euler", EQUAL), atol=1e-12)


def test_rx_euler_is_of_order_two_on_uneven_steps():
    levels = [log_levels(n, 4.0, 0.4) ** torch.linspace(1, 1.3, n + 1) for n in (60, 120, 240)]
    ends = [end({"name": "rx_euler", "k": 3}, sigmas) for sigmas in levels]
    coarse, fine = ((b - a).norm() for a, b in itertools.pairwise(ends))
    assert float(torch.log2(coarse / fine)) == pytest.approx(2, abs=0.3)


def test_gradient_estimation_of_three_halves_is_adams_bashforth():
    x, before = START * EQUAL[0], None
    for sigma, after in itertools.pairwise(EQUAL):
        d = slope(x, sigma)
        x = x + (after - sigma) * (d if before is None else 1.5 * d - 0.5 * before)
        before = d
    assert torch.allclose(end({"name": "gradient_estimation", "gamma": 1.5}, EQUAL), x, atol=1e-12)


def test_scire_without_its_recursion_is_a_two_stage_rule():
    plain = {"phi_1": 1.0, "r1": 1.0}
    assert torch.allclose(end({"name": "scire_v1", **plain}, EQUAL), end("heun", EQUAL), atol=1e-12)
    middle = {"name": "scire_v1", "phi_1": 1.0}
    assert torch.allclose(end(middle, EQUAL), end("midpoint", EQUAL), atol=1e-12)


def test_scire_v2_is_exact_for_an_image_that_grows_with_its_clock():
    """D = 1/sigma: y = x/sigma has dy/dq = q, which the two-stage rule integrates exactly."""
    sigmas, x = log_levels(5, 4.0, 0.4), START * 4.0
    result = run(
        {"name": "scire_v2", "phi_1": 1.0},
        lambda x, sigma, labels: 1 / sigma + 0 * x,
        START,
        sigmas=sigmas,
        final="stop",
    ).x
    q, start = 1 / sigmas[-1], 1 / sigmas[0]
    assert torch.allclose(result / sigmas[-1], x / sigmas[0] + (q**2 - start**2) / 2, atol=1e-12)


@pytest.mark.parametrize(("phi_1", "order"), [(2 / 3, 1), (1.0, 2)])
def test_the_recursive_difference_costs_scire_its_order(phi_1, order):
    for name in ("scire_v1", "scire_v2"):
        ends = [end({"name": name, "phi_1": phi_1}, log_levels(n, 4.0, 0.4)) for n in (64, 128, 256)]
        coarse, fine = ((b - a).norm() for a, b in itertools.pairwise(ends))
        assert float(torch.log2(coarse / fine)) == pytest.approx(order, abs=0.2)
