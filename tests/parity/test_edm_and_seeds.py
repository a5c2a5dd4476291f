"""EDM's samplers and the released SEEDS code, replayed with their recorded noise.

Left out of seeds_etd_erk, and nothing else: order 4, which has order 2 there, and order 3 of the
EDM-specific class, which has order 1 (its last stage starts from the wrong state). The release leaves x
alone in its last step, to t = 0, so its trajectory is ours with final="stop".
"""

import pytest
import torch

import seedsbench
from seedsbench.noise import Recorded
from tests.support.golden import cases, golden, mixture_parameters
from tests.support.measure import run as sample
from tests.support.parity import (
    built,
    close,
    edm_choice,
    is_edm_branch,
    released_vp_ends,
    run_from,
    schedule_of,
    seeds_solver,
)

IDDPM = torch.as_tensor(golden("nv_precond_tables").array("iddpm_default", "u")).double()


def denoiser(settings, **limits):
    """The golden mixture with the rounding of the case's network."""
    if settings["net_regime"] == "iddpm":
        limits["sigma_table"] = IDDPM
    return seedsbench.analytic.GaussianMixture(*mixture_parameters(), **limits)


@pytest.mark.parametrize("case", cases("nv_edm_sampler") + cases("nv_ablation_sampler"), ids=str)
def test_edm_and_ablation_sampler(case):
    s = case.settings
    model = denoiser(s, sigma_min=s["net_sigma_min"], sigma_max=s["net_sigma_max"])
    got = sample(denoiser=model, latents=case["latents"], noise=case.noise(), **edm_choice(s))
    close(got.trajectory, case["x_traj"])


# --- SEEDS ------------------------------------------------------------------------------------------


def right_path(s):
    """Released stochastic branches that ran, with the noise and the nodes at which their path is right.

    c2 away from its default gives the release wrong stage-noise weights; its discrete noise is biased.
    """
    return s.get("status") == "ok" and "net_class" in s and not s.keys() & {"noise_type", "c2"}


def right_order(s):
    return "S_churn" not in s and s["order"] < 4 and not (s["order"] == 3 and is_edm_branch(s))


SERK, COMBOS = (cases(name, right_path) for name in ("seeds_etd_serk", "seeds_combos"))
ERK = cases("seeds_etd_erk", right_order)
CHURNED = cases("seeds_etd_erk", lambda s: "S_churn" in s)


def test_every_right_case_is_used():
    assert [len(found) for found in (SERK, COMBOS, ERK, CHURNED)] == [94, 282, 134, 5]
    assert [len(cases(name)) for name in ("seeds_etd_serk", "seeds_etd_erk", "seeds_rk")] == [175, 153, 30]


def etd_solver(s):
    """etd_erk1 to etd_erk3: the SEEDS twins under their own names, at the recorded nodes."""
    choice = {**seeds_solver(s), "name": f"etd_erk{s['order']}"}
    return choice | ({"c2": s["c2"]} if "c2" in s else {})


def fitted(s):
    """Schedule, grid and range of the released code: its VP default has beta_d 19.1."""
    schedule, grid = built("schedule", schedule_of(s)), built("grid", s["discretization"])
    low, high = s["net_sigma_min"], s["net_sigma_max"]
    ends = released_vp_ends() if s["discretization"] == "vp" else grid.range(low, high)
    low, high = max(ends[0], low), min(ends[1], high)
    return schedule.through(low, high), grid, low, high


def run(case, solver, final="stop"):
    """States of a released run, whose generic solvers add -z and the EDM ones +z."""
    s, noise = case.settings, None
    if s["solver"] == "etd-serk":
        noise = Recorded(case["noise"] if is_edm_branch(s) else -case["noise"])
    path = {"sigmas": fitted(s)[0].sigma(case["t"][:-1]), "schedule": schedule_of(s), "final": final}
    return sample(solver, denoiser(s), case["latents"], noise=noise, **path).trajectory


@pytest.mark.parametrize("case", SERK + COMBOS, ids=str)
def test_seeds(case):
    close(run(case, seeds_solver(case.settings)), case["x_traj"])


def test_seeds3_and_its_release_differ_where_the_release_departs():
    departing = [case for case in COMBOS if "asreleased" in seeds_solver(case.settings)["name"]]
    assert len(departing) > 40
    for case in departing[:6]:
        choice = {**seeds_solver(case.settings), "name": "seeds3"}
        assert (run(case, choice) - case["x_traj"]).abs().max() > 1e-3


@pytest.mark.parametrize("case", ERK, ids=str)
def test_etd_erk(case):
    close(run(case, etd_solver(case.settings)), case["x_traj"])


@pytest.mark.parametrize("case", CHURNED, ids=str)
def test_etd_erk_from_churned_levels(case):
    """Each step alone, from the state after churn at t_hat to the grid's next level."""
    s = case.settings
    unchurned = next(other.settings for other in ERK if other.settings["net_regime"] == s["net_regime"])
    schedule, grid, low, high = fitted({**unchurned, **s})
    model = denoiser(s)
    levels = model.round_sigma(grid.levels(s["num_steps"], low, high, schedule))
    start = schedule.sigma(case["t_hat"])
    for i in range(s["num_steps"] - 1):
        path = {"sigmas": torch.stack([start[i], levels[i + 1]]), "schedule": schedule, "final": "stop"}
        close(run_from(case["x_hat"][i], model, etd_solver(s), **path).x, case["x_next"][i])


@pytest.mark.parametrize("case", cases("seeds_rk"), ids=str)
def test_rk(case):
    """Its second order is a two-stage rule at c2 whose last step, to 0, is Euler's."""
    s = case.settings
    solver = {"name": "heun", "alpha": s.get("c2", 1.0)} if s["order"] == 2 else "euler"
    close(run(case, solver, final="euler"), case["x_traj"])
