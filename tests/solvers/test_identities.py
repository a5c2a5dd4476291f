"""Solvers that must coincide, to 1e-12: the same idea reached by two roads."""

import pytest
import torch

from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import VE, VP, Linear
from tests.support.measure import START, log_levels, mixture
from tests.support.measure import run as run_on

LEVELS = log_levels(9, 20.0, 0.05)


def run(solver, schedule="linear", sigmas=LEVELS):
    return run_on(solver, sigmas=sigmas, schedule=schedule, final="stop").x


def same(a, b):
    assert torch.allclose(a, b, rtol=0, atol=1e-12), float((a - b).abs().max())


UNIP = {"name": "unipc", "corrector": False}
SA = {"name": "sa_solver", "predictor_order": 2, "corrector_order": 3}


ANCESTRAL = {"predictor": "ancestral", "corrector": "none"}
ETA_0, EDM = {"eta": 0.0}, {"prediction": "edm"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("seeds1", "ddpm"),  # the posterior
        ("seeds1", {"name": "ddim", "eta": 1.0}),
        ({"name": "pc_ve", **ANCESTRAL}, {"name": "ddpm", "variance": "small"}),  # the posterior's variance
        ({"name": "pc_vp", **ANCESTRAL}, {"name": "ddpm", "variance": "large"}),  # beta
        *(({"name": "seeds1", "prediction": p, **ETA_0}, "ddim") for p in ("data", "noise")),
        ({"name": "karras_sde", "S_churn": 0.0}, "heun"),
        ({"name": "karras_sde", "S_churn": 0.0, "rk_order": 1}, "euler"),
        ("midpoint", {"name": "heun", "alpha": 0.5}),  # that form of Heun's has golden cases
        ({"name": "er_sde", "max_order": 1, "noise_scale": "ode"}, "ddim"),
        ({"name": "er_sde", "max_order": 1, "noise_scale": "sde"}, "seeds1"),
        ("dpm_solver1", "ddim"),
        ("dpm_solver1", {**UNIP, "solver_order": 1}),
        ("dpmpp_2s", {"name": "seeds2", **ETA_0}),
        # Recorded runs have the twins' prediction of EDM.
        *(({"name": f"seeds{n}", **ETA_0, **EDM}, {"name": f"etd_erk{n}", **EDM}) for n in (2, 3)),
        ("dpm_solver2", {"name": "seeds2", "prediction": "noise", **ETA_0}),
        ("dpm_solver3", {"name": "seeds3", "prediction": "noise", **ETA_0}),
        ("dpmpp_2m", UNIP),
        ("res_2m", {"name": "dpmpp_2m", "solver_type": "heun", "lower_order_final": False}),
        ("exp_rk", {"name": "etd_erk2", "variant": "b"}),  # RES 2s
        ({"name": "exp_rk", "tableau": "res_3s"}, {"name": "etd_erk3", "c2": 0.5, "c3": 1.0}),
        *(
            (
                {"name": "exp_rk", "tableau": "hochbruck_ostermann", "prediction": p},
                {"name": "etd_erk4", "prediction": p},
            )
            for p in ("data", "noise", "edm")
        ),
        ({"name": "exp_rk", "tableau": "etd2rk"}, {"name": "etd_erk2", "variant": "b", "c2": 1.0}),
        ({"name": "exp_rk", "eta": 1.0}, {"name": "seeds2", "variant": "b"}),
        ({"name": "gradient_estimation", "gamma": 1.0}, "ddim"),
        ({"name": "dpmpp_3m", "solver_type": "midpoint"}, {**UNIP, "solver_order": 3}),
        (
            {"name": "dpmpp_3m", "solver_type": "heun", "prediction": "noise"},
            {"name": "sa_solver", "tau_value": 0.0, "corrector_order": 0, "prediction": "noise"},
        ),
        ({"name": "unipc", "variant": "bh1"}, {**SA, "tau_value": 0.0, "slope": "bh1"}),
        ({**SA, "tau_start": 100.0, "tau_end": 0.0, "predictor_order": 1, "corrector_order": 0}, "seeds1"),
    ],
)
def test_methods_that_are_the_same_in_every_schedule(one, other):
    for schedule, final in (("linear", "stop"), ("ve", "denoise"), ("vp", "stop"), ("discrete", "denoise")):
        path = {"sigmas": LEVELS, "schedule": schedule, "final": final}
        first, second = run_on(one, **path), run_on(other, **path)
        same(first.x, second.x)
        assert first.nfe.tolist() == second.nfe.tolist()


@pytest.mark.parametrize(
    ("one", "other"), [("euler", "ddim"), ({"name": "seeds1", "prediction": "noise"}, "euler_maruyama")]
)
def test_methods_that_are_the_same_in_sigma(one, other):
    same(run(one), run(other))


@pytest.mark.parametrize("schedule", [Linear(), VE(), VP(fit_range=False)])
def test_rk4_is_the_textbooks(schedule):
    process = Process(mixture(), schedule, 6)
    times = schedule.sigma_inv(LEVELS)
    x = START * LEVELS[0] * schedule.scale_at(LEVELS[0])
    for t, t_next in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        h = t_next - t
        start, middle, end = (torch.tensor(u, dtype=torch.float64) for u in (t, t + h / 2, t_next))
        k1 = process.drift(x, start)
        k2 = process.drift(x + h / 2 * k1, middle)
        k3 = process.drift(x + h / 2 * k2, middle)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + process.drift(x + h * k3, end))
    result = run_on("rk4", sigmas=LEVELS, schedule=schedule, final="stop")
    assert torch.allclose(result.x, x, rtol=1e-9, atol=1e-10)
    assert result.nfe.tolist() == process.nfe.tolist() == [4 * 9] * 6


def test_denoising_is_edms_closing_euler_step():
    same(*(run_on("heun", steps=5, final=final).x for final in ("denoise", "euler")))


EXPONENTIAL = ["seeds1", "seeds2", "seeds3", "dpmpp_2m", "ddim"]
EXPONENTIAL += [{"name": "er_sde", "max_order": order} for order in (1, 2, 3)]


@pytest.mark.parametrize("solver", EXPONENTIAL, ids=str)
def test_vp_and_linear_coordinates_agree_for_exponential_solvers(solver):
    same(run(solver, "vp") * (1 + LEVELS[-1] ** 2).sqrt(), run(solver))


# --- histories and noise of the DPM-Solver family ---------------------------------------------------


def test_sa_solver_may_keep_its_order_to_the_end():
    """Recorded runs show what the others do."""
    options = ("denoise_to_zero", "lower_order_final")
    runs = [run_on({"name": "sa_solver", option: False}, steps=9, final="stop") for option in options]
    assert not torch.allclose(runs[0].x, runs[1].x, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_shorter_than_its_history_takes_lower_orders(steps):
    """No order lacks history: the first steps use what there is."""
    for name, option in (("unipc", "solver_order"), ("sa_solver", "predictor_order")):
        assert torch.equal(*(run_on({"name": name, option: order}, steps=steps).x for order in (steps, 3)))
    lower = {1: "dpm_solver1", 2: {"name": "dpmpp_2m", "solver_type": "heun"}}[steps]
    third = run_on({"name": "dpmpp_3m", "solver_type": "heun"}, steps=steps)
    assert torch.allclose(third.x, run_on(lower, steps=steps).x)
