"""Adaptive solvers: against scipy and recorded public runs, and the rules that all of them keep."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import seedsbench
from seedsbench.diffusion.noise import Philox, latents
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Linear
from seedsbench.noise import Recorded
from seedsbench.solvers.parts.adaptive import NO_TOLERANCE
from seedsbench.solvers.parts.pc_predictors import UniformTable, reverse, tabulated
from tests.parity.test_edm_and_seeds import close
from tests.parity.test_score_sde import SCHEDULES, SCORE_SDE
from tests.support.golden import golden
from tests.support.measure import drift_order, gaussian_moments, log_levels, mixture, weak_orders

ADAPTIVE = [name for name in seedsbench.solver_names() if seedsbench.solver(name).adaptive]
KDIFFUSION = [case for case in golden("kdiffusion").cases if case.startswith("sample_dpm_adaptive")]
ODE = [case for case in SCORE_SDE.cases if case.startswith("ode_")]
PLENTY = 400  # trials, so that the budget rule never acts
SHAPE = (2, 1, 1)


def test_every_recorded_case_is_used():
    assert (len(KDIFFUSION), len(ODE)) == (7, 6)
    assert set(ADAPTIVE) >= {"rk45", "dopri5", "dpm_adaptive", "adaptive_sde"}


def run(solver, *, trials=PLENTY, n=5, high=40.0, low=0.02, schedule="vp", noise=None, indices=None):
    indices = torch.arange(n) if indices is None else indices
    return seedsbench.sample(
        mixture(),
        latents(indices, SHAPE, seed=2),
        solver=solver,
        sigmas=log_levels(trials, high, low),
        schedule=schedule,
        final="stop",
        noise=noise or Philox(indices, SHAPE, seed=2),
        return_trajectory=True,
    )


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


@pytest.mark.parametrize("case", ODE)
def test_probability_flow_of_score_sde(case):
    """The reference casts the state to float32 at each evaluation: it agrees to 1e-7 of the largest state.

    It solves the whole batch as one system (norms=batch), and ends in a predictor step of N = 1000.
    """
    s = SCORE_SDE.cases[case]
    schedule, start = SCHEDULES[s["kind"]], SCORE_SDE.tensor(case, "x_init")
    ends = torch.tensor([1.0, s["eps"]], dtype=torch.float64)
    sigmas = schedule.sigma(ends)
    result = seedsbench.sample(
        mixture(),
        start / (sigmas[0] * schedule.scale_at(sigmas[0])),
        solver={"name": "rk45", "rtol": s["rtol"], "atol": s["atol"], "norms": "batch"},
        sigmas=log_levels(60, *sigmas.tolist()),
        schedule=schedule,
        return_trajectory=True,
    )
    assert result.nfe.tolist() == [s["nfe"] + 1] * len(start)
    x = result.trajectory[-2]
    if s["denoise"]:
        scale = schedule.scale_at(sigmas[1])
        score = (scale * result.x - x) / (scale * sigmas[1]) ** 2
        x = reverse(x, score, tabulated(UniformTable(schedule, 1000), ends[1]), 1.0)
    error = (x - SCORE_SDE.tensor(case, "x_final")).abs().max()
    assert error <= 1e-7 * max(1.0, float(start.abs().max()))


@pytest.mark.parametrize("case", KDIFFUSION)
def test_dpm_adaptive_of_k_diffusion(case):
    """The reference draws noise for accepted steps alone, here each trial has its own: line them up."""
    data = golden("kdiffusion")
    options, info = data.cases[case]["kwargs"], data.cases[case]["info"]
    begun = data.array(case, "call_sigma").reshape(info["steps"], -1)[:, 0]
    accepted = np.append(begun[1:] != begun[:-1], True)
    noise = data.tensor(case, "noise")[np.cumsum(accepted) - accepted]
    result = seedsbench.sample(
        mixture(),
        data.tensor(case, "latents"),
        solver={"name": "dpm_adaptive", "norms": "batch", "compat": "k_diffusion", **options},
        sigmas=log_levels(PLENTY, 80.0, 0.02),
        final="stop",
        noise=Recorded(noise),
        return_trajectory=True,
    )
    assert len(result.trajectory) - 2 == info["steps"]
    # It evaluates the start of a step again after a rejection, which changes nothing.
    assert result.nfe.tolist() == [info["nfe"] - info["n_reject"]] * 2
    assert float((result.x - data.tensor(case, "x_final")).abs().max()) <= 1e-10 * 80


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_path_does_not_depend_on_neighbours_or_inner_levels(name):
    whole = run(name, trials=60)
    alone = [run(name, trials=60, indices=torch.tensor([i])) for i in range(5)]
    assert torch.equal(torch.cat([one.x for one in alone]), whole.x)
    assert [int(one.nfe) for one in alone] == whole.nfe.tolist()
    assert len(set(whole.nfe.tolist())) > 1  # they do finish at different times
    levels = log_levels(60, 40.0, 0.02)
    levels[1:-1] = torch.linspace(39.0, 0.03, 59, dtype=torch.float64)
    again = seedsbench.sample(
        mixture(),
        latents(torch.arange(5), SHAPE, seed=2),
        solver=name,
        sigmas=levels,
        schedule="vp",
        final="stop",
        noise=Philox(torch.arange(5), SHAPE, seed=2),
    )
    assert torch.equal(again.x, whole.x)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_batch_norms_share_every_step(name):
    coupled = run({"name": name, "norms": "batch"})
    assert len(set(coupled.nfe.tolist())) == 1


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


def test_orders_of_both_dpm_pairs():
    for order in (2, 3):
        solver = seedsbench.solver("dpm_adaptive", order=order, eta=0.5).noise_free
        assert not solver.stochastic
        assert drift_order(solver, "linear", (64, 128, 256), high=2.0, low=0.3) == pytest.approx(
            order, abs=0.3
        )


def test_adaptive_sde_has_weak_order_two_on_uniform_steps():
    uniform = seedsbench.solver("adaptive_sde", rtol=NO_TOLERANCE, atol=NO_TOLERANCE)
    assert weak_orders(uniform, 128, std=0.8, high=2.0, low=0.3)[1] == pytest.approx(2, abs=0.1)


def test_adaptive_sde_keeps_the_variance_of_a_gaussian():
    mean, variance = gaussian_moments(
        seedsbench.solver("adaptive_sde", rtol=NO_TOLERANCE, atol=NO_TOLERANCE), 400, high=2.0, low=0.3
    )
    assert (mean, variance) == pytest.approx((0.3, 0.25 + 0.09), rel=1e-3)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_adaptive_sde_accepts_more_with_the_mean_square_error(norm):
    result = run({"name": "adaptive_sde", "error_norm": norm})
    assert result.x.isfinite().all()
    assert int(result.nfe.max()) < 2 * PLENTY
