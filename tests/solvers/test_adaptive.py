"""Adaptive solvers: scipy's own steps, and the rules that all of them keep."""

import pytest
import torch
from scipy.integrate import solve_ivp

import seedsbench
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Linear
from seedsbench.noise import latents
from seedsbench.solvers.parts.adaptive import NO_TOLERANCE
from tests.parity.test_score_sde import SCHEDULES
from tests.support.measure import drift_order, gaussian_moments, log_levels, mixture, weak_orders
from tests.support.measure import run as run_on
from tests.support.parity import close

ADAPTIVE = [name for name in seedsbench.solver_names() if seedsbench.solver(name).adaptive]
PLENTY = 400  # trials, so that the budget rule never acts
SHAPE = (2, 1, 1)


def run(solver, *, trials=PLENTY, indices=range(5), levels=None):
    indices, levels = torch.tensor(indices), log_levels(trials, 40.0, 0.02) if levels is None else levels
    path = {"sigmas": levels, "schedule": "vp", "final": "stop", "seed": 2, "indices": indices}
    return run_on(solver, latents=latents(indices, SHAPE, seed=2), **path)


@pytest.mark.parametrize("rtol", [1e-3, 1e-4])  # much smaller, and the error estimates are rounding errors
@pytest.mark.parametrize("kind", ["vp", "subvp", "ve", "linear"])
def test_rk45_takes_scipys_steps(kind, rtol):
    """Each sample of a batch goes as scipy would take it alone: accepted states and evaluations."""
    schedule = SCHEDULES.get(kind, Linear())
    trials = 40000 if kind == "linear" else PLENTY  # scipy starts with a very short step there
    solver = seedsbench.solver("rk45", rtol=rtol, atol=rtol)
    ends = schedule.sigma_inv(torch.tensor([40.0, 0.05], dtype=torch.float64))
    times = torch.cat([ends[:1], ends[1:].expand(trials)])
    process = Process(mixture(), schedule, 3)
    x = torch.tensor([[0.6, 0.1], [-0.1, 1.0], [-0.3, -0.5]], dtype=torch.float64).reshape(3, *SHAPE)
    x = x * 40 * schedule.scale(ends[0])
    states = [x, *solver.solve(process, x, times, None)]
    for i in range(3):
        alone = Process(mixture(), schedule, 1)

        def slope(t, y, alone=alone):
            y = torch.as_tensor(y).reshape(1, *SHAPE)
            return alone.drift(y, torch.tensor(t, dtype=torch.float64)).flatten().numpy()

        path = [x[i]]
        path += [s[i] for s, before in zip(states[1:], states[:-1], strict=True) if (s[i] != before[i]).any()]
        scipy = solve_ivp(slope, ends.tolist(), x[i].flatten().numpy(), rtol=rtol, atol=rtol)
        assert process.nfe[i] == scipy.nfev == alone.nfe[0]
        close(torch.stack(path).flatten(1), torch.as_tensor(scipy.y.T))


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_path_does_not_depend_on_inner_levels_and_on_neighbours_through_batch_norms_alone(name):
    whole, coupled = run(name, trials=60), run({"name": name, "norms": "batch"}, trials=60)
    alone = [run(name, trials=60, indices=[i]) for i in range(5)]
    assert torch.equal(torch.cat([one.x for one in alone]), whole.x)
    assert [int(one.nfe) for one in alone] == whole.nfe.tolist()
    assert len(set(whole.nfe.tolist())) > 1  # they do finish at different times
    assert len(set(coupled.nfe.tolist())) == 1
    levels = log_levels(60, 40.0, 0.02)
    levels[1:-1] = torch.linspace(39.0, 0.03, 59, dtype=torch.float64)
    assert torch.equal(run(name, levels=levels).x, whole.x)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_run_ends_within_its_budget_however_small_the_tolerance(name):
    solver = seedsbench.solver(name, rtol=NO_TOLERANCE, atol=NO_TOLERANCE)
    for trials in (1, 3, 10):
        result = run(solver, trials=trials)
        assert len(result.trajectory) == trials + 2
        assert result.x.isfinite().all()
        assert int(result.nfe.max()) <= solver.nfe(trials)


@pytest.mark.parametrize("name", [n for n in ADAPTIVE if not seedsbench.solver(n).stochastic])
def test_a_smaller_tolerance_costs_more_and_errs_less(name):
    exact = run({"name": "rk45", "rtol": 1e-11, "atol": 1e-11}, trials=4000).x
    coarse, fine = (run({"name": name, "rtol": tol, "atol": tol}, trials=4000) for tol in (1e-3, 1e-5))
    assert int(coarse.nfe.min()) < int(fine.nfe.min())
    errors = [float((result.x - exact).abs().max()) for result in (coarse, fine)]
    assert errors[1] < 0.2 * errors[0]
    assert errors[1] < 1e-3


def test_a_first_step_given_saves_an_evaluation():
    given = seedsbench.solver("rk45", first_step=0.01)
    assert given.nfe(3) == seedsbench.solver("rk45").nfe(3) - 1
    assert int(run(given, trials=1).nfe[0]) == 7


@pytest.mark.parametrize("order", [2, 3])
def test_orders_of_both_dpm_pairs(order):
    solver = seedsbench.solver("dpm_adaptive", order=order, eta=0.5).noise_free
    assert not solver.stochastic
    measured = drift_order(solver, "linear", (64, 128, 256), high=2.0, low=0.3)
    assert measured == pytest.approx(order, abs=0.3)


@pytest.mark.slow
def test_adaptive_sde_has_weak_order_two_on_uniform_steps_and_keeps_the_variance_of_a_gaussian():
    uniform = seedsbench.solver("adaptive_sde", rtol=NO_TOLERANCE, atol=NO_TOLERANCE)
    assert weak_orders(uniform, 128, std=0.8, high=2.0, low=0.3)[1] == pytest.approx(2, abs=0.1)
    moments = gaussian_moments(uniform, 400, high=2.0, low=0.3)
    assert tuple(moments) == pytest.approx((0.3, 0.25 + 0.09), rel=1e-3)
