"""Multistep solvers against diff-sampler's (diff_solvers) and diffusers' trajectories.

Two PNDM cases of the latter are left out, with v prediction, where it averages v over the levels and takes
the average for v at the last one, so that it is not the noise estimate that is extrapolated.
Where a reference goes on to sigma 0 with a multistep average, its last state is left out: that way is
the loop's.
"""

import pytest
import torch

from seedsbench.denoisers.prediction import Predicted, raw_output_of
from seedsbench.diffusion.schedule import Discrete, Linear
from tests.support.golden import cases
from tests.support.measure import mixture, run
from tests.support.parity import built, close, run_from
from tests.support.replay import Replay, check_states, replayed

DIFF_SOLVERS = cases("diff_solvers_multistep", lambda s: "solver" in s)
GRIDS = cases("diff_solvers_multistep", lambda s: "solver" not in s)
DEIS, PNDM, IPNDM = (
    cases("diffusers_multistep", lambda s, name=name: s["scheduler"] == f"{name}Scheduler")
    for name in ("DEISMultistep", "PNDM", "IPNDM")
)
PNDM = [case for case in PNDM if "prediction_type" not in case.settings["config"]]


def test_cases_are_covered_but_two():
    assert [len(c) for c in (DIFF_SOLVERS, GRIDS, DEIS, PNDM, IPNDM)] == [108, 6, 13, 6, 2]
    assert (len(cases("diff_solvers_multistep")), len(cases("diffusers_multistep"))) == (114, 23)


@pytest.mark.parametrize("case", GRIDS, ids=str)
def test_grids(case):
    s = case.settings
    options = {"polynomial": {"name": "edm", "rho": float(s["schedule_rho"])}, "logsnr": {"name": "logsnr"}}
    options["time_uniform"] = {"name": "time_uniform", "power": float(s["schedule_rho"])}
    grid = built("grid", options[s["schedule_type"]])
    got = grid.levels(s["num_steps"], *grid.range(0.0, float("inf")), Linear())
    assert torch.allclose(got, case["t_steps"], rtol=1e-10, atol=0)


def diff_solver(s):
    name = s["solver"].removesuffix("_sampler")
    choice = {"name": name} | ({"max_order": s["max_order"]} if "max_order" in s else {})
    if name == "deis":
        choice["mode"] = s["deis_mode"]
    compat = name == "ipndm_v" or s.get("deis_mode") == "tab"
    return choice | ({"compat": "diff_sampler"} if compat else {})


def run_diff_solver(case, solver):
    final = "denoise" if case.settings.get("denoise_to_zero") else "stop"
    path = {"sigmas": case["t_steps"], "final": final, "afs": bool(case.settings.get("afs"))}
    return run(solver, latents=case["latents"], **path).trajectory


@pytest.mark.parametrize("case", DIFF_SOLVERS, ids=str)
def test_diff_solvers(case):
    s, reference = case.settings, case["x_traj"]
    got = run_diff_solver(case, diff_solver(s))
    close(got[: len(reference)], reference)
    assert len(got) == len(reference) + (not s.get("denoise_to_zero"))
    if s["solver"] in ("deis_sampler", "ipndm_v_sampler"):  # compat matters where it says so
        plain = run_diff_solver(case, {**diff_solver(s), "compat": "none"})
        same = s.get("deis_mode") == "rhoab" or (s["solver"] == "ipndm_v_sampler" and s["max_order"] < 3)
        difference = float((plain[: s["num_steps"]] - reference[: s["num_steps"]]).abs().max())
        assert difference < 1e-9 if same else difference > 1e-6


@pytest.mark.parametrize("case", DEIS, ids=str)
def test_diffusers_deis(case):
    config, sigmas = case.settings["config"], case["sigmas_f64"]
    # With its own rules for sigma the last level comes twice, so the step of lower order is none at all.
    repeated = bool(sigmas[-1] == sigmas[-2])
    solver = {"name": "deis", "mode": "logrho", "max_order": config.get("solver_order", 2)}
    solver["lower_order_final"] = not repeated
    check_states(case, solver, states=len(sigmas) - repeated)


@pytest.mark.parametrize("case", PNDM, ids=str)
def test_diffusers_pndm(case):
    config, calls = case.settings["config"], case["timesteps_f64"]
    skip = config["skip_prk_steps"]
    # Scheduler calls that begin a step: four calls make a Runge-Kutta step, two the step of Heun's rule.
    begins = [0, *range(2, 11)] if skip else [0, 4, 8, *range(12, 19)]
    levels, states = calls[begins], begins
    if config.get("timestep_spacing") == "trailing":  # it ends at timestep 0, not where it is already
        levels, states = torch.cat([levels, torch.zeros(1)]), [*begins, len(calls)]
    solver = {"name": "pndm", "skip_prk_steps": skip}
    if config.get("timestep_spacing") == "linspace":  # it steps to other timesteps than it evaluates at
        solver["previous_timestep"] = "diffusers"
    start, path = case["x_traj_f64"][0], {"schedule": Discrete(), "final": "stop"}
    got = run_from(start, replayed(case)[0], solver, Discrete().sigma(levels), **path).trajectory[:-1]
    close(got, case["x_traj_f64"][states])


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(
    ("spacing", "n"), [("leading", 7), ("linspace", 13), ("trailing", 7), ("trailing", 13), ("trailing", 50)]
)
def test_pndm_of_diffusers_to_its_end(spacing, n, skip):
    """Its own steps, its odd halves of them, and its last one, which by its default ends at entry 0."""
    diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
    table, times = Discrete(), []

    def eps(x_t, t):
        sigma = table.sigma(t)
        return raw_output_of("epsilon", mixture()(x_t * (1 + sigma**2).sqrt(), sigma), x_t, sigma)

    def network(x_t, t, labels):
        times.append(int(t))
        return eps(x_t, t)

    scheduler = diffusers.PNDMScheduler(skip_prk_steps=skip, timestep_spacing=spacing)
    scheduler.alphas_cumprod = 1 / (1 + (2 * table.log_sigmas).exp())  # in float64
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(n)
    first = x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2, 1, 1)
    for t in scheduler.timesteps:
        x = scheduler.step(eps(x, t.double()), int(t), x).prev_sample

    level = table.sigma(scheduler.timesteps[0].double())
    options = {"skip_prk_steps": skip, "previous_timestep": "diffusers", "set_alpha_to_one": False}
    denoiser = Predicted(network, "epsilon", table, img_channels=2, img_resolution=1)
    start = first / (level * table.scale_at(level))
    path = {"schedule": table, "grid": {"name": "discrete", "timestep_spacing": spacing}}
    got = run({"name": "pndm", **options}, denoiser, start, steps=n - 1, **path).x
    assert times == scheduler.timesteps.tolist()
    close(got, x)


@pytest.mark.parametrize("case", IPNDM, ids=str)
def test_diffusers_ipndm(case):
    """Its signal scale is cos(pi t / 2), 0 at the start: any high level does, for x is pure noise there."""
    a, s = case["alphas_native"][:-1], case["betas_native"][:-1]
    states, outputs = case["x_traj_native"][:-1], case["model_out_native"]
    sigmas = s / a
    sigmas[0] = 100 * sigmas[1]
    eps = [s[i] * x + a[i] * v for i, (x, v) in enumerate(zip(states, outputs, strict=True))]
    got = run("ipndm", Replay(eps), states[0], sigmas=sigmas, final="stop").trajectory[1:-1]
    for x, scale, reference in zip(got, a[1:], states[1:], strict=True):
        close(x * scale, reference)
