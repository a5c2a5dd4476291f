"""What the DPM-Solver family promises beside its golden data: orders of options, identities, refusals."""

import pytest
import torch

import seedsbench
from tests.support.measure import drift_order, mixture, weak_orders

UNIP = {"name": "unipc", "corrector": False}
SDE = {"name": "sa_solver", "tau_start": 100.0, "tau_end": 0.0}


@pytest.mark.parametrize(
    "choice",
    [
        {"name": "dpm_solver2", "r1": 0.3},
        {"name": "dpm_solver3", "r1": 0.5},
        {"name": "dpm_solver3", "r2": 0.75},
        {"name": "dpmpp_2s", "r1": 1.0},
        {"name": "dpmpp_2m", "solver_type": "heun"},
        {"name": "dpmpp_2m", "prediction": "noise"},
        {"name": "dpmpp_3m", "prediction": "noise"},
        {"name": "dpmpp_3m", "compat": "diffusers"},
        {"name": "unipc", "solver_order": 1},
        {"name": "unipc", "variant": "bh1", "prediction": "noise"},
        {"name": "sa_solver", "tau_value": 0.0, "corrector_order": 0},
        {"name": "sa_solver", "tau_value": 0.0, "predictor_order": 1, "corrector_order": 2},
        {"name": "sa_solver", "tau_value": 0.0, "predictor_order": 2, "corrector_order": 1},
        UNIP,
        {**UNIP, "solver_order": 1},
        {**UNIP, "solver_order": 3},
    ],
)
def test_drift_order_of_options(choice):
    counts = (64, 128, 256)
    if choice in ({"name": "dpm_solver3", "r2": 0.75}, {"name": "dpmpp_3m", "compat": "diffusers"}):
        counts = (128, 256, 512)  # the term of order 3 is large at first
    assert drift_order(choice, counts=counts) == pytest.approx(seedsbench.solver(**choice).order, abs=0.3)


@pytest.mark.parametrize(
    ("choice", "order"),
    [
        ({"name": "unipc", "solver_order": 1}, 2),
        ({"name": "unipc", "solver_order": 2}, 3),
        ({"name": "unipc", "solver_order": 3}, 3),
        ({"name": "unipc", "solver_order": 1, "disable_corrector": 1}, 2),
        ({"name": "unipc", "solver_order": 2, "disable_corrector": 1}, 2),
        ({"name": "unipc", "solver_order": 3, "disable_corrector": 1}, 2),
        ({**UNIP, "solver_order": 3}, 2),
        ("dpmpp_3m", 2),
    ],
)
def test_drift_order_from_a_low_level(choice, order):
    """Where the prediction changes at once, a first step that is not corrected leaves an error of order 2."""
    assert drift_order(choice, counts=(64, 128, 256), high=1.0) == pytest.approx(order, abs=0.2)
    if choice != "dpmpp_3m" and choice.get("corrector", True):
        assert seedsbench.solver(**choice).order == order


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"predictor_order": 1, "corrector_order": 0},
        {"predictor_order": 2, "corrector_order": 0},
        {"predictor_order": 1, "corrector_order": 2},
        {"predictor_order": 2, "corrector_order": 2, "prediction": "noise"},
        {"predictor_order": 2, "corrector_order": 2, "slope": "bh1"},
        {"tau_value": 0.5},
    ],
)
def test_weak_variance_order_of_sa_solver(options):
    choice = SDE | options
    assert weak_orders(choice, 256)[1] == pytest.approx(seedsbench.solver(**choice).weak_order, abs=0.15)


def run(choice, **options):
    latents = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(8, 2, 1, 1)
    options = {"steps": 9, **options}
    return seedsbench.sample(mixture(), latents, solver=choice, **options).x


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
        (
            {"name": "unipc", "variant": "bh1"},
            {
                "name": "sa_solver",
                "tau_value": 0.0,
                "predictor_order": 2,
                "corrector_order": 3,
                "slope": "bh1",
            },
        ),
        ({**SDE, "predictor_order": 1, "corrector_order": 0}, "seeds1"),
    ],
)
def test_methods_that_are_the_same(one, other):
    assert torch.allclose(run(one), run(other), rtol=0, atol=1e-11)


def test_lower_order_final_of_the_multistep_solvers():
    """Without the step to zero the last grid step is DDIM; with it, of order 2 at most."""
    for name in ("dpmpp_2m", "dpmpp_3m", "unipc", "sa_solver"):
        choice = {"name": name, "denoise_to_zero": False}
        off = {"name": name, "lower_order_final": False}
        assert not torch.allclose(run(choice, final="stop"), run(off, final="stop"), atol=1e-9)
    assert torch.equal(run("dpmpp_2m"), run({"name": "dpmpp_2m", "lower_order_final": False}))
    assert not torch.allclose(run("dpmpp_3m"), run({"name": "dpmpp_3m", "lower_order_final": False}))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_shorter_than_its_history_takes_lower_orders(steps):
    """No order lacks history: the first steps use what there is."""
    for name, option in (("unipc", "solver_order"), ("sa_solver", "predictor_order")):
        least = run({"name": name, option: steps}, steps=steps)
        assert torch.equal(run({"name": name, option: 3}, steps=steps), least)
    lower = {1: "dpm_solver1", 2: {"name": "dpmpp_2m", "solver_type": "heun"}}[steps]
    assert torch.allclose(
        run({"name": "dpmpp_3m", "solver_type": "heun"}, steps=steps), run(lower, steps=steps)
    )


def test_noise_lies_in_the_interval_of_tau_alone():
    quiet = {"name": "sa_solver", "tau_start": 0.9, "tau_end": 0.5}
    levels = [10.0, 1.0, 0.4, 0.1]  # no step begins between 0.5 and 0.9
    options = {"steps": None, "sigmas": levels}
    assert torch.equal(run(quiet, **options), run({**quiet, "tau_value": 0.0}, **options))
    assert not torch.equal(run("sa_solver", **options), run(quiet, **options))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "unipc", "solver_order": 4}, r"solver_order=4 must lie in \[1, 3\]"),
        ({"name": "unipc", "solver_order": 0}, r"solver_order=0 must lie in \[1, 3\]"),
        ({"name": "unipc", "solver_order": 2.5}, "solver_order=2.5 must be an integer"),
        ({"name": "unipc", "variant": "bh3"}, "variant='bh3' must be one of bh1, bh2"),
        ({"name": "unipc", "disable_corrector": -1}, r"disable_corrector=-1 must lie in \[0, 1e\+06\]"),
        ({"name": "sa_solver", "tau_value": 3.0}, r"tau_value=3.0 must lie in \[0, 2\]"),
        ({"name": "sa_solver", "slope": "bh3"}, "slope='bh3' must be one of exact, bh1, bh2"),
        ({"name": "sa_solver", "predictor_order": 4}, r"predictor_order=4 must lie in \[1, 3\]"),
        ({"name": "sa_solver", "corrector_order": 5}, r"corrector_order=5 must lie in \[0, 4\]"),
        ({"name": "sa_solver", "tau_start": 0.01}, r"tau_start=0.01 must lie in \[0.72, inf\]"),
        ({"name": "dpm_solver2", "r1": 0.0}, r"r1=0.0 must lie in \[0.001, 1\]"),
        ({"name": "dpm_solver3", "r1": 0.7}, "r1=0.7 must be less than r2=0.66"),
        ({"name": "dpmpp_2m", "solver_type": "taylor"}, "must be one of midpoint, heun"),
        ({"name": "dpmpp_3m", "prediction": "v"}, "must be one of data, noise"),
    ],
)
def test_refusals(choice, message):
    with pytest.raises(ValueError, match=message):
        seedsbench.solver(**choice)
