"""Solvers that must coincide, to 1e-12: the same idea reached by two roads."""

import itertools

import pytest
import torch

import seedsbench
from seedsbench.diffusion.noise import latents
from seedsbench.noise import Recorded
from tests.support.measure import log_levels, mixture

SHAPE = (2, 1, 1)
LEVELS = log_levels(9, 20.0, 0.05)


def run(solver, schedule="linear", sigmas=LEVELS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(100, 6, *SHAPE, dtype=torch.float64, generator=generator)
    start = latents(torch.arange(6), SHAPE, seed=seed)
    return seedsbench.sample(
        mixture(), start, solver=solver, sigmas=sigmas, schedule=schedule, final="stop", noise=Recorded(z)
    ).x


def same(a, b):
    assert torch.allclose(a, b, rtol=0, atol=1e-12), float((a - b).abs().max())


@pytest.mark.parametrize("schedule", ["linear", "ve", "vp", "discrete"])
def test_data_prediction_seeds1_is_the_ddpm_posterior(schedule):
    same(run("seeds1", schedule), run("ddpm", schedule))
    same(run("seeds1", schedule), run({"name": "ddim", "eta": 1.0}, schedule))


def test_noise_prediction_seeds1_is_euler_maruyama_in_sigma():
    same(run({"name": "seeds1", "prediction": "noise"}), run("euler_maruyama"))


def test_euler_is_ddim():
    same(run("euler"), run("ddim"))


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_eta_zero_seeds1_is_ddim_in_both_predictions(prediction, schedule):
    same(run({"name": "seeds1", "eta": 0.0, "prediction": prediction}, schedule), run("ddim", schedule))


@pytest.mark.parametrize("name", ["seeds2", "seeds3"])
@pytest.mark.parametrize("prediction", ["data", "noise", "edm"])
def test_eta_zero_seeds_is_its_ode_twin(name, prediction):
    """The twin, written out: exponential Runge-Kutta on the ODE in lambda with the paper's formulas."""
    options = {"name": name, "eta": 0.0, "prediction": prediction}
    same(run(options), etd(2 if name == "seeds2" else 3, prediction))


def etd(stages, prediction):
    x = latents(torch.arange(6), SHAPE, seed=0) * LEVELS[0]
    for s, t in itertools.pairwise(LEVELS):
        x = etd_step(x, s, t, stages, prediction, mixture())
    return x


def etd_step(x, s, t, stages, prediction, denoiser, data_std=0.5):
    """x' = L x + N in a clock l: integrate (exp(L (l_t - l)) N) with N a polynomial, by quadrature."""
    clock, inverse, amplitude, part = {
        "data": (lambda v: -v.log(), lambda l: (-l).exp(), lambda v: v, lambda x, d, v: d / v),
        "noise": (lambda v: v.log(), lambda l: l.exp(), lambda v: torch.ones_like(v), lambda x, d, v: x - d),
        "edm": (
            lambda v: torch.atan(v / data_std).log(),
            lambda l: data_std * torch.tan(l.exp()),
            lambda v: (v**2 + data_std**2).sqrt(),
            lambda x, d, v: (
                -(torch.atan(v / data_std) / data_std)
                * data_std
                * (d - data_std**2 / (v**2 + data_std**2) * x)
                * (v**2 + data_std**2).sqrt()
                / (v * data_std)
            ),
        ),
    }[prediction]
    l0, h = clock(s), clock(t) - clock(s)

    def slope(x, v):
        # d(x / amplitude)/dl = exp(l - l0) * (slowly varying part), the weight being the clock's own growth.
        return part(x, denoiser(x, v), v) / (clock(v) - l0).exp()

    def advance(share, values, nodes):
        """u(l0 + share h) by Gauss-Legendre of exp(l - l0) times the interpolant of `values` at `nodes`."""
        points, weights = gauss()
        total = 0
        for p, w in zip(points, weights, strict=True):
            position = share * p
            total = total + w * share * h * (position * h).exp() * interpolate(values, nodes, position)
        v = inverse(l0 + share * h)
        return amplitude(v) * (x / amplitude(s) + total), v

    n0 = slope(x, s)
    c = (0.5,) if stages == 2 else (1 / 3, 2 / 3)
    u, v = advance(c[0], [n0], [0.0])
    n1 = slope(u, v)
    if stages == 2:  # variant a: the mean slope (phi_1/(2 c2) on the difference), not the interpolant
        return advance(1.0, [n0 + (n1 - n0) / (2 * c[0])], [0.0])[0]
    u, v = advance(c[1], [n0, n1], [0.0, c[0]])
    n2 = slope(u, v)
    return advance(1.0, [n0, n2], [0.0, c[1]])[0]


def interpolate(values, nodes, at):
    if len(values) == 1:
        return values[0]
    return values[0] + (values[1] - values[0]) * at / nodes[1]


def gauss():
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(20)
    return ((points + 1) / 2).tolist(), (weights / 2).tolist()


def test_karras_sde_without_churn_is_heun():
    for schedule in ("linear", "vp"):
        same(run({"name": "karras_sde", "S_churn": 0.0}, schedule), run("heun", schedule))
        same(run({"name": "karras_sde", "S_churn": 0.0, "rk_order": 1}, schedule), run("euler", schedule))


def test_first_dpmpp_2m_step_is_ddim():
    same(run("dpmpp_2m", sigmas=LEVELS[:2]), run("ddim", sigmas=LEVELS[:2]))


def test_denoising_is_edms_closing_euler_step():
    start = latents(torch.arange(6), SHAPE, seed=0)
    ends = [
        seedsbench.sample(mixture(), start, solver="heun", steps=5, final=f).x for f in ("denoise", "euler")
    ]
    same(*ends)


def test_edm_splitting_has_the_papers_coefficients():
    """SEEDS-1 in the EDM regime, in the closed form of the paper, on any denoiser."""
    s, t, data_std = LEVELS[2], LEVELS[3], 0.5
    x = latents(torch.arange(6), SHAPE, seed=4)
    z = latents(torch.arange(6), SHAPE, seed=5)
    got = seedsbench.sample(
        mixture(),
        x,
        solver={"name": "seeds1", "prediction": "edm"},
        sigmas=[s, t],
        final="stop",
        noise=Recorded(z[None]),
    ).x
    x = x * s
    spread = lambda v: v**2 + data_std**2  # noqa: E731
    lam = lambda v: -(v / (data_std * spread(v).sqrt())).log()  # noqa: E731
    network = (mixture()(x, s) - data_std**2 / spread(s) * x) * spread(s).sqrt() / (s * data_std)
    growth = torch.expm1(lam(t) - lam(s))
    expected = spread(t) / spread(s) * x + 2 / data_std * t * spread(t).sqrt() * growth * network
    expected = expected + (spread(t) * (s**2 - t**2) / spread(s)).sqrt() * z
    same(got, expected)


def test_vp_and_linear_coordinates_agree_for_exponential_solvers():
    for solver in ("seeds1", "seeds2", "seeds3", "dpmpp_2m", "ddim"):
        scaled = run(solver, "vp") * (1 + LEVELS[-1] ** 2).sqrt()
        same(scaled, run(solver, "linear"))
