"""DPM-Solver, DPM-Solver++, UniPC and SA-Solver against diff-sampler's and diffusers' trajectories."""

from dataclasses import dataclass, field

import pytest
import torch

from seedsbench.diffusion.schedule import Discrete
from seedsbench.solvers.unipc import UniPC
from tests.support.golden import cases, golden
from tests.support.measure import mixture
from tests.support.parity import close, run_from
from tests.support.replay import check_states, churned, replayed, thresholded

# --- diff-sampler: every case of its DPM-Solver-2, DPM-Solver++ and UniPC, all ending at sigma_min ---

DIFF_SAMPLER = cases("dpm_diff_solvers")


def diff_sampler_solver(s):
    if s["solver"] == "dpm_2_sampler":
        return {"name": "dpm_solver2", "r1": s.get("r", 0.5)}
    options = {
        "prediction": "data" if s["predict_x0"] else "noise",
        "lower_order_final": s.get("lower_order_final", True),
        "denoise_to_zero": False,
    }
    order = s["max_order"]
    if s["solver"] == "unipc_sampler":
        return Corrected(solver_order=order, variant=s["variant"], **options)
    named = {1: {"name": "dpm_solver1"}, 2: {"name": "dpmpp_2m", **options}}
    return named.get(order, {"name": "dpmpp_3m", "compat": "diffusers", **options})


@dataclass(frozen=True)
class Corrected(UniPC):
    """UniPC that notes its states after correction: diff-sampler records these, the last one as predicted."""

    corrected: list = field(default_factory=list)

    def advance(self, process, x, sigma, sigma_next, state, noise):
        result = super().advance(process, x, sigma, sigma_next, state, noise)
        base = result.state.last.base  # the linear part of the step from there
        self.corrected.append(base if self.prediction == "noise" else base * (sigma / sigma_next))
        return result


@pytest.mark.parametrize("case", DIFF_SAMPLER, ids=str)
def test_diff_sampler(case):
    s, solver = case.settings, diff_sampler_solver(case.settings)
    denoiser = thresholded(mixture()) if s.get("predict_x0") else mixture()
    path = {"final": "stop", "afs": s.get("afs", False)}
    result = run_from(case["x_traj"][0], denoiser, solver, case["t_steps"], **path)
    states = result.trajectory[:-1]
    if isinstance(solver, Corrected):
        states = torch.stack([*solver.corrected, result.x])
    close(states, case["x_traj"])


# --- diffusers ---------------------------------------------------------------------------------------


def of(*schedulers, wanted=lambda algorithm, order: True):
    """Cases of these schedulers whose algorithm and order are wanted."""

    def chosen(s):
        config = s["config"]
        return s["scheduler"] in schedulers and wanted(algorithm(config), config.get("solver_order", 2))

    return cases("dpm_diffusers", chosen)


def algorithm(config):
    return config.get("algorithm_type", "dpmsolver++")


SINGLE = "DPMSolverSinglestepScheduler"
MULTI = ("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler")
MULTISTEP = of(*MULTI, wanted=lambda name, order: "sde" not in name)
UNIPC, SA, EULER = (of(f"{name}Scheduler") for name in ("UniPCMultistep", "SASolver", "EDMEuler"))
# The stochastic variants of orders 1 and 2 are SA predictors at tau = 1.
SDE = of(SINGLE, wanted=lambda name, order: "sde" in name and order == 1)
SDE += of(*MULTI, wanted=lambda name, order: "sde" in name and order < 3)
SDE3 = of(*MULTI, wanted=lambda name, order: "sde" in name and order == 3)
# diffusers takes the stages of its singlestep methods at levels of the grid, and the orders in turn
# (1, 2, 3, 1, ...): each of its steps is one step of ours with nodes of its own. Left out: the SDE of
# orders 2 and 3, whose steps start again from the same state with noise independent of the stages',
# where ours is of one path.
SINGLESTEP = of(SINGLE, wanted=lambda name, order: "sde" not in name)
SINGLESTEP_SDE = of(SINGLE, wanted=lambda name, order: "sde" in name and order > 1)


def test_cases_are_covered_but_six_of_diffusers():
    covered = [MULTISTEP, UNIPC, SA, SDE, EULER, SINGLESTEP]
    assert [len(found) for found in covered] == [42, 24, 12, 13, 6, 26]
    assert len(SDE3) + len(SINGLESTEP_SDE) == 6
    assert len({str(case) for case in sum(covered, SDE3 + SINGLESTEP_SDE)}) == 129
    assert (len(golden("dpm_diffusers").cases), len(DIFF_SAMPLER)) == (129, 234)


@pytest.mark.parametrize("case", MULTISTEP, ids=str)
def test_diffusers_dpm_multistep(case):
    s, order = case.settings["config"], case.settings["config"].get("solver_order", 2)
    solver = {
        "name": f"dpmpp_{order}m",
        "solver_type": s.get("solver_type", "midpoint"),
        "prediction": "noise" if algorithm(s) == "dpmsolver" else "data",
        # Diffusers lowers the order of runs shorter than 15 steps only.
        "lower_order_final": s.get("lower_order_final", True) and case.settings["num_inference_steps"] < 15,
    } | ({"compat": "diffusers"} if order == 3 else {})
    check_states(case, solver if order > 1 else {"name": "dpm_solver1"})


@pytest.mark.parametrize("case", UNIPC, ids=str)
def test_diffusers_unipc(case):
    s = case.settings["config"]
    solver = {
        "name": "unipc",
        "solver_order": s.get("solver_order", 2),
        "variant": s.get("solver_type", "bh2"),
        "prediction": "data" if s.get("predict_x0", True) else "noise",
        "disable_corrector": len(s.get("disable_corrector", [])),
    }
    check_states(case, solver)


@pytest.mark.parametrize("case", SA, ids=str)
def test_diffusers_sa_solver(case):
    s = case.settings["config"]
    # tau is 1 for timesteps 200 to 800 of the linear schedule; halfway between timesteps is safe.
    tau_end, tau_start = Discrete().sigma(torch.tensor([199.5, 800.5], dtype=torch.float64)).tolist()
    levels = case["sigmas_f64"][:-1]
    solver = {
        "name": "sa_solver",
        "predictor_order": s.get("predictor_order", 2),
        "corrector_order": s.get("corrector_order", 2),
        "tau_value": 1.0,
        "tau_start": tau_start,
        "tau_end": tau_end,
        "prediction": s.get("algorithm_type", "data_prediction").split("_")[0],
        "slope": "exact" if "noise" in s.get("algorithm_type", "") else "bh1",
    }
    check_states(case, solver, case.noise((tau_end <= levels) & (levels <= tau_start)))


@pytest.mark.parametrize("case", SDE, ids=str)
def test_diffusers_sde_multistep(case):
    s = case.settings["config"]
    solver = {
        "name": "sa_solver",
        "predictor_order": s["solver_order"],
        "corrector_order": 0,
        "tau_start": float("inf"),
        "tau_end": 0.0,
        "slope": {"midpoint": "bh2", "heun": "exact"}[s["solver_type"]],
        "prediction": "data" if algorithm(s) == "sde-dpmsolver++" else "noise",
    }
    check_states(case, solver, case.noise())


def test_third_order_sde_of_diffusers_has_a_wrong_sign():
    """Both cases are left out: their curvature has the weight -phi_2(-z) - 1/2, not 1/2 - phi_2(-z)."""
    case = next(case for case in SDE3 if "heun" in str(case))
    reference, levels = case["x_traj_f64"][:4], case["sigmas_f64"][:4]
    denoised, (denoiser, schedule) = [], replayed(case)
    listening = lambda *given: denoised.append(denoiser(*given)) or denoised[-1]  # noqa: E731
    solver = {"name": "dpmpp_3m_sde", "compat": "k_diffusion"}
    run = {"schedule": schedule, "final": "stop", "noise": case.noise()}
    got = run_from(reference[0], listening, solver, levels, **run).trajectory
    close(got[:3], reference[:3])
    lam, (first, second, third) = -levels.log(), denoised
    slopes = (third - second) / (lam[2] - lam[1]), (second - first) / (lam[1] - lam[0])
    curvature = (lam[3] - lam[2]) ** 2 * (slopes[0] - slopes[1]) / (lam[2] - lam[0])
    close(got[3] - curvature * (1 + levels[3] ** 2).rsqrt(), reference[3])


@pytest.mark.parametrize("case", EULER, ids=str)
def test_diffusers_edm_euler(case):
    levels = case["sigmas_f64"]
    # With final_sigmas_type sigma_min the last level comes twice, the second a little above the first.
    check_states(case, *churned(case), states=None if levels[-1] == 0 else len(levels) - 1)


def singlestep_solver(config, order, nodes):
    """The solver that takes such a step, and which of the evaluations from its start it makes."""
    data = algorithm(config) == "dpmsolver++"
    if order == 1:
        return {"name": "dpm_solver1"}, [0]
    if config.get("solver_type", "midpoint") == "heun":  # the polynomial through all nodes
        name = {"name": f"etd_erk{order}", "variant": "b", "prediction": "data" if data else "noise"}
        return name | {f"c{i + 2}": node for i, node in enumerate(nodes)}, list(range(order))
    if order == 3 and data:  # a straight line through the first and the last
        return {"name": "etd_erk2", "variant": "b", "c2": nodes[1]}, [0, 2]
    name = "dpmpp_2s" if data else f"dpm_solver{order}"
    return {"name": name} | {f"r{i + 1}": node for i, node in enumerate(nodes)}, list(range(order))


@pytest.mark.parametrize("case", SINGLESTEP, ids=str)
def test_diffusers_dpm_singlestep(case):
    config, reference, levels = case.settings["config"], case["x_traj_f64"], case["sigmas_f64"]
    steps, most = len(levels) - 1 - int(levels[-1] == 0), config.get("solver_order", 2)
    for end in range(1, steps + 1):
        order = (end - 1) % most + 1
        if most == 2 and steps == 7 and end == 7:
            order = 1  # the two last steps of a path to zero
        start = end - order
        lam = -levels[start : end + 1].log()
        nodes = ((lam[1:-1] - lam[0]) / (lam[-1] - lam[0])).tolist()
        solver, evaluations = singlestep_solver(config, order, nodes)
        # Its stages before the last are of its own rules: in data prediction their states matter.
        own_states = order == 3 and algorithm(config) == "dpmsolver++"
        denoiser, schedule = replayed(case, [start + i for i in evaluations], recorded_states=own_states)
        run = {"sigmas": levels[[start, end]], "schedule": schedule, "final": "stop"}
        close(run_from(reference[start], denoiser, solver, **run).x, reference[end])
