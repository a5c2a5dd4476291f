"""ER-SDE: integrals that are known, orders, the authors' rule."""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad

from seedsbench.noise import Recorded, Silent
from tests.support.measure import START, gaussian_moments, log_levels
from tests.support.measure import run as run_on

QUIET = Silent(START.shape)
PHI = {
    "ode": lambda s: s,
    "sde": lambda s: s**2,
    "er_sde_1": lambda s: s * (math.exp(-1 / s) + 10),
    "er_sde_2": lambda s: s**1.5,
    "er_sde_3": lambda s: s**2.5,
    "er_sde_4": lambda s: s**0.9 * math.log10(1 + 100 * s**1.5),
    "er_sde_5": lambda s: s * (math.exp(s**0.3) + 10),
}
SCALES = list(PHI)


def run(options, denoiser=None, **path):
    """All states of er_sde with these options."""
    path = {"sigmas": log_levels(8, 10.0, 0.05), "final": "stop"} | path
    return run_on({"name": "er_sde", **options}, denoiser, **path).trajectory[:-1]


@pytest.mark.parametrize("noise_scale", SCALES)
def test_one_step_has_the_exact_law_of_its_sde_where_the_denoiser_is_constant(noise_scale):
    """Its noise is the integral of the diffusion in d(x/phi) = ... + sqrt((sigma^2/phi^2)') dW."""
    still = lambda x, sigma, labels: torch.full_like(x, 0.7)  # noqa: E731
    silent, noisy = (
        run({"noise_scale": noise_scale}, still, sigmas=[3.0, 0.8], noise=noise)[-1]
        for noise in (QUIET, Recorded(torch.ones(1, *START.shape).double()))
    )
    phi, ratio = PHI[noise_scale], PHI[noise_scale](0.8) / PHI[noise_scale](3.0)
    assert torch.allclose(silent, ratio * 3.0 * START + (1 - ratio) * 0.7, atol=1e-12)
    variance = quad(lambda s: _slope(lambda u: (u / phi(u)) ** 2, s), 3.0, 0.8)[0] * phi(0.8) ** 2
    assert torch.allclose((noisy - silent) ** 2, torch.tensor(variance).double(), atol=1e-8)


def _slope(f, s, h=1e-5):
    return (f(s + h) - f(s - h)) / (2 * h)


@pytest.mark.parametrize("max_order", [1, 2, 3])
@pytest.mark.parametrize("noise_scale", SCALES)
def test_a_polynomial_denoiser_is_integrated_exactly(noise_scale, max_order):
    """After the warm-up: order k is exact for degree k - 1 in sigma, and not for degree k."""
    phi, levels = PHI[noise_scale], [4.0, 2.5, 1.1, 0.6, 0.2]
    for degree in (max_order - 1, max_order):
        power = lambda x, sigma, labels, d=degree: torch.zeros_like(x) + (0.5 + sigma) ** d  # noqa: E731
        options = {"noise_scale": noise_scale, "max_order": max_order}
        states = run(options, power, sigmas=levels, noise=QUIET)
        errors = []
        for i, (s, t) in list(enumerate(itertools.pairwise(levels)))[max_order - 1 :]:
            source = quad(lambda u, d=degree: _slope(lambda v: -1 / phi(v), u) * (0.5 + u) ** d, t, s)[0]
            errors.append(float((states[i + 1] - phi(t) / phi(s) * states[i] - phi(t) * source).abs().max()))
        assert (max(errors) < 1e-7) == (degree < max_order), (degree, errors)


def test_the_first_steps_use_the_order_that_their_history_allows():
    first, second, third = (run({"max_order": order}) for order in (1, 2, 3))
    assert torch.equal(first[:2], second[:2])
    assert torch.equal(second[:3], third[:3])
    assert not torch.allclose(first[2], second[2])
    assert not torch.allclose(second[3], third[3])


def test_the_papers_third_order_has_the_uncorrected_difference_as_its_slope():
    """x_3 by hand: its three terms with the integrals of the appendix, phi = sigma^2."""
    levels = [4.0, 2.5, 1.1, 0.6]
    seen = []

    def denoiser(x, sigma, labels):
        seen.append(torch.sin(x + sigma))
        return seen[-1]

    path = {"denoiser": denoiser, "sigmas": levels, "noise": QUIET}
    states = run({"noise_scale": "sde", "compat": "paper"}, **path)
    a, b, s, t = levels
    slope, before = (seen[2] - seen[1]) / (s - b), (seen[1] - seen[0]) / (b - a)
    bend = 2 * (slope - before) / (s - a)
    ratio, area = (t / s) ** 2, quad(lambda u: (t / u) ** 2, t, s)[0]
    moment = quad(lambda u: (t / u) ** 2 * (u - s), t, s)[0]
    wanted = ratio * states[2] + (1 - ratio) * seen[2] + (t - s + area) * slope
    wanted = wanted + ((t - s) ** 2 / 2 + moment) * bend
    assert torch.allclose(states[3], wanted, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(states[3], run({"noise_scale": "sde"}, **path)[-1])


def test_every_noise_scale_has_the_marginals_of_the_data():
    for noise_scale in SCALES:
        mean, variance = gaussian_moments({"name": "er_sde", "noise_scale": noise_scale}, 40)
        assert mean == pytest.approx(0.3, abs=1e-3), noise_scale
        assert variance == pytest.approx(0.5**2 + 0.05**2, rel=0.02), noise_scale


@pytest.mark.parametrize("noise_scale", [name for name in SCALES if name != "er_sde_4"])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_finite_at_extreme_levels(noise_scale, steps):
    states = run({"noise_scale": noise_scale}, sigmas=log_levels(steps, 20000.0, 1e-3))
    assert states[-1].abs().max() < 10


def test_a_noise_scale_that_would_need_negative_variance_is_refused_by_name():
    with pytest.raises(ValueError, match="noise_scale=er_sde_4: phi/sigma must"):
        run({"noise_scale": "er_sde_4"}, sigmas=[20000.0, 5000.0, 1.0])
    assert run({"noise_scale": "er_sde_4"}, sigmas=[1000.0, 10.0, 1e-3]).isfinite().all()
