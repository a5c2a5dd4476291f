"""What the parity tests and scripts/check_golden.py share: recorded runs, repeated. Needs no pytest."""

import numpy as np
import torch
from torch import nn

import seedsbench
from seedsbench import registry
from seedsbench.diffusion.schedule import VP
from seedsbench.noise import Recorded
from seedsbench.solvers.linear_multistep import lms_weights


class Augmented(nn.Module):
    """A network with its augmentation labels, and its noise level if given, filled in."""

    def __init__(self, network, augment, c_noise=None):
        super().__init__()
        self.network, self.augment, self.c_noise = network, augment, c_noise

    def forward(self, x, c_noise, labels):
        return self.network(x, c_noise if self.c_noise is None else self.c_noise, labels, self.augment)


# --- comparison -------------------------------------------------------------------------------------


def relative_error(got, expected):
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


def close(got, reference, largest=1.0):
    """To 1e-10 of the largest state of the case: where that is 1e4, float64 itself resolves no better."""
    assert got.shape == reference.shape
    error = float((got - reference).abs().max())
    assert error <= 1e-10 * max(1.0, largest, float(reference.abs().max())), error


# --- runs from a recorded state ---------------------------------------------------------------------


def built(group, choice):
    """The object of a configuration: `choice` is its name or {"name": ..., option: value}."""
    return registry.build(registry.configured(group, choice))


def run_from(x, denoiser, solver, sigmas, *, schedule="linear", **options):
    """Samples, with all states, of a run that starts in the state x at sigmas[0], scaled as schedules do."""
    schedule = built("schedule", schedule) if isinstance(schedule, str | dict) else schedule
    return seedsbench.sample(
        denoiser,
        x / (sigmas[0] * schedule.scale_at(sigmas[0])),
        solver=solver,
        sigmas=sigmas,
        schedule=schedule,
        return_trajectory=True,
        **options,
    )


def lms_to_zero(states, levels, denoised, order):
    """The step to 0 of references whose last step is the multistep rule too, from the end of our run."""
    x, past = states[-1], list(zip(states, levels, denoised, strict=True))[: -order - 1 : -1]
    weights = lms_weights([level for _, level, _ in past], torch.zeros(()))
    for weight, (state, level, data) in zip(weights, past, strict=True):
        x = x + weight * (state - data) / level
    return x


# --- EDM's samplers and the released SEEDS ----------------------------------------------------------


def edm_choice(settings):
    """Arguments of seedsbench.sample for a run of EDM's sampler, or of its ablation sampler."""
    solver = {"name": settings.get("solver", "heun")}
    if "alpha" in settings:
        solver["alpha"] = float(settings["alpha"])
    if "S_churn" in settings:
        options = {"S_min": 0, "S_max": float("inf"), "S_noise": 1, **settings}
        churn = {key: float(value) for key, value in options.items() if key.startswith("S_")}
        solver = {"name": "karras_sde", "rk_order": 1 if solver["name"] == "euler" else 2, **churn}
    choice = {"solver": solver, "steps": settings["num_steps"] - 1}
    if "discretization" not in settings:
        levels = {key: float(settings[key]) for key in ("rho", "sigma_min", "sigma_max") if key in settings}
        return choice | {"grid": {"name": "edm", **levels}}
    return choice | {"grid": settings["discretization"], "schedule": schedule_of(settings), "final": "euler"}


def schedule_of(settings):
    return {"name": settings["schedule"], "scaling": settings["scaling"]}


def is_edm_branch(settings):
    """Where the released SEEDS switches to its EDM solvers (raw-network prediction)."""
    route = settings["discretization"], settings["schedule"], settings["scaling"]
    is_edm = settings.get("net_class") == "EDMPrecond" and route == ("edm", "linear", "none")
    return settings["noise_pred"] and is_edm


def seeds_solver(settings):
    """The solver that reproduces a released branch of SEEDS (etd-serk) or of its ODE twin (etd-erk)."""
    prediction = "edm" if is_edm_branch(settings) else "noise" if settings["noise_pred"] else "data"
    order = settings["order"]
    choice = {"name": f"seeds{order}", "prediction": prediction}
    if settings["solver"] == "etd-erk":
        choice["eta"] = 0.0
    elif order == 3 and prediction != "edm":
        choice["name"] = "seeds3_asreleased"
    if "butcher_type" in settings and prediction != "edm":  # the EDM solvers ignore it
        choice["variant"] = settings["butcher_type"][-1]
    return choice


def released_vp_ends():
    """The released VP levels are even in the time of a process with beta_d 19.1, from 1 to 1e-3."""
    return VP(beta_d=19.1, fit_range=False).sigma(torch.tensor([1e-3, 1.0], dtype=torch.float64)).tolist()


def sampler_of(settings):
    """Arguments of seedsbench.sample for a recorded run on a network."""
    if settings["sampler"] != "seeds":
        return edm_choice(settings)
    choice, steps = {"solver": seeds_solver(settings), "final": "stop"}, settings["num_steps"] - 1
    if settings["discretization"] != "vp":
        chosen = {"grid": settings["discretization"], "schedule": schedule_of(settings)}
        return choice | chosen | {"steps": steps}
    low, high = released_vp_ends()
    through = VP(scaling="vp").through(max(low, 2.0**-10), high)
    t = torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)
    return choice | {"sigmas": through.sigma(t), "schedule": through}


def sampled(settings, denoiser, latents, labels, noise):
    """Final state of a recorded run, repeated; the released SEEDS adds -z."""
    if noise is not None:
        noise = Recorded((-noise if settings["sampler"] == "seeds" else noise).double())
    return seedsbench.sample(denoiser, latents.double(), labels=labels, noise=noise, **sampler_of(settings)).x


# --- metrics ----------------------------------------------------------------------------------------


def plain_moments(features):
    values = np.asarray(features, dtype=np.float64)
    return values.mean(0), np.cov(values, rowvar=False)


def fid_gaussians(data, case):
    """Two means and covariances of a recorded case, however it holds them."""
    if data.has(case, "mu1"):
        return tuple(data.array(case, name) for name in ("mu1", "sigma1", "mu2", "sigma2"))
    if data.has(case, "features1"):
        return (*plain_moments(data.array(case, "features1")), *plain_moments(data.array(case, "features2")))
    out = []
    for i in "12":
        u = data.array(case, f"U{i}").astype(np.float64)
        out += [data.array(case, f"mean{i}"), np.diag(data.array(case, f"a{i}")) + u @ u.T]
    return tuple(out)


def kernel_of(settings):
    """The kernel of a recorded distance: exp(-|x - y|^2 / (2 sigma^2)) or (gamma x.y + coef0)^degree."""
    if settings.get("kid_kernel") == "rbf":
        sigma = settings["kid_kernel_rbf_sigma"]
        return lambda x, y: (torch.cdist(x, y).square() / (-2 * sigma**2)).exp()
    degree, coef0 = settings.get("kid_kernel_poly_degree", 3), settings.get("kid_kernel_poly_coef0", 1)
    gamma = settings.get("kid_kernel_poly_gamma")
    return lambda x, y: (x @ y.T * (1 / x.shape[1] if gamma is None else gamma) + coef0).pow(degree)
