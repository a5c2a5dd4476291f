"""Recorded runs of diffusers' schedulers, given to our solvers: their network outputs as a denoiser."""

import torch

from seedsbench.noise import Recorded

# Schedulers of diffusers that keep x = data + sigma noise; the others scale it to unit variance.
UNSCALED = ("EDM", "Euler", "Heun", "KDPM2", "LMS")


class Replay:
    """Hands out recorded network outputs as denoised images of the state at hand, or of recorded `states`.

    asked: the unscaled states at which it was evaluated.
    """

    def __init__(self, outputs, prediction_type, sigma_data=0.5, states=None):
        self.outputs, self.prediction_type, self.sigma_data = iter(outputs), prediction_type, sigma_data
        self.states = None if states is None else iter(states)
        self.asked = []

    def __call__(self, x, sigma, labels):
        self.asked.append(x)
        out, a = next(self.outputs), (1 + sigma**2).rsqrt()
        if self.states is not None:
            x = next(self.states) / a
        if self.prediction_type.startswith("edm"):
            spread = sigma**2 + self.sigma_data**2
            sign = -1 if self.prediction_type == "edm_v" else 1
            return self.sigma_data**2 / spread * x + sign * sigma * self.sigma_data / spread.sqrt() * out
        if self.prediction_type == "epsilon":
            return x - sigma * out
        return out if self.prediction_type == "sample" else a * (a * x) - sigma * a * out


def replayed(data, case, evaluations=slice(None), *, recorded_states=False):
    """The denoiser of some of the evaluations of a case of `data`, and the scaling of its states."""
    settings = data.cases[case]
    kind = settings["config"].get("prediction_type", "epsilon")
    if settings["scheduler"].startswith("EDM"):
        kind = "edm_v" if kind == "v_prediction" else "edm"
    outputs = data.tensor(case, "model_out_f64")
    states = data.tensor(case, "x_traj_f64")[: len(outputs)][evaluations] if recorded_states else None
    sigma_data = settings["config"].get("sigma_data", 0.5)
    scaling = "none" if settings["scheduler"].startswith(UNSCALED) else "vp"
    return Replay(outputs[evaluations], kind, sigma_data, states), scaling


def unit(x, sigma, scaling):
    """The latents from which the run starts at x."""
    return x / (sigma * ((1 + sigma**2).rsqrt() if scaling == "vp" else 1.0))


def churned(data, case):
    """The Euler solver with the churn of a case, and its noise.

    The noise is recorded where the level is raised; karras_sde draws at every level.
    """
    levels, churn = data.tensor(case, "sigmas_f64"), data.cases[case]["step_kwargs"] or {"s_churn": 0.0}
    choice = {"name": "karras_sde", "rk_order": 1, "S_churn": churn["s_churn"]}
    draws = torch.zeros(len(levels), *data.tensor(case, "x_traj_f64")[0].shape, dtype=torch.float64)
    if data.has(case, "noise"):
        raised = (churn["s_tmin"] <= levels) & (levels <= churn["s_tmax"])
        draws[raised] = data.tensor(case, "noise")
        choice |= {"S_min": churn["s_tmin"], "S_max": churn["s_tmax"], "S_noise": churn["s_noise"]}
    return choice, Recorded(draws)
