"""diffusers' schedulers, driven by `solver=diffusers` (seedsbench/integrations/solver.py)."""

import math
from typing import Any

import torch

from seedsbench import api, registry
from seedsbench.certify.external.published import Library, Probe, Published, option_text
from seedsbench.certify.problems import log_levels, mixture
from seedsbench.certify.weak import gaussian_moments
from seedsbench.diffusion.noise import latents

_PP, _SDE = {"algorithm_type": "dpmsolver++"}, {"algorithm_type": "sde-dpmsolver++"}
_LU, _KARRAS, _ZHANG = "Lu et al. 2022b", "Karras et al. 2022", "Zhang and Chen 2023"
_SLOW = "on its way to 2: 1.94 between 192 and 384 steps"
_CANCELS = (
    "converges up to 48 steps; then the weights, differences of large numbers in float32, lose their digits"
)
_SIGN = (
    "the weight of the second difference, `(1 - exp(-2h) - 2h) / (2h)^2 - 0.5`, has 0.5 with the wrong sign: "
    "it tends to -1 where it has to vanish with h"
)
_HALF = (
    "the weight of the second difference, `(exp(-h) - 1 + h) / h^2 - 0.5`, is phi_3 of a divided difference, "
    "half of the second derivative: 2 phi_3 is wanted, and the order is 2, which float32 hides"
)


def _claim(
    scheduler: str,
    source: str,
    drift: int | None,
    weak: int | None = None,
    config: dict[str, Any] | None = None,
    step: dict[str, Any] | None = None,
    exact: int = 0,
    cause: str = "",
) -> Published:
    """The claim about a scheduler with options of its constructor (config) and of its step."""
    config, step = config or {}, step or {}
    choice = {"name": "diffusers", "scheduler": f"{scheduler}Scheduler", "levels": "grid"}
    solver: Any = {**choice, "config": config, "step_options": step}
    return Published(scheduler + option_text({**config, **step}), solver, source, drift, weak, exact, cause)


def _claims() -> list[Published]:
    """Every scheduler that takes the levels of a grid, with the options that have orders of their own."""
    third = {"solver_order": 3}
    return [
        _claim("DDIM", "Song et al. 2021", 1),
        _claim("DDIM", "Song et al. 2021", 1, 1, {"clip_sample": False}, {"eta": 1.0}),
        _claim("DDPM", "Ho et al. 2020", 1, 1, {"clip_sample": False}),
        _claim("PNDM", "Liu et al. 2022", 2),
        _claim("PNDM", "Liu et al. 2022", 2, config={"skip_prk_steps": True}, cause=_SLOW),
        _claim("DEISMultistep", _ZHANG, 2),
        _claim("DEISMultistep", _ZHANG, 3, config=third, cause=_CANCELS),
        _claim("DPMSolverMultistep", _LU, 1, config={**_PP, "solver_order": 1}),
        _claim("DPMSolverMultistep", _LU, 2, config=_PP),
        _claim("DPMSolverMultistep", _LU, 3, config={**_PP, **third}, exact=3, cause=_HALF),
        _claim("DPMSolverMultistep", _LU, 1, 1, {**_SDE, "solver_order": 1}),
        _claim("DPMSolverMultistep", _LU, 2, 2, _SDE),
        _claim("DPMSolverMultistep", "as order 3 of the ODE", 3, 2, {**_SDE, **third}, exact=3, cause=_SIGN),
        _claim("DPMSolverSinglestep", _LU, 2),
        _claim("DPMSolverSinglestep", _LU, 3, config=third),
        _claim("UniPCMultistep", "Zhao et al. 2023", 3),
        _claim("UniPCMultistep", "Zhao et al. 2023", 4, config=third, exact=3),
        _claim("EulerDiscrete", _KARRAS, 1),
        _claim("EulerAncestralDiscrete", "k-diffusion", 1, 1),
        _claim("HeunDiscrete", _KARRAS, 2),
        _claim("KDPM2Discrete", _KARRAS, 2),
        _claim("KDPM2AncestralDiscrete", "k-diffusion", None, 2),
        _claim("LMSDiscrete", "k-diffusion", 4),
        _claim("EDMEuler", _KARRAS, 1),
        _claim("EDMDPMSolverMultistep", _LU, 2),
        _claim("EDMDPMSolverMultistep", _LU, 3, config=third, exact=3, cause=_HALF),
        _claim("EDMDPMSolverMultistep", _LU, 2, 2, _SDE),
        _claim("FlowMatchEulerDiscrete", "Lipman et al. 2023", 1),
    ]


def own_levels() -> list[list[str]]:
    """Distances from the exact solution of DDIM and Euler at their own linspace timesteps."""
    start, rows = latents(torch.arange(64), (2, 1, 1), seed=0), []
    schedule = registry.build(registry.configured("schedule", "discrete"))
    first, last = (float(s) for s in schedule.sigma(torch.tensor([999.0, 0.0], dtype=torch.float64)))
    exact = api.sample(mixture(), start, solver="dpmpp_3m", sigmas=log_levels(4000, first, last)).x
    for n in (25, 50, 100, 300, 600):
        row = [str(n)]
        for name in ("DDIMScheduler", "EulerDiscreteScheduler"):
            config = {"timestep_spacing": "linspace", **({"clip_sample": False} if "DDIM" in name else {})}
            solver = api.solver("diffusers", scheduler=name, config=config, levels="own")
            x = api.sample(mixture(), start, solver=solver, steps=n - 1).x
            row.append(f"{float((x - exact).square().mean().sqrt()):.4f}")
        rows.append(row)
    return rows


def churn() -> list[list[str]]:
    """Relative errors of the variance of Gaussian samples with churn."""
    churned = {"s_churn": 3.0}
    theirs = api.solver("diffusers", scheduler="EDMEulerScheduler", step_options=churned)
    ours = api.solver("karras_sde", rk_order=1, S_churn=3.0, S_min=0.0, S_max=math.inf, S_noise=1.0)
    rows, exact = [], 0.8**2 + 0.2**2
    for n in (16, 32, 64, 128, 256):
        found = [gaussian_moments(s, n, std=0.8, low=0.2)[1] / exact - 1 for s in (theirs, ours)]
        rows.append([str(n), *(f"{error:+.5f}" for error in found)])
    return rows


_OWN_LEVELS = """\
Root mean square distance (64 samples) from the exact solution of the ODE, from the same start at timestep 999
of the default table, `timestep_spacing=linspace`, schedulers as in a pipeline (`levels=own`). Both are
the same first-order method; DDIM steps to t - 1000 // n instead of to the next timestep: at 600
steps, 1 instead of 1.67 timesteps, so that noise is left."""
_CHURN = """\
Relative error of the variance of samples of N(0.3, 0.8^2), exactly, with churn (s_churn=3). EDMEuler adds its
noise after the network was asked, so it uses an answer for another state; `karras_sde` with rk_order=1 is
Algorithm 2 of Karras et al. 2022 without its correction."""
DIFFUSERS = Library(
    name="diffusers",
    module="diffusers",
    install='pip install "seedsbench[diffusers]"',
    rounding=3e-5,  # many schedulers compute in float32
    claims=_claims,
    probes=[
        Probe("diffusers: DDIM's own levels", _OWN_LEVELS, ("steps", "DDIM", "Euler"), own_levels),
        Probe("diffusers: EDMEuler's churn", _CHURN, ("steps", "EDMEuler", "karras_sde"), churn),
    ],
)
