"""Predictor-corrector samplers and the Karras VE sampler against recorded runs of public code.

score_sde_pytorch (58 predictor-corrector runs, 6 of its ODE sampler, its SDEs), diffusers' ScoreSdeVe,
ScoreSdeVp and KarrasVe. All in float64 with recorded noise.
"""

import math

import pytest
import torch

import seedsbench
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import VP, Geometric, SubVP
from seedsbench.noise import Recorded
from seedsbench.solvers.parts.pc_predictors import UniformTable, euler, reverse, tabulated
from tests.support.golden import cases
from tests.support.measure import log_levels, mixture, run, weak_orders
from tests.support.parity import close, run_from

SCHEDULES = {"vp": VP(fit_range=False), "subvp": SubVP(fit_range=False), "ve": Geometric(fit_range=False)}
PC = cases("score_sde_pytorch", lambda s: "predictor" in s)
ODE = cases("score_sde_pytorch", lambda s: s.get("method") == "RK45")
SDES = cases("score_sde_pytorch", lambda s: "beta_min_max" in s)
VE = cases("diffusers_score_sde", lambda s: "sigma_min" in s["config"])
VP_RUNS = cases("diffusers_score_sde", lambda s: "beta_min" in s["config"])
KARRAS = cases("diffusers_karras_ve")
NAMES = {"ald": "annealed_langevin", "ancestral_sampling": "ancestral"}


def test_every_recorded_case_is_used():
    assert [len(found) for found in (PC, ODE, SDES, VE, VP_RUNS, KARRAS)] == [58, 6, 3, 8, 4, 12]
    assert (len(cases("score_sde_pytorch")), len(cases("diffusers_score_sde"))) == (67, 12)


class TableModel:
    """The ideal network of the reference's discrete-time convention, as D(x, sigma) at real levels.

    It knows a table of N entries only, rounds the time to one and answers with the score there: of VP the
    products of 1 - beta_k, of VE a geometric sequence.
    """

    def __init__(self, kind, schedule, n):
        self.kind, self.schedule, self.n, self.mixture = kind, schedule, n, mixture()
        betas = torch.linspace(0.1 / n, 20.0 / n, n, dtype=torch.float64)
        self.signals = torch.cumprod(1 - betas, 0).sqrt()
        self.sigmas = torch.linspace(math.log(0.01), math.log(50), n, dtype=torch.float64).exp()

    def entry(self, t):
        k = int(t * (self.n - 1) + 1e-9)
        if self.kind == "ve":
            return torch.ones((), dtype=torch.float64), self.sigmas[k]
        return self.signals[k], (1 - self.signals[k] ** 2).sqrt()

    def __call__(self, x, sigma, labels):
        scale = self.schedule.scale_at(sigma)
        signal, std = self.entry(self.schedule.sigma_inv(sigma))
        score = (signal * self.mixture(scale * x / signal, std / signal, labels) - scale * x) / std**2
        return x + scale * sigma**2 * score


def problem(case):
    """Arguments of `run_from` for a predictor-corrector case, and its noise by step."""
    s = case.settings
    schedule, n = SCHEDULES[s["kind"]], s["N"]
    # Sub-VP networks are continuous in the reference even where it is told otherwise.
    continuous = s["continuous"] or s["kind"] == "subvp"
    options = {part: NAMES.get(s[part], s[part]) for part in ("predictor", "corrector")}
    options |= {
        "snr": s["snr"],
        "corrector_steps": s["n_steps_each"],
        "probability_flow": s["probability_flow"],
    }
    options |= {"norms": "batch", "discretization": "reference"}
    noise = case["noise"].reshape(n, -1, *case["noise"].shape[1:])
    if s["probability_flow"]:  # the reference draws for its predictor what it does not use
        noise = noise[:, :-1]
    return {
        "x": case["latents"] * (50.0 if s["kind"] == "ve" else 1.0),
        "denoiser": mixture() if continuous else TableModel(s["kind"], schedule, n),
        "solver": seedsbench.solver(f"pc_{s['kind']}", **options),
        "sigmas": schedule.sigma(torch.linspace(1, s["eps"], n, dtype=torch.float64)),
        "schedule": schedule,
    }, noise


@pytest.mark.parametrize("case", PC, ids=str)
def test_predictor_corrector(case):
    given, noise = problem(case)
    result = run_from(**given, noise=Recorded(noise.flatten(0, 1)))
    close(result.trajectory[1:-1], case["x_after_predictor"][:-1])
    close(result.x, case["x_final"])
    if "none" not in (case.settings["predictor"], case.settings["corrector"]):
        assert set(result.nfe.tolist()) == {case.settings["nfe_reported"]}


@pytest.mark.parametrize("case", [c for c in PC if c.settings["corrector"] != "none"], ids=str)
def test_corrector(case):
    """The state between corrector and predictor; the corrector at a level is what `finish` does there."""
    given, noise = problem(case)
    schedule, solver, start = given["schedule"], given["solver"], given["x"]
    process, times = Process(given["denoiser"], schedule, len(start)), schedule.sigma_inv(given["sigmas"])
    before = torch.cat([start[None], case["x_after_predictor"][:-1]])
    state = solver.init(process, before[0], times)
    after = [
        solver.before_final(process, x, t, state, Recorded(z))[0]
        for x, t, z in zip(before, times, noise, strict=True)
    ]
    close(torch.stack(after), case["x_after_corrector"])


@pytest.mark.parametrize("case", SDES, ids=str)
def test_schedules_are_the_references_sdes(case):
    schedule, t, x = SCHEDULES[case.settings["kind"]], case["t"], case["x"]
    rule = euler(schedule, t, torch.ones_like(t))
    close(schedule.scale(t) * schedule.sigma(t), case["std"])
    close(rule.variance.sqrt(), case["diffusion"])
    close((rule.ratio - 1).reshape(-1, 1, 1, 1) * x, case["drift"])


@pytest.mark.parametrize("case", ODE, ids=str)
def test_probability_flow(case):
    """The reference casts the state to float32 at each evaluation: it agrees to 1e-7 of the largest state.

    It solves the whole batch as one system (norms=batch), and ends in a predictor step of N = 1000.
    """
    s, start = case.settings, case["x_init"]
    schedule, ends = SCHEDULES[s["kind"]], torch.tensor([1.0, s["eps"]], dtype=torch.float64)
    solver = {"name": "rk45", "rtol": s["rtol"], "atol": s["atol"], "norms": "batch"}
    sigmas = schedule.sigma(ends)
    result = run_from(start, mixture(), solver, log_levels(60, *sigmas.tolist()), schedule=schedule)
    assert result.nfe.tolist() == [s["nfe"] + 1] * len(start)
    x = result.trajectory[-2]
    if s["denoise"]:
        scale = schedule.scale_at(sigmas[1])
        score = (scale * result.x - x) / (scale * sigmas[1]) ** 2
        x = reverse(x, score, tabulated(UniformTable(schedule, 1000), ends[1]), 1.0)
    assert (x - case["x_final"]).abs().max() <= 1e-7 * max(1.0, float(start.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ancestral", "euler_maruyama"])
@pytest.mark.parametrize("name", ["pc_ve", "pc_vp", "pc_subvp"])
def test_predictors_have_weak_order_one(name, predictor):
    solver = seedsbench.solver(name, predictor=predictor, corrector="none")
    assert solver.weak_order == 1
    mean, variance = weak_orders(solver, 128, std=0.8, high=2.0, low=0.3)
    assert variance == pytest.approx(1.0, abs=0.05)
    assert math.isnan(mean) or mean == pytest.approx(1.0, abs=0.05)  # NaN: exact
    assert seedsbench.solver(name, predictor=predictor).weak_order is None
    assert not seedsbench.solver(name, corrector="none", probability_flow=True).stochastic


@pytest.mark.parametrize("case", VE, ids=str)
def test_diffusers_ve(case):
    config, sigmas = case.settings["config"], case["sigmas_f64"]
    schedule = Geometric(sigma_0=config["sigma_min"], sigma_1=float(config["sigma_max"]), fit_range=False)
    steps = config["correct_steps"]
    corrector = {"corrector": "langevin", "corrector_steps": steps} if steps else {"corrector": "none"}
    solver = {
        "name": "pc_ve",
        **corrector,
        "snr": config["snr"],
        "norms": "batch",
        "discretization": "reference",
    }
    result = run_from(case["x_traj_f64"][0], mixture(), solver, sigmas, schedule=schedule, noise=case.noise())
    close(result.trajectory[:-1], case["x_traj_f64"][:-1])
    close(result.x, case["x_final_mean_f64"])


@pytest.mark.parametrize("case", VP_RUNS, ids=str)
def test_diffusers_vp(case):
    low, high = case.settings["config"]["beta_min"], case.settings["config"]["beta_max"]
    schedule = VP(beta_d=high - low, beta_min=low, fit_range=False)
    options = {"predictor": "euler_maruyama", "corrector": "none", "discretization": "reference"}
    path = {"sigmas": schedule.sigma(case["timesteps"]), "schedule": schedule, "noise": case.noise()}
    result = run_from(case["x_traj"][0], mixture(), {"name": "pc_vp", **options}, **path)
    close(result.trajectory[:-1], case["x_traj"][:-1])
    close(result.x, case["x_final_mean"])


@pytest.mark.parametrize("case", KARRAS, ids=str)
def test_diffusers_karras_ve(case):
    config = case.settings["config"]
    options = {key.replace("s_", "S_", 1): float(v) for key, v in config.items() if key.startswith("s_")}
    solver = {"name": "karras_ve", "compat": "diffusers", **options}
    result = run(solver, latents=case["latents"], sigmas=case["schedule_f64"].flip(0), noise=case.noise())
    # The loop's first state is scaled by the squared level; the solver's first step puts that right.
    close(result.trajectory[1:], case["x_traj_f64"][1:])


def test_karras_ve_on_paper_levels_is_algorithm_2():
    options = {"S_churn": 80.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.007}
    choices = "karras_ve", {"name": "karras_sde", **options}
    assert torch.equal(*(run(choice, steps=9, grid="ve").x for choice in choices))
