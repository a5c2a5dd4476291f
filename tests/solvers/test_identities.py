"""Solvers that must coincide, to 1e-12: the same idea reached by two roads."""

import itertools

import numpy as np
import pytest
import torch

from seedsbench.noise import Recorded
from tests.support.measure import START, log_levels, mixture
from tests.support.measure import run as run_on

LEVELS = log_levels(9, 20.0, 0.05)
DATA_STD = 0.5


def run(solver, schedule="linear", sigmas=LEVELS):
    return run_on(solver, sigmas=sigmas, schedule=schedule, final="stop").x


def same(a, b):
    assert torch.allclose(a, b, rtol=0, atol=1e-12), float((a - b).abs().max())


@pytest.mark.parametrize("schedule", ["linear", "ve", "vp", "discrete"])
def test_data_prediction_seeds1_is_the_ddpm_posterior(schedule):
    same(run("seeds1", schedule), run("ddpm", schedule))
    same(run("seeds1", schedule), run({"name": "ddim", "eta": 1.0}, schedule))


def test_noise_prediction_seeds1_is_euler_maruyama_in_sigma():
    same(run({"name": "seeds1", "prediction": "noise"}), run("euler_maruyama"))


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_eta_zero_seeds1_is_ddim_in_both_predictions(prediction, schedule):
    same(run({"name": "seeds1", "eta": 0.0, "prediction": prediction}, schedule), run("ddim", schedule))


@pytest.mark.parametrize(("solver", "sigmas"), [("euler", LEVELS), ("dpmpp_2m", LEVELS[:2])])
def test_ddim_is_euler_and_the_first_step_of_dpmpp_2m(solver, sigmas):
    same(run(solver, sigmas=sigmas), run("ddim", sigmas=sigmas))


@pytest.mark.parametrize("stages", [2, 3])
def test_eta_zero_seeds_of_edms_prediction_is_its_ode_twin(stages):
    """Exponential Runge-Kutta on the ODE in EDM's clock; recorded runs have the other two predictions."""
    x = START * LEVELS[0]
    for s, t in itertools.pairwise(LEVELS):
        x = etd_step(x, s, t, stages)
    same(run({"name": f"seeds{stages}", "eta": 0.0, "prediction": "edm"}), x)


def etd_step(x, s, t, stages):
    """x' = L x + N in the clock l = log atan(sigma / std): integrate exp(l_t - l) N, N a polynomial."""
    angle = lambda v: torch.atan(v / DATA_STD)  # noqa: E731
    amplitude = lambda v: (v**2 + DATA_STD**2).sqrt()  # noqa: E731
    l0, h = angle(s).log(), (angle(t) / angle(s)).log()
    points, weights = np.polynomial.legendre.leggauss(20)
    points, weights = (points + 1) / 2, weights / 2

    def slope(x, v):
        """d(x / amplitude)/dl over exp(l - l0), the clock's own growth: varies slowly."""
        raw = mixture()(x, v) - (DATA_STD / amplitude(v)) ** 2 * x
        return -raw * amplitude(v) / (v * DATA_STD) * angle(s)

    def advance(share, *values, node=1.0):
        """State and level at l0 + share h, by Gauss-Legendre of the line through the values at 0 and node."""
        total = 0
        for point, weight in zip(share * points, share * weights, strict=True):
            line = values[0] + (values[-1] - values[0]) * point / node
            total = total + weight * h * (point * h).exp() * line
        v = DATA_STD * torch.tan((l0 + share * h).exp())
        return amplitude(v) * (x / amplitude(s) + total), v

    first = slope(x, s)
    if stages == 2:  # variant a: the slope in the middle, not the line through it
        return advance(1.0, slope(*advance(0.5, first)))[0]
    second = slope(*advance(1 / 3, first))
    third = slope(*advance(2 / 3, first, second, node=1 / 3))
    return advance(1.0, first, third, node=2 / 3)[0]


@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_karras_sde_without_churn_is_heun(schedule):
    same(run({"name": "karras_sde", "S_churn": 0.0}, schedule), run("heun", schedule))
    same(run({"name": "karras_sde", "S_churn": 0.0, "rk_order": 1}, schedule), run("euler", schedule))


def test_denoising_is_edms_closing_euler_step():
    same(*(run_on("heun", steps=5, final=final).x for final in ("denoise", "euler")))


def test_edm_splitting_has_the_papers_coefficients():
    """SEEDS-1 in the EDM regime, in the closed form of the paper, on any denoiser."""
    (s, t), z = LEVELS[2:4], START.flip(0).sin()
    path = {"sigmas": [s, t], "final": "stop", "noise": Recorded(z[None])}
    got = run_on({"name": "seeds1", "prediction": "edm"}, **path).x
    x = START * s
    spread = lambda v: v**2 + DATA_STD**2  # noqa: E731
    lam = lambda v: -(v / (DATA_STD * spread(v).sqrt())).log()  # noqa: E731
    network = (mixture()(x, s) - DATA_STD**2 / spread(s) * x) * spread(s).sqrt() / (s * DATA_STD)
    growth = torch.expm1(lam(t) - lam(s))
    expected = spread(t) / spread(s) * x + 2 / DATA_STD * t * spread(t).sqrt() * growth * network
    expected = expected + (spread(t) * (s**2 - t**2) / spread(s)).sqrt() * z
    same(got, expected)


@pytest.mark.parametrize("solver", ["seeds1", "seeds2", "seeds3", "dpmpp_2m", "ddim"])
def test_vp_and_linear_coordinates_agree_for_exponential_solvers(solver):
    same(run(solver, "vp") * (1 + LEVELS[-1] ** 2).sqrt(), run(solver))
