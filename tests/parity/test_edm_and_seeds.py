"""Trajectories of the public reference implementations, replayed with their recorded noise.

Tolerance: 1e-10 of the largest state of the case (some churned and coarse trajectories reach 1e4, where
float64 itself resolves no better).
"""

import pytest
import torch

import seedsbench
from seedsbench import registry
from seedsbench.diffusion.schedule import VP
from seedsbench.noise import Recorded
from tests.support.golden import golden, mixture_parameters

IDDPM = torch.as_tensor(golden("nv_precond_tables").array("iddpm_default", "u")).double()


def denoiser(settings, *, limited=True):
    """The golden mixture with the range and the rounding of the case's network."""
    limits = {}
    if limited:
        limits = {"sigma_min": settings["net_sigma_min"], "sigma_max": settings["net_sigma_max"]}
    if settings["net_regime"] == "iddpm":
        limits["sigma_table"] = IDDPM
    return seedsbench.analytic.GaussianMixture(*mixture_parameters(), **limits)


def close(got, reference):
    assert got.shape == reference.shape
    error = float((got - reference).abs().max())
    assert error <= 1e-10 * max(1.0, float(reference.abs().max())), error


def churn(settings):
    options = {"S_churn": settings["S_churn"], "S_min": settings.get("S_min", 0)}
    options |= {"S_max": settings.get("S_max", float("inf")), "S_noise": settings.get("S_noise", 1)}
    return {"name": "karras_sde", **{key: float(value) for key, value in options.items()}}


def cases(name, wanted=lambda settings: True):
    return [case for case, settings in golden(name).cases.items() if wanted(settings)]


@pytest.mark.parametrize("case", cases("nv_edm_sampler"))
def test_edm_sampler(case):
    data = golden("nv_edm_sampler")
    settings, churned = data.cases[case], data.has(case, "noise")
    grid = {
        "name": "edm",
        **{k: float(settings[k]) for k in ("rho", "sigma_min", "sigma_max") if k in settings},
    }
    result = seedsbench.sample(
        denoiser(settings),
        data.tensor(case, "latents"),
        solver=churn(settings) if churned else "heun",
        steps=settings["num_steps"] - 1,
        grid=grid,
        noise=Recorded(data.tensor(case, "noise")) if churned else None,
        return_trajectory=True,
    )
    close(result.trajectory, data.tensor(case, "x_traj"))


@pytest.mark.parametrize("case", cases("nv_ablation_sampler"))
def test_ablation_sampler(case):
    data = golden("nv_ablation_sampler")
    settings, churned = data.cases[case], data.has(case, "noise")
    solver = churn(settings) if churned else {"name": settings["solver"]}
    if churned:
        solver["rk_order"] = {"euler": 1, "heun": 2}[settings["solver"]]
    if "alpha" in settings:
        solver["alpha"] = float(settings["alpha"])
    result = seedsbench.sample(
        denoiser(settings),
        data.tensor(case, "latents"),
        solver=solver,
        steps=settings["num_steps"] - 1,
        schedule={"name": settings["schedule"], "scaling": settings["scaling"]},
        grid=settings["discretization"],
        final="euler",
        noise=Recorded(data.tensor(case, "noise")) if churned else None,
        return_trajectory=True,
    )
    close(result.trajectory, data.tensor(case, "x_traj"))


def is_edm_branch(s):
    """Where the released code switches to its EDM solvers (raw-network prediction)."""
    route = (s["discretization"], s["schedule"], s["scaling"])
    return s["noise_pred"] and s["net_class"] == "EDMPrecond" and route == ("edm", "linear", "none")


def seeds_supported(s):
    """Released branches that ran, with the noise and the nodes at which their path is right.

    c2 away from its default gives the release wrong stage-noise weights; its discrete noise is biased.
    """
    ran = s.get("status") == "ok" and "net_class" in s and "noise_type" not in s
    return ran and "c2" not in s


def seeds_choice(s):
    """The solver that reproduces a released branch."""
    prediction = "edm" if is_edm_branch(s) else "noise" if s["noise_pred"] else "data"
    released_departs = s["order"] == 3 and s["solver"] == "etd-serk" and prediction != "edm"
    choice = {
        "name": "seeds3_asreleased" if released_departs else f"seeds{s['order']}",
        "prediction": prediction,
    }
    if "butcher_type" in s and prediction != "edm":
        choice["variant"] = s["butcher_type"][-1]
    if s["solver"] == "etd-erk":
        choice["eta"] = 0.0
    return choice


def run_seeds(name, case, choice):
    data = golden(name)
    s = data.cases[case]
    schedule = registry.build(
        registry.configured("schedule", {"name": s["schedule"], "scaling": s["scaling"]})
    )
    low, high = seeds_range(s)
    noise = None
    if s["solver"] == "etd-serk":
        # The generic released solvers add -z, the EDM ones +z.
        z = data.tensor(case, "noise")
        noise = Recorded(z if is_edm_branch(s) else -z)
    return seedsbench.sample(
        denoiser(s, limited=False),
        data.tensor(case, "latents"),
        solver=choice,
        sigmas=schedule.through(low, high).sigma(data.tensor(case, "t")[:-1]),
        schedule=schedule,
        final="stop",
        noise=noise,
        return_trajectory=True,
    ).trajectory


def seeds_range(s):
    """Ends of the released code's range: its VP default has beta_d 19.1."""
    grid = registry.build(registry.configured("grid", s["discretization"]))
    if s["discretization"] != "vp":
        return grid.range(s["net_sigma_min"], s["net_sigma_max"])
    ends = VP(beta_d=19.1, fit_range=False).sigma(torch.tensor([1e-3, 1.0], dtype=torch.float64))
    return max(float(ends[0]), s["net_sigma_min"]), min(float(ends[1]), s["net_sigma_max"])


SEEDS_CASES = [(f, c) for f in ("seeds_etd_serk", "seeds_combos") for c in cases(f, seeds_supported)]


@pytest.mark.parametrize(("name", "case"), SEEDS_CASES)
def test_seeds(name, case):
    data = golden(name)
    close(run_seeds(name, case, seeds_choice(data.cases[case])), data.tensor(case, "x_traj"))


def test_seeds3_and_its_release_differ_where_the_release_departs():
    data = golden("seeds_combos")
    departing = [
        c
        for f, c in SEEDS_CASES
        if f == "seeds_combos" and "asreleased" in seeds_choice(data.cases[c])["name"]
    ]
    assert len(departing) > 40
    for case in departing[:6]:
        choice = {**seeds_choice(data.cases[case]), "name": "seeds3"}
        assert (run_seeds("seeds_combos", case, choice) - data.tensor(case, "x_traj")).abs().max() > 1e-3


DPMPP = [c for c, s in golden("kdiffusion").cases.items() if s.get("sampler") == "sample_dpmpp_2m"]


@pytest.mark.parametrize("case", DPMPP)
def test_dpmpp_2m(case):
    data = golden("kdiffusion")
    sigmas = data.tensor(case, "sigmas")
    result = seedsbench.sample(
        seedsbench.analytic.GaussianMixture(*mixture_parameters()),
        data.tensor(case, "latents") / 1.0,
        solver="dpmpp_2m",
        sigmas=sigmas[:-1],
        return_trajectory=True,
    )
    close(result.trajectory[:-1], data.tensor(case, "x_cb"))
    close(result.x, data.tensor(case, "x_final"))
