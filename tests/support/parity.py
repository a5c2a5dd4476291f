"""What the parity tests and scripts/check_golden.py share: recorded runs, repeated. Needs no pytest."""

import numpy as np
import torch
from torch import nn

import seedsbench
from seedsbench.diffusion.schedule import VP
from seedsbench.noise import Recorded


class Augmented(nn.Module):
    """A network with its augmentation labels, and its noise level if given, filled in."""

    def __init__(self, network, augment, c_noise=None):
        super().__init__()
        self.network, self.augment, self.c_noise = network, augment, c_noise

    def forward(self, x, c_noise, labels):
        return self.network(x, c_noise if self.c_noise is None else self.c_noise, labels, self.augment)


def relative_error(got, expected):
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


def sampler_of(settings):
    """Arguments of seedsbench.sample for a recorded run."""
    steps = settings["num_steps"] - 1
    if settings["sampler"] == "nv_edm":
        churn = {key: float(value) for key, value in settings.items() if key.startswith("S_")}
        return {"solver": {"name": "karras_sde", **churn} if churn else "heun", "steps": steps}
    schedule = {"name": settings["schedule"], "scaling": settings["scaling"]}
    if settings["sampler"] == "nv_abl":
        choice = {"solver": settings["solver"], "grid": settings["discretization"], "final": "euler"}
        return {**choice, "steps": steps, "schedule": schedule}
    order = settings["order"]
    choice = {"solver": "seeds3_asreleased" if order == 3 else f"seeds{order}", "final": "stop"}
    if settings["discretization"] != "vp":
        return {**choice, "steps": steps, "grid": settings["discretization"], "schedule": schedule}
    # The released VP levels are even in the time of a process with beta_d 19.1 (see test_golden_parity).
    t = torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)
    ends = VP(beta_d=19.1, fit_range=False).sigma(t[[-1, 0]])
    through = VP(scaling="vp").through(max(float(ends[0]), 2.0**-10), float(ends[1]))
    return {**choice, "sigmas": through.sigma(t), "schedule": through}


def sampled(settings, denoiser, latents, labels, noise):
    """Final state of a recorded run, repeated; the released SEEDS adds -z."""
    if noise is not None:
        noise = Recorded((-noise if settings["sampler"] == "seeds" else noise).double())
    return seedsbench.sample(denoiser, latents.double(), labels=labels, noise=noise, **sampler_of(settings)).x


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
