"""Orders that the project claims of solvers and of the options that change them, declared and measured.

What every solver declares of its defaults is measured in test_solver_contract.py and test_certify.py.
"""

import math

import pytest
import torch

import seedsbench
from seedsbench.solvers.seeds import Seeds2
from tests.support.measure import drift_order, gaussian_moments, weak_orders

UNIP = {"corrector": False}
TAU_0, SDE = {"tau_value": 0.0}, {"tau_start": 100.0, "tau_end": 0.0}
DRIFT = [
    ("seeds1", {}, 1),
    ("seeds2", {}, 2),
    ("seeds2", {"c2": 0.4}, 2),
    ("seeds3", {}, 3),
    ("seeds3", {"c2": 0.4}, 3),
    ("seeds3", {"c2": 0.4, "c3": 0.9}, 3),
    ("seeds3", {"c2": 0.8, "c3": 0.3}, 3),
    # Stages at the end of the step (c2 = 1 at eta = 0: ComfyUI's exp_heun_2_x0).
    ("seeds2", {"c2": 1.0}, 2),
    ("seeds2", {"c2": 1.0, "variant": "b"}, 2),
    ("seeds2", {"c2": 1.0, "prediction": "noise"}, 2),
    ("etd_erk2", {"c2": 1.0}, 2),
    ("seeds3", {"c2": 1.0}, 3),
    ("seeds3", {"c2": 1.0, "c3": 0.5, "variant": "b"}, 3),
    ("seeds3", {"c2": 0.5, "c3": 1.0}, 3),
    ("etd_erk3", {"c2": 1.0, "c3": 0.5}, 3),
    ("seeds3", {"variant": "b"}, 3),
    ("seeds3", {"prediction": "noise"}, 3),
    ("seeds3", {"prediction": "edm"}, 3),
    ("seeds3", {"prediction": "edm", "eta": 0.5}, 3),
    ("seeds2", {"prediction": "edm"}, 2),
    ("seeds1", {"prediction": "edm"}, 1),
    ("seeds3", {"eta": 0.0}, 3),
    ("heun", {"alpha": 0.5}, 2),
    ("karras_sde", {"S_churn": 0.0}, 2),
    ("dpm_solver2", {"r1": 0.3}, 2),
    ("dpm_solver3", {"r1": 0.5}, 3),
    ("dpmpp_2s", {"r1": 1.0}, 2),
    ("dpmpp_2m", {"solver_type": "heun"}, 2),
    ("dpmpp_2m", {"prediction": "noise"}, 2),
    ("dpmpp_3m", {"prediction": "noise"}, 3),
    ("unipc", {"solver_order": 1}, 2),
    ("unipc", {"variant": "bh1", "prediction": "noise"}, 3),
    ("unipc", UNIP, 2),
    ("unipc", {**UNIP, "solver_order": 1}, 1),
    ("unipc", {**UNIP, "solver_order": 3}, 3),
    ("sa_solver", {**TAU_0, "corrector_order": 0}, 3),
    ("sa_solver", {**TAU_0, "predictor_order": 1, "corrector_order": 2}, 2),
    ("sa_solver", {**TAU_0, "predictor_order": 2, "corrector_order": 1}, 1),
    ("er_sde", {"max_order": 1, "noise_scale": "er_sde_5"}, 1),
    ("er_sde", {"max_order": 2, "noise_scale": "ode"}, 2),
    ("er_sde", {"max_order": 2, "noise_scale": "er_sde_5"}, 2),
    ("er_sde", {"noise_scale": "ode"}, 3),
    ("er_sde", {"noise_scale": "er_sde_4"}, 3),
    ("er_sde", {"compat": "paper"}, 2),
]
# Their terms of higher order are large at first.
FINER = [
    ("dpm_solver3", {"r2": 0.75}, 2),
    ("dpmpp_3m", {"compat": "diffusers"}, 2),
    ("lms", {"order": 1}, 1),
    ("lms", {"order": 2}, 2),
    ("lms", {"order": 3}, 3),
    ("dpm_fast", {"remainder": 0}, 2),
    ("dpm_fast", {"remainder": 2}, 3),
    ("dpmpp_sde", {"r": 0.3, "eta": 0.0}, 2),
    ("dpmpp_2m_sde", {"solver_type": "heun"}, 2),
    ("dpmpp_3m_sde", {"eta": 0.0}, 3),
    ("dpmpp_3m_sde", {"eta": 0.0, "compat": "k_diffusion"}, 2),
]


@pytest.mark.parametrize(
    ("steps", "name", "options", "wanted"),
    [(64, *row) for row in DRIFT] + [(128, *row) for row in FINER],
)
def test_drift_order(steps, name, options, wanted):
    solver = seedsbench.solver(name, **options)
    assert solver.order == wanted
    assert drift_order(solver, counts=(steps, 2 * steps, 4 * steps)) == pytest.approx(wanted, abs=0.3)


@pytest.mark.parametrize(
    ("name", "options", "declared", "measured"),
    [
        ("unipc", {"solver_order": 1}, 2, 2),
        ("unipc", {"solver_order": 2}, 3, 3),
        ("unipc", {"solver_order": 3}, 3, 3),
        ("unipc", {"solver_order": 1, "disable_corrector": 1}, 2, 2),
        ("unipc", {"solver_order": 2, "disable_corrector": 1}, 2, 2),
        ("unipc", {"solver_order": 3, "disable_corrector": 1}, 2, 2),
        ("unipc", {**UNIP, "solver_order": 3}, 3, 2),
        ("dpmpp_3m", {}, 3, 2),
    ],
)
def test_drift_order_from_a_low_level(name, options, declared, measured):
    """Where the prediction changes at once, a first step that is not corrected leaves an error of order 2."""
    solver = seedsbench.solver(name, **options)
    assert solver.order == declared
    assert drift_order(solver, counts=(64, 128, 256), high=1.0) == pytest.approx(measured, abs=0.2)


@pytest.mark.parametrize(("name", "order"), [("midpoint", 2), ("rk4", 4)])
def test_drift_order_in_the_time_of_the_ve_process(name, order):
    assert drift_order(name, "ve", (64, 128, 256)) == pytest.approx(order, abs=0.3)


def test_tiny_eta_is_the_ode_to_rounding():
    for name in ("euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpm_fast"):
        quiet, none = (drift_order({"name": name, "eta": eta}, counts=(8, 16, 32)) for eta in (1e-9, 0.0))
        assert quiet == pytest.approx(none, rel=1e-6)


# --- weak orders ------------------------------------------------------------------------------------

SEEDS = [
    ("seeds1", {}, 1.0),
    ("seeds2", {}, 2.0),
    ("seeds2", {"c2": 0.4}, 2.0),
    ("seeds2", {"c2": 1.0}, 2.0),
    ("seeds3", {}, 2.0),
    ("seeds3", {"c2": 0.4}, 2.0),
]
# Solver, options, order, steps and what the order may miss by.
VARIANCE = [(*row, 128, 0.15) for row in SEEDS] + [
    pytest.param(*row, 512, 0.1, marks=pytest.mark.slow) for row in SEEDS
]
VARIANCE += [
    ("sa_solver", SDE | options, order, 256, 0.15)
    for options, order in (
        ({}, 2),
        ({"predictor_order": 1, "corrector_order": 0}, 1),
        ({"predictor_order": 2, "corrector_order": 0}, 2),
        ({"predictor_order": 1, "corrector_order": 2}, 2),
        ({"predictor_order": 2, "corrector_order": 2, "prediction": "noise"}, 2),
        ({"predictor_order": 2, "corrector_order": 2, "slope": "bh1"}, 2),
        ({"tau_value": 0.5}, 2),
    )
]


@pytest.mark.parametrize(("name", "options", "wanted", "steps", "slack"), VARIANCE)
def test_weak_variance_order(name, options, wanted, steps, slack):
    solver = seedsbench.solver(name, **options)
    assert solver.weak_order == wanted
    assert weak_orders(solver, steps)[1] == pytest.approx(wanted, abs=slack)


@pytest.mark.parametrize(
    "options", [{"prediction": "noise"}, {"prediction": "edm"}, {"variant": "b"}, {"eta": 0.5}]
)
@pytest.mark.parametrize("name", ["seeds2", "seeds3"])
@pytest.mark.parametrize(("steps", "least"), [(128, 1.7), pytest.param(256, 1.85, marks=pytest.mark.slow)])
def test_weak_order_two_in_every_prediction(name, options, steps, least):
    # A narrow range of noise levels: elsewhere the error of some changes sign near these step counts.
    orders = weak_orders({"name": name, **options}, steps, std=0.8, low=0.2)
    assert min(o for o in orders if not math.isnan(o)) > least


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("euler_ancestral", {}, 1),
        ("euler_ancestral", {"eta": 0.5}, 1),
        ("dpm2_ancestral", {}, 2),
        ("dpm2_ancestral", {"eta": 0.5}, 2),
        ("dpmpp_2s_ancestral", {}, 2),
        ("dpm_fast", {"eta": 1.0}, 2),
        ("dpm_fast", {"eta": 1.0, "remainder": 2}, 3),
        ("dpmpp_sde", {}, 2),
        ("dpmpp_sde", {"eta": 0.5, "r": 0.3}, 2),
        ("dpmpp_sde", {"noise_law": "independent"}, 1),
        ("dpmpp_sde", {"noise_law": "tree"}, 2),
        ("dpmpp_2m_sde", {}, 2),
        ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.5}, 2),
        ("dpmpp_3m_sde", {}, 2),
    ],
)
def test_weak_order_of_k_diffusions_samplers(name, options, wanted):
    # A narrow range of noise levels, where the order shows with few steps.
    orders = weak_orders({"name": name, **options}, 64, std=0.8, low=0.2)
    assert [o for o in orders if not math.isnan(o)] == pytest.approx([wanted], abs=0.25)


@pytest.mark.parametrize("name", ["seeds1", "seeds2", "seeds3"])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_data_prediction_has_the_exact_conditional_mean_on_a_gaussian(name, steps):
    mean, _ = gaussian_moments(name, steps)
    assert mean == pytest.approx(0.3, abs=1e-12)


class WrongStageNoise(Seeds2):
    """SEEDS-2 whose stage noise ignores c2."""

    def _path(self, process, splitting, sigmas, noise):
        exact = super()._path(process, splitting, sigmas, noise)
        fresh = noise.increment(*map(splitting.noise_clock, sigmas[:2]))
        return [exact[0], torch.as_tensor(fresh), exact[2]]


def test_wrong_stage_noise_would_be_seen():
    assert weak_orders(WrongStageNoise(), 256)[1] < 1.5
