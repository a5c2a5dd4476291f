"""Orders that the project claims of solvers and of the options that change them, declared and measured.

What every solver declares of its defaults is measured in test_solver_contract.py and test_certify.py.
"""

import math

import pytest

import seedsbench
from seedsbench.certify.weak import is_affine
from tests.support.measure import drift_order, gaussian_moments, weak_orders

UNIP = {"corrector": False}
TAU_0, SDE = {"tau_value": 0.0}, {"tau_start": 100.0, "tau_end": 0.0}
# Solver and order: options that have it. Stages at the end of the step (c2 = 1 at eta = 0) are ComfyUI's
# exp_heun_2_x0.
DRIFT = {
    ("seeds1", 1): [{"prediction": "edm"}],
    ("seeds2", 2): [
        *({"c2": 0.4}, {"c2": 1.0}, {"c2": 1.0, "variant": "b"}, {"c2": 1.0, "prediction": "noise"}),
        {"prediction": "edm"},
    ],
    ("seeds3", 3): [
        *({"c2": 0.4}, {"c2": 0.4, "c3": 0.9}, {"c2": 0.8, "c3": 0.3}, {"c2": 0.5, "c3": 1.0}, {"c2": 1.0}),
        *({"c2": 1.0, "c3": 0.5, "variant": "b"}, {"variant": "b"}, {"eta": 0.0}),
        *({"prediction": "noise"}, {"prediction": "edm"}, {"prediction": "edm", "eta": 0.5}),
    ],
    ("etd_erk2", 2): [{"c2": 1.0}],
    ("etd_erk3", 3): [{"c2": 1.0, "c3": 0.5}],
    ("heun", 2): [{"alpha": 0.5}],
    ("karras_sde", 2): [{"S_churn": 0.0}],
    ("dpm_solver2", 2): [{"r1": 0.3}],
    ("dpm_solver3", 3): [{"r1": 0.5}],
    ("dpmpp_2s", 2): [{"r1": 1.0}],
    ("dpmpp_2m", 2): [{"solver_type": "heun"}, {"prediction": "noise"}],
    ("unipc", 1): [{**UNIP, "solver_order": 1}],
    ("unipc", 2): [{"solver_order": 1}, UNIP],
    ("unipc", 3): [{"variant": "bh1", "prediction": "noise"}, {**UNIP, "solver_order": 3}],
    ("sa_solver", 2): [{**TAU_0, "predictor_order": 1, "corrector_order": 2}],
    ("sa_solver", 3): [{**TAU_0, "corrector_order": 0}],
    ("er_sde", 1): [{"max_order": 1, "noise_scale": "er_sde_5"}],
    ("er_sde", 2): [{"compat": "paper"}, *({"max_order": 2, "noise_scale": s} for s in ("ode", "er_sde_5"))],
    ("er_sde", 3): [{"noise_scale": "ode"}, {"noise_scale": "er_sde_4"}],
}
# Their terms of higher order are large at first.
FINER = {
    ("dpm_solver3", 2): [{"r2": 0.75}],
    ("dpmpp_3m", 3): [{"prediction": "noise"}],
    ("sa_solver", 1): [{**TAU_0, "predictor_order": 2, "corrector_order": 1}],
    ("lms", 1): [{"order": 1}],
    ("lms", 2): [{"order": 2}],
    ("lms", 3): [{"order": 3}],
    ("dpm_fast", 2): [{"remainder": 0}],
    ("dpm_fast", 3): [{"remainder": 2}],
    ("dpmpp_sde", 2): [{"r": 0.3, "eta": 0.0}],
    ("dpmpp_2m_sde", 2): [{"solver_type": "heun"}],
    ("dpmpp_3m_sde", 3): [{"eta": 0.0}],
}
FINEST = {
    ("dpmpp_3m", 2): [{"compat": "diffusers"}],
    ("dpmpp_3m_sde", 2): [{"eta": 0.0, "compat": "k_diffusion"}],
}


@pytest.mark.parametrize(
    ("steps", "name", "options", "wanted"),
    [
        pytest.param(
            steps,
            name,
            options,
            wanted,
            marks=pytest.mark.slow if steps > 32 or options != choices[0] else (),
        )
        for steps, table in ((32, DRIFT), (64, FINER), (128, FINEST))
        for (name, wanted), choices in table.items()
        for options in choices
    ],
)
def test_drift_order(steps, name, options, wanted):
    solver = seedsbench.solver(name, **options)
    assert solver.order == wanted
    assert drift_order(solver, counts=(steps, 2 * steps, 4 * steps)) == pytest.approx(wanted, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "declared", "measured"),
    [
        *(("unipc", {"solver_order": order}, min(order + 1, 3), min(order + 1, 3)) for order in (1, 2, 3)),
        *(("unipc", {"solver_order": order, "disable_corrector": 1}, 2, 2) for order in (1, 2, 3)),
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


# Solver, options, order and steps.
SEEDS = [("seeds1", {}, 1), *(("seeds2", options, 2) for options in ({}, {"c2": 0.4}, {"c2": 1.0}))]
SEEDS += [("seeds3", {}, 2), ("seeds3", {"c2": 0.4}, 2)]
VARIANCE = [pytest.param(*row, 128) for row in SEEDS]
VARIANCE += [
    pytest.param("sa_solver", SDE | options, order, 256, marks=pytest.mark.slow if options else ())
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


@pytest.mark.parametrize(("name", "options", "wanted", "steps"), VARIANCE)
def test_weak_variance_order(name, options, wanted, steps):
    solver = seedsbench.solver(name, **options)
    assert solver.weak_order == wanted
    assert weak_orders(solver, steps)[1] == pytest.approx(wanted, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"prediction": "noise"}, {"prediction": "edm"}, {"variant": "b"}, {"eta": 0.5}]
)
@pytest.mark.parametrize("name", ["seeds2", "seeds3"])
@pytest.mark.parametrize(("steps", "least"), [(128, 1.7), (256, 1.85)])
def test_weak_order_two_in_every_prediction(name, options, steps, least):
    # A narrow range of noise levels: elsewhere the error of some changes sign near these step counts.
    orders = weak_orders({"name": name, **options}, steps, std=0.8, low=0.2)
    assert min(o for o in orders if not math.isnan(o)) > least


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("euler_ancestral", {"eta": 0.5}, 1),
        ("dpm2_ancestral", {"eta": 0.5}, 2),
        ("dpm_fast", {"eta": 1.0}, 2),
        ("dpm_fast", {"eta": 1.0, "remainder": 2}, 3),
        *(("dpmpp_sde", options, 2) for options in ({"eta": 0.5, "r": 0.3}, {"noise_law": "tree"})),
        ("dpmpp_sde", {"noise_law": "independent"}, 1),
        ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.5}, 2),
        # er_sde_5 has little noise: at order 3 what is left of order 2 is below the error of order three.
        *(("er_sde", {"max_order": k, "noise_scale": "er_sde_5"}, k) for k in (1, 2)),
        *(("er_sde", {"max_order": k, "noise_scale": "sde"}, min(k, 2)) for k in (1, 2, 3)),
        *(("er_sde", {"max_order": k, "noise_scale": "er_sde_3"}, min(k, 2)) for k in (1, 2, 3)),
    ],
)
def test_weak_order(name, options, wanted):
    # A narrow range of noise levels, where the order shows with few steps.
    solver = seedsbench.solver(name, **options)
    orders = weak_orders(solver, 64, std=0.8, low=0.2)
    assert [order for order in orders if not math.isnan(order)] == pytest.approx([wanted], abs=0.25)
    assert name != "er_sde" or solver.weak_order == wanted


@pytest.mark.one_of_each_family
def test_weak_orders_hold_on_the_flow_schedule(solver_name):
    """From t = 0.95 to 0.17, in its scaled coordinates; on unscaled schedules: test_certify.py."""
    solver = seedsbench.solver(solver_name)
    if solver.weak_order is None or not is_affine(solver):
        pytest.skip("no weak order on a Gaussian to measure")
    orders = weak_orders(solver, 128, std=0.8, low=0.2, schedule="flow")
    assert min(o for o in orders if not math.isnan(o)) > solver.weak_order - 0.35


@pytest.mark.parametrize("name", ["seeds1", "seeds2", "seeds3"])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_data_prediction_has_the_exact_conditional_mean_on_a_gaussian(name, steps):
    mean, _ = gaussian_moments(name, steps)
    assert mean == pytest.approx(0.3, abs=1e-12)
