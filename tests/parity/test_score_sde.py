"""Predictor-corrector samplers and the Karras VE sampler against recorded runs of public code.

score_sde_pytorch (58 predictor-corrector runs, their SDEs), diffusers' ScoreSdeVe, ScoreSdeVp and KarrasVe.
All in float64 with recorded noise, to 1e-10 of the largest state.
"""

import math

import pytest
import torch

import seedsbench
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import VP
from seedsbench.diffusion.schedule_score_sde import Geometric, SubVP
from seedsbench.noise import Recorded
from seedsbench.solvers.parts.pc_predictors import euler
from tests.parity.test_edm_and_seeds import close
from tests.support.golden import golden
from tests.support.measure import mixture, weak_orders

SCORE_SDE, VE_AND_VP, KARRAS = (
    golden(name) for name in ("score_sde_pytorch", "diffusers_score_sde", "diffusers_karras_ve")
)
SCHEDULES = {"vp": VP(fit_range=False), "subvp": SubVP(fit_range=False), "ve": Geometric(fit_range=False)}
PC = [case for case in SCORE_SDE.cases if case.startswith("pc_")]
SDES = [case for case in SCORE_SDE.cases if case.startswith("sde_")]
NAMES = {"ald": "annealed_langevin", "ancestral_sampling": "ancestral"}


def test_every_recorded_case_is_used():
    """The remaining six cases of score_sde_pytorch, its ODE sampler, are in test_adaptive.py."""
    assert (len(PC), len(SDES), len(SCORE_SDE.cases)) == (58, 3, 67)
    assert (len(VE_AND_VP.cases), len(KARRAS.cases)) == (12, 12)


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


def per_step(case, settings):
    """Recorded noise as (N, draws a step, ...), without what the reference draws and does not use."""
    noise = SCORE_SDE.tensor(case, "noise")
    noise = noise.reshape(settings["N"], -1, *noise.shape[1:])
    return noise[:, :-1] if settings["probability_flow"] else noise


def problem(case):
    """(denoiser, schedule, levels, solver, latents, noise by step) of a predictor-corrector case."""
    s = SCORE_SDE.cases[case]
    schedule, n = SCHEDULES[s["kind"]], s["N"]
    sigmas = schedule.sigma(torch.linspace(1, s["eps"], n, dtype=torch.float64))
    # Sub-VP networks are continuous in the reference even where it is told otherwise.
    continuous = s["continuous"] or s["kind"] == "subvp"
    denoiser = mixture() if continuous else TableModel(s["kind"], schedule, n)
    solver = seedsbench.solver(
        f"pc_{s['kind']}",
        predictor=NAMES.get(s["predictor"], s["predictor"]),
        corrector=NAMES.get(s["corrector"], s["corrector"]),
        snr=s["snr"],
        corrector_steps=s["n_steps_each"],
        probability_flow=s["probability_flow"],
        norms="batch",
        discretization="reference",
    )
    start = SCORE_SDE.tensor(case, "latents") * (50.0 if s["kind"] == "ve" else 1.0)
    latents = start / (sigmas[0] * schedule.scale_at(sigmas[0]))
    return denoiser, schedule, sigmas, solver, latents, per_step(case, s)


@pytest.mark.parametrize("case", PC)
def test_predictor_corrector(case):
    denoiser, schedule, sigmas, solver, latents, noise = problem(case)
    result = seedsbench.sample(
        denoiser,
        latents,
        solver=solver,
        sigmas=sigmas,
        schedule=schedule,
        noise=Recorded(noise.flatten(0, 1)),
        return_trajectory=True,
    )
    close(result.trajectory[1:-1], SCORE_SDE.tensor(case, "x_after_predictor")[:-1])
    close(result.x, SCORE_SDE.tensor(case, "x_final"))
    if "none" not in (solver.predictor, solver.corrector):
        assert set(result.nfe.tolist()) == {SCORE_SDE.cases[case]["nfe_reported"]}


@pytest.mark.parametrize("case", [c for c in PC if SCORE_SDE.cases[c]["corrector"] != "none"])
def test_corrector(case):
    """The state between corrector and predictor; at a level it is what `before_final` does."""
    denoiser, schedule, sigmas, solver, latents, noise = problem(case)
    process, times = Process(denoiser, schedule, len(latents)), schedule.sigma_inv(sigmas)
    before = SCORE_SDE.tensor(case, "x_after_predictor")
    before = torch.cat([(latents * sigmas[0] * schedule.scale_at(sigmas[0]))[None], before[:-1]])
    state = solver.init(process, before[0], times)
    after = [
        solver.before_final(process, x, t, state, Recorded(z))[0]
        for x, t, z in zip(before, times, noise, strict=True)
    ]
    close(torch.stack(after), SCORE_SDE.tensor(case, "x_after_corrector"))


@pytest.mark.parametrize("case", SDES)
def test_schedules_are_the_references_sdes(case):
    schedule, t, x = SCHEDULES[SCORE_SDE.cases[case]["kind"]], *(SCORE_SDE.tensor(case, a) for a in "tx")
    rule = euler(schedule, t, torch.ones_like(t))
    close(schedule.scale(t) * schedule.sigma(t), SCORE_SDE.tensor(case, "std"))
    close(rule.variance.sqrt(), SCORE_SDE.tensor(case, "diffusion"))
    close((rule.ratio - 1).reshape(-1, 1, 1, 1) * x, SCORE_SDE.tensor(case, "drift"))


@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ancestral", "euler_maruyama"])
@pytest.mark.parametrize("name", ["pc_ve", "pc_vp", "pc_subvp"])
def test_predictors_have_weak_order_one(name, predictor):
    solver = seedsbench.solver(name, predictor=predictor, corrector="none")
    assert solver.weak_order == 1
    orders = weak_orders(solver, 128, std=0.8, high=2.0, low=0.3)
    assert all(math.isnan(order) or order == pytest.approx(1.0, abs=0.05) for order in orders)
    assert seedsbench.solver(name, predictor=predictor).weak_order is None
    assert not seedsbench.solver(name, corrector="none", probability_flow=True).stochastic


@pytest.mark.parametrize(("name", "variance"), [("pc_ve", "small"), ("pc_vp", "large")])
@pytest.mark.parametrize("schedule", ["linear", "vp", "subvp", "ve_geometric"])
def test_ancestral_predictors_are_ddpm(name, variance, schedule):
    """Whatever the schedule's coordinates: pc_ve adds the posterior's variance, pc_vp beta."""
    choices = (
        {"name": name, "predictor": "ancestral", "corrector": "none"},
        {"name": "ddpm", "variance": variance},
    )
    latents = KARRAS.tensor("default_S10", "latents")
    close(*(seedsbench.sample(mixture(), latents, solver=c, steps=9, schedule=schedule).x for c in choices))


@pytest.mark.parametrize("case", [c for c in VE_AND_VP.cases if c.startswith("ve")])
def test_diffusers_ve(case):
    data, config = VE_AND_VP, VE_AND_VP.cases[case]["config"]
    steps, sigmas = config["correct_steps"], data.tensor(case, "sigmas_f64")
    schedule = Geometric(sigma_0=config["sigma_min"], sigma_1=float(config["sigma_max"]), fit_range=False)
    corrector = {"corrector": "langevin", "corrector_steps": steps} if steps else {"corrector": "none"}
    options = {**corrector, "snr": config["snr"], "norms": "batch", "discretization": "reference"}
    start = data.tensor(case, "x_traj_f64")[0]
    result = seedsbench.sample(
        mixture(),
        start / sigmas[0],
        solver={"name": "pc_ve", **options},
        sigmas=sigmas,
        schedule=schedule,
        noise=Recorded(data.tensor(case, "noise")),
        return_trajectory=True,
    )
    close(result.trajectory[:-1], data.tensor(case, "x_traj_f64")[:-1])
    close(result.x, data.tensor(case, "x_final_mean_f64"))


@pytest.mark.parametrize("case", [c for c in VE_AND_VP.cases if c.startswith("vp")])
def test_diffusers_vp(case):
    data, config = VE_AND_VP, VE_AND_VP.cases[case]["config"]
    low, high = config["beta_min"], config["beta_max"]
    schedule = VP(beta_d=high - low, beta_min=low, fit_range=False)
    sigmas = schedule.sigma(data.tensor(case, "timesteps"))
    options = {"predictor": "euler_maruyama", "corrector": "none", "discretization": "reference"}
    result = seedsbench.sample(
        mixture(),
        data.tensor(case, "x_traj")[0] / (sigmas[0] * schedule.scale_at(sigmas[0])),
        solver={"name": "pc_vp", **options},
        sigmas=sigmas,
        schedule=schedule,
        noise=Recorded(data.tensor(case, "noise")),
        return_trajectory=True,
    )
    close(result.trajectory[:-1], data.tensor(case, "x_traj")[:-1])
    close(result.x, data.tensor(case, "x_final_mean"))


@pytest.mark.parametrize("case", KARRAS.cases)
def test_diffusers_karras_ve(case):
    config = KARRAS.cases[case]["config"]
    options = {key.replace("s_", "S_", 1): float(v) for key, v in config.items() if key.startswith("s_")}
    result = seedsbench.sample(
        mixture(),
        KARRAS.tensor(case, "latents"),
        solver={"name": "karras_ve", "compat": "diffusers", **options},
        sigmas=KARRAS.tensor(case, "schedule_f64").flip(0),
        noise=Recorded(KARRAS.tensor(case, "noise")),
        return_trajectory=True,
    )
    # The loop's first state is scaled by the squared level; the solver's first step puts that right.
    close(result.trajectory[1:], KARRAS.tensor(case, "x_traj_f64")[1:])


def test_karras_ve_on_paper_levels_is_algorithm_2():
    options = {"S_churn": 80.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.007}
    latents = KARRAS.tensor("default_S10", "latents")
    runs = [
        seedsbench.sample(mixture(), latents, solver=choice, steps=9, grid="ve").x
        for choice in ("karras_ve", {"name": "karras_sde", **options})
    ]
    assert torch.equal(*runs)
