"""What the DPM-Solver family promises beside its golden data: identities, orders lowered, refusals."""

import pytest
import torch

import seedsbench
from tests.support.measure import run

UNIP = {"name": "unipc", "corrector": False}
SA = {"name": "sa_solver", "predictor_order": 2, "corrector_order": 3}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dpm_solver1", "ddim"),
        ("dpm_solver1", {**UNIP, "solver_order": 1}),
        ("dpmpp_2s", {"name": "seeds2", "eta": 0.0}),
        ("dpm_solver2", {"name": "seeds2", "eta": 0.0, "prediction": "noise"}),
        ("dpm_solver3", {"name": "seeds3", "eta": 0.0, "prediction": "noise"}),
        ("dpmpp_2m", UNIP),
        ({"name": "dpmpp_3m", "solver_type": "midpoint"}, {**UNIP, "solver_order": 3}),
        (
            {"name": "dpmpp_3m", "solver_type": "heun", "prediction": "noise"},
            {"name": "sa_solver", "tau_value": 0.0, "corrector_order": 0, "prediction": "noise"},
        ),
        ({"name": "unipc", "variant": "bh1"}, {**SA, "tau_value": 0.0, "slope": "bh1"}),
        ({**SA, "tau_start": 100.0, "tau_end": 0.0, "predictor_order": 1, "corrector_order": 0}, "seeds1"),
    ],
)
def test_methods_that_are_the_same(one, other):
    assert torch.allclose(run(one, steps=9).x, run(other, steps=9).x, rtol=0, atol=1e-11)


def test_lower_order_final_of_the_multistep_solvers():
    """Without the step to zero the last grid step is DDIM; with it, of order 2 at most."""
    for name in ("dpmpp_2m", "dpmpp_3m", "unipc", "sa_solver"):
        choices = {"name": name, "denoise_to_zero": False}, {"name": name, "lower_order_final": False}
        assert not torch.allclose(*(run(choice, steps=9, final="stop").x for choice in choices), atol=1e-9)
    for name, same in (("dpmpp_2m", True), ("dpmpp_3m", False)):
        choices = name, {"name": name, "lower_order_final": False}
        assert torch.equal(*(run(choice, steps=9).x for choice in choices)) == same


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_shorter_than_its_history_takes_lower_orders(steps):
    """No order lacks history: the first steps use what there is."""
    for name, option in (("unipc", "solver_order"), ("sa_solver", "predictor_order")):
        assert torch.equal(*(run({"name": name, option: order}, steps=steps).x for order in (steps, 3)))
    lower = {1: "dpm_solver1", 2: {"name": "dpmpp_2m", "solver_type": "heun"}}[steps]
    third = run({"name": "dpmpp_3m", "solver_type": "heun"}, steps=steps)
    assert torch.allclose(third.x, run(lower, steps=steps).x)


def test_noise_lies_in_the_interval_of_tau_alone():
    quiet = {"name": "sa_solver", "tau_start": 0.9, "tau_end": 0.5}
    levels = [10.0, 1.0, 0.4, 0.1]  # no step begins between 0.5 and 0.9
    choices = quiet, {**quiet, "tau_value": 0.0}, "sa_solver"
    silent, none, noisy = (run(choice, sigmas=levels).x for choice in choices)
    assert torch.equal(silent, none)
    assert not torch.equal(noisy, silent)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "sa_solver", "tau_start": 0.01}, r"tau_start=0.01 must lie in \[0.72, inf\]"),
        ({"name": "dpm_solver3", "r1": 0.7}, "r1=0.7 must be less than r2=0.66"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        seedsbench.solver(**choice)
