"""Recorded runs of diffusers' schedulers, given to our solvers: their network outputs as a denoiser."""

import torch

from seedsbench.denoisers.prediction import denoised_of
from seedsbench.noise import Recorded
from seedsbench.solvers.ddim import dynamic_threshold
from tests.support.parity import close, run_from

# Schedulers of diffusers that keep x = data + sigma noise; the others scale it to unit variance.
UNSCALED = ("EDM", "Euler", "Heun", "KDPM2", "LMS")


class Replay:
    """Hands out recorded network outputs as denoised images of the state at hand, or of recorded `states`.

    asked: the unscaled states at which it was evaluated.
    """

    def __init__(self, outputs, prediction_type="epsilon", sigma_data=0.5, states=None):
        self.outputs, self.prediction_type, self.sigma_data = iter(outputs), prediction_type, sigma_data
        self.states = None if states is None else iter(states)
        self.asked = []

    def __call__(self, x, sigma, labels):
        self.asked.append(x)
        out, a = next(self.outputs), (1 + sigma**2).rsqrt()
        x_t = a * x if self.states is None else next(self.states)
        if not self.prediction_type.startswith("edm"):
            return denoised_of(self.prediction_type, out, x_t, sigma)
        spread = sigma**2 + self.sigma_data**2
        sign = -1 if self.prediction_type == "edm_v" else 1
        return self.sigma_data**2 / spread * x_t / a + sign * sigma * self.sigma_data / spread.sqrt() * out


def replayed(case, evaluations=slice(None), *, recorded_states=False):
    """The denoiser of some of the evaluations of a case, and the schedule whose scaling its states have."""
    config, scheduler = case.settings["config"], case.settings["scheduler"]
    kind = config.get("prediction_type", "epsilon")
    if scheduler.startswith("EDM"):
        kind = "edm_v" if kind == "v_prediction" else "edm"
    outputs = case["model_out_f64"]
    states = case["x_traj_f64"][: len(outputs)][evaluations] if recorded_states else None
    denoiser = Replay(outputs[evaluations], kind, config.get("sigma_data", 0.5), states)
    return denoiser, {"name": "linear", "scaling": "none" if scheduler.startswith(UNSCALED) else "vp"}


def churned(case):
    """Euler with a case's churn, and its noise, recorded where the level is raised."""
    levels, churn = case["sigmas_f64"], case.settings["step_kwargs"] or {"s_churn": 0.0}
    choice = {"name": "karras_sde", "rk_order": 1, "S_churn": churn["s_churn"]}
    draws = torch.zeros(len(levels), *case["x_traj_f64"][0].shape, dtype=torch.float64)
    if "noise" in case:
        raised = (churn["s_tmin"] <= levels) & (levels <= churn["s_tmax"])
        draws[raised] = case["noise"]
        choice |= {"S_min": churn["s_tmin"], "S_max": churn["s_tmax"], "S_noise": churn["s_noise"]}
    return choice, Recorded(draws)


def thresholded(denoiser, most=float("inf")):
    """With dynamic thresholding, which no solver of the family does; diff-sampler has no switch for it."""
    return lambda *given: dynamic_threshold(denoiser(*given), 0.995, most)


def check_states(case, solver, noise=None, states=None):
    """The states at the case's levels, or at the first `states` of them."""
    reference, levels, config = case["x_traj_f64"], case["sigmas_f64"], case.settings["config"]
    denoiser, schedule = replayed(case)
    if config.get("thresholding", False):
        denoiser = thresholded(denoiser, config["sample_max_value"])
    to_zero = bool(levels[-1] == 0) and states is None
    levels = levels[:-1] if to_zero else levels[:states]
    if solver["name"] in ("dpmpp_2m", "dpmpp_3m", "unipc", "sa_solver"):
        solver = solver | {"denoise_to_zero": to_zero}
    run = {"schedule": schedule, "final": "denoise" if to_zero else "stop", "noise": noise}
    trajectory = run_from(reference[0], denoiser, solver, levels, **run).trajectory
    # diffusers' UniPC with bh1 in data prediction ends in infinity / infinity = NaN in the step to zero.
    good = len(reference[:states]) - (not case.settings.get("finite", True))
    close((trajectory if to_zero else trajectory[:-1])[:good], reference[:good])
