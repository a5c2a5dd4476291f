"""DPM-Solver, DPM-Solver++, UniPC and SA-Solver against the golden trajectories of diff-sampler and diffusers.

Tolerance: 1e-10 of the largest state of the case. Model outputs of diffusers are replayed as recorded.
"""

import math

import pytest
import torch
from conftest import golden, mixture_parameters

import seedsbench
from seedsbench.diffusion.schedule import Discrete
from seedsbench.noise import Recorded

SIGMA_DATA = 0.5  # of diffusers' EDM schedulers


def close(got, reference):
    assert got.shape == reference.shape
    error = float((got - reference).abs().max())
    assert error <= 1e-10 * max(1.0, float(reference.abs().max())), error


# --- diff-sampler: every case of its DPM-Solver++ and UniPC, all ending at sigma_min -----------------

DIFF_SAMPLER = list(golden("dpm_diff_solvers").cases)


def diff_sampler_choice(s):
    options = {
        "prediction": "data" if s["predict_x0"] else "noise",
        "lower_order_final": s.get("lower_order_final", True),
        "denoise_to_zero": False,
    }
    order = s["max_order"]
    if s["solver"] == "unipc_sampler":
        return {"name": "unipc", "solver_order": order, "variant": s["variant"], **options}
    if order == 3:
        return {"name": "dpmpp_3m", "compat": "diffusers", **options}
    if order == 2:
        return {"name": "dpmpp_2m", **options}
    return "dpm_solver1"


def test_all_216_cases_of_diff_sampler_are_covered():
    assert len(DIFF_SAMPLER) == 216


@pytest.mark.parametrize("case", DIFF_SAMPLER)
def test_diff_sampler(case):
    data = golden("dpm_diff_solvers")
    trajectory, sigmas = data.tensor(case, "x_traj"), data.tensor(case, "t_steps")
    result = seedsbench.sample(
        seedsbench.analytic.GaussianMixture(*mixture_parameters()),
        trajectory[0] / sigmas[0],
        solver=diff_sampler_choice(data.cases[case]),
        sigmas=sigmas,
        final="stop",
        return_trajectory=True,
    )
    close(result.trajectory[:-1], trajectory)


# --- diffusers ---------------------------------------------------------------------------------------


class Replay:
    """Hands out recorded network outputs as denoised images of the state at hand."""

    def __init__(self, outputs, prediction_type):
        self.outputs, self.prediction_type = iter(outputs), prediction_type

    def __call__(self, x, sigma, labels):
        out, a = next(self.outputs), (1 + sigma**2).rsqrt()
        if self.prediction_type == "edm":
            spread = sigma**2 + SIGMA_DATA**2
            return SIGMA_DATA**2 / spread * x + sigma * SIGMA_DATA / spread.sqrt() * out
        if self.prediction_type == "edm_v":
            spread = sigma**2 + SIGMA_DATA**2
            return SIGMA_DATA**2 / spread * x - sigma * SIGMA_DATA / spread.sqrt() * out
        if self.prediction_type == "epsilon":
            return x - sigma * out
        return out if self.prediction_type == "sample" else a * (a * x) - sigma * a * out


def replayed(case, start=0):
    """The case's denoiser from evaluation `start` on, its levels without the last if that is 0, and scaling."""
    data = golden("dpm_diffusers")
    settings, sigmas = data.cases[case], data.tensor(case, "sigmas_f64")
    edm = settings["scheduler"].startswith("EDM")
    kind = settings["config"].get("prediction_type", "epsilon")
    if edm:
        kind = "edm_v" if kind == "v_prediction" else "edm"
    denoiser = Replay(data.tensor(case, "model_out_f64")[start:], kind)
    return denoiser, sigmas, "none" if edm else "vp"


def run_diffusers(case, choice, noise=None):
    denoiser, sigmas, scaling = replayed(case)
    reference = golden("dpm_diffusers").tensor(case, "x_traj_f64")
    to_zero = bool(sigmas[-1] == 0)
    levels = sigmas[:-1] if to_zero else sigmas
    scale = (1 + levels[0] ** 2).rsqrt() if scaling == "vp" else 1.0
    result = seedsbench.sample(
        denoiser,
        reference[0] / (scale * levels[0]),
        solver=choice | {"denoise_to_zero": to_zero} if choice["name"] != "dpm_solver1" else choice,
        sigmas=levels,
        schedule={"name": "linear", "scaling": scaling},
        final="denoise" if to_zero else "stop",
        noise=noise,
        return_trajectory=True,
    )
    close(result.trajectory if to_zero else result.trajectory[:-1], reference)


def cases(scheduler, wanted=lambda config: True):
    found = golden("dpm_diffusers").cases.items()
    return [c for c, s in found if s["scheduler"] == scheduler and s["finite"] and wanted(s["config"])]


# Thresholding clips the denoised image, which no solver here does; the sde variants are dpmpp_2m_sde's.
MULTISTEP = [
    c
    for scheduler in ("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler")
    for c in cases(
        scheduler,
        lambda s: "sde" not in s.get("algorithm_type", "") and not s.get("thresholding", False),
    )
]


def multistep_choice(case):
    settings = golden("dpm_diffusers").cases[case]
    s, steps = settings["config"], settings["num_inference_steps"]
    order = s.get("solver_order", 2)
    if order == 1:
        return {"name": "dpm_solver1"}
    return {
        "name": f"dpmpp_{order}m",
        "solver_type": s.get("solver_type", "midpoint"),
        "prediction": "noise" if s.get("algorithm_type") == "dpmsolver" else "data",
        # Diffusers lowers the order of runs shorter than 15 steps only.
        "lower_order_final": s.get("lower_order_final", True) and steps < 15,
    } | ({"compat": "diffusers"} if order == 3 else {})


@pytest.mark.parametrize("case", MULTISTEP)
def test_diffusers_dpm_multistep(case):
    run_diffusers(case, multistep_choice(case))


UNIPC = cases("UniPCMultistepScheduler")


@pytest.mark.parametrize("case", UNIPC)
def test_diffusers_unipc(case):
    s = golden("dpm_diffusers").cases[case]["config"]
    choice = {
        "name": "unipc",
        "solver_order": s.get("solver_order", 2),
        "variant": s.get("solver_type", "bh2"),
        "prediction": "data" if s.get("predict_x0", True) else "noise",
        "disable_corrector": len(s.get("disable_corrector", [])),
    }
    run_diffusers(case, choice)


SA = cases("SASolverScheduler")


@pytest.mark.parametrize("case", SA)
def test_diffusers_sa_solver(case):
    data = golden("dpm_diffusers")
    s = data.cases[case]["config"]
    # tau is 1 for timesteps 200 to 800 of the linear schedule; halfway between timesteps is safe.
    tau_end, tau_start = Discrete().sigma(torch.tensor([199.5, 800.5], dtype=torch.float64)).tolist()
    noisy = [tau_end <= level <= tau_start for level in data.tensor(case, "sigmas_f64")[:-1].tolist()]
    choice = {
        "name": "sa_solver",
        "predictor_order": s.get("predictor_order", 2),
        "corrector_order": s.get("corrector_order", 2),
        "tau_value": 1.0,
        "tau_start": tau_start,
        "tau_end": tau_end,
        "prediction": s.get("algorithm_type", "data_prediction").split("_")[0],
        "slope": "exact" if "noise" in s.get("algorithm_type", "") else "bh1",
    }
    run_diffusers(case, choice, Recorded(data.tensor(case, "noise")[noisy]))


def test_covered_cases_of_diffusers():
    assert (len(MULTISTEP), len(UNIPC), len(SA)) == (40, 21, 12)
    assert math.isinf(float("inf"))
