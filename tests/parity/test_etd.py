"""The ODE solvers of the released SEEDS code: exponential Runge-Kutta (etd-erk) and Runge-Kutta (rk).

Left out of seeds_etd_erk, and nothing else: order 4, which has order 2 there, and order 3 of the
EDM-specific class, which has order 1 (its last stage starts from the wrong state). The release leaves x
alone in its last step, to t = 0, so its trajectory is ours with final="stop".
"""

import pytest
import torch

import seedsbench
from seedsbench import registry
from tests.parity.test_edm_and_seeds import cases, close, denoiser, is_edm_branch, run_seeds, seeds_range
from tests.support.golden import golden


def churned(s):
    return "S_churn" in s


def right(s):
    if churned(s):
        return True
    return s["order"] < 4 and not (s["order"] == 3 and is_edm_branch(s))


ERK = cases("seeds_etd_erk", lambda s: right(s) and not churned(s))
CHURNED = cases("seeds_etd_erk", churned)


def test_every_right_case_is_covered():
    assert (len(golden("seeds_etd_erk").cases), len(ERK), len(CHURNED)) == (153, 134, 5)


def choice(s):
    prediction = "edm" if is_edm_branch(s) else "noise" if s["noise_pred"] else "data"
    made = {"name": f"etd_erk{s['order']}", "prediction": prediction}
    if "butcher_type" in s and not is_edm_branch(s):  # the EDM class ignores it
        made["variant"] = s["butcher_type"][-1]
    return made | ({"c2": s["c2"]} if "c2" in s else {})


@pytest.mark.parametrize("case", ERK)
def test_etd_erk(case):
    data = golden("seeds_etd_erk")
    close(run_seeds("seeds_etd_erk", case, choice(data.cases[case])), data.tensor(case, "x_traj"))


@pytest.mark.parametrize("case", CHURNED)
def test_etd_erk_from_churned_levels(case):
    """Each step alone, from the state after churn at t_hat to the grid's next level."""
    data = golden("seeds_etd_erk")
    limits = {
        o["net_regime"]: {key: o[key] for key in ("net_sigma_min", "net_sigma_max")}
        for o in (data.cases[c] for c in ERK)
    }
    s = data.cases[case] | limits[data.cases[case]["net_regime"]]
    chosen = {"name": s["schedule"], "scaling": s["scaling"]}
    low, high = seeds_range(s)
    schedule = registry.build(registry.configured("schedule", chosen)).through(low, high)
    grid = registry.build(registry.configured("grid", s["discretization"]))
    model = denoiser(s, limited=False)
    levels = model.round_sigma(grid.levels(s["num_steps"], low, high, schedule))
    start = schedule.sigma(data.tensor(case, "t_hat"))
    for i in range(s["num_steps"] - 1):
        x = data.tensor(case, "x_hat")[i]
        result = seedsbench.sample(
            model,
            x / (start[i] * schedule.scale_at(start[i])),
            solver=choice({**s, "noise_pred": False}),
            sigmas=torch.stack([start[i], levels[i + 1]]),
            schedule=schedule,
            final="stop",
        )
        close(result.x, data.tensor(case, "x_next")[i])


@pytest.mark.parametrize("case", cases("seeds_rk"))
def test_rk(case):
    data = golden("seeds_rk")
    s = data.cases[case]
    schedule = registry.build(
        registry.configured("schedule", {"name": s["schedule"], "scaling": s["scaling"]})
    ).through(*seeds_range(s))
    # Its second order is a two-stage rule at c2 whose last step, to 0, is Euler's.
    solver = {"name": "heun", "alpha": s.get("c2", 1.0)} if s["order"] == 2 else "euler"
    result = seedsbench.sample(
        denoiser(s, limited=False),
        data.tensor(case, "latents"),
        solver=solver,
        sigmas=schedule.sigma(data.tensor(case, "t")[:-1]),
        schedule=schedule,
        final="euler",
        return_trajectory=True,
    )
    close(result.trajectory, data.tensor(case, "x_traj"))


def test_rk_is_whole():
    assert len(cases("seeds_rk")) == 30
