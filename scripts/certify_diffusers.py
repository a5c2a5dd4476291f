"""What diffusers' schedulers really do beside what their papers say: `python scripts/certify_diffusers.py`.

Writes results/certificate-diffusers.md. The measurements are those of seedsbench-certify.
"""

import itertools
import math
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seedsbench import api
from seedsbench.certify.problems import log_levels, mixture
from seedsbench.certify.row import WITHIN
from seedsbench.certify.weak import gaussian_moments, is_markov, kolmogorov_order, weak_orders
from seedsbench.diffusion.noise import Silent, latents
from seedsbench.report.table import markdown_table
from seedsbench.solvers.base import Solver

TARGET = Path(__file__).parents[1] / "results" / "certificate-diffusers.md"
COUNTS = (12, 24, 48, 96, 192)  # groups of two and three steps come out even
ROUNDED_OFF = 3e-5  # many schedulers compute in float32


@dataclass(frozen=True)
class Claim:
    """A scheduler with options, and what a paper says of it: orders of the drift and of the distribution."""

    scheduler: str
    paper: str
    drift: int | None
    weak: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        options = {**self.config, **self.step}
        return " ".join([self.scheduler.removesuffix("Scheduler"), *(f"{k}={v}" for k, v in options.items())])

    def build(self) -> Solver:
        return api.solver(
            "diffusers", scheduler=self.scheduler, config=self.config, step_options=self.step, levels="grid"
        )


_PP, _SDE = {"algorithm_type": "dpmsolver++"}, {"algorithm_type": "sde-dpmsolver++"}
_LU, _KARRAS = "Lu et al. 2022b", "Karras et al. 2022"
CLAIMS = [
    Claim("DDIMScheduler", "Song et al. 2021", 1),
    Claim("DDIMScheduler", "Song et al. 2021", 1, 1, {"clip_sample": False}, {"eta": 1.0}),
    Claim("DDPMScheduler", "Ho et al. 2020", 1, 1, {"clip_sample": False}),
    Claim("PNDMScheduler", "Liu et al. 2022", 2),
    Claim("PNDMScheduler", "Liu et al. 2022", 2, config={"skip_prk_steps": True}),
    Claim("DEISMultistepScheduler", "Zhang and Chen 2023", 2),
    Claim("DEISMultistepScheduler", "Zhang and Chen 2023", 3, config={"solver_order": 3}),
    Claim("DPMSolverMultistepScheduler", _LU, 1, config={**_PP, "solver_order": 1}),
    Claim("DPMSolverMultistepScheduler", _LU, 2, config=_PP),
    Claim("DPMSolverMultistepScheduler", _LU, 3, config={**_PP, "solver_order": 3}),
    Claim("DPMSolverMultistepScheduler", _LU, 1, 1, {**_SDE, "solver_order": 1}),
    Claim("DPMSolverMultistepScheduler", _LU, 2, 2, _SDE),
    Claim("DPMSolverMultistepScheduler", "as order 3 of the ODE", 3, 2, {**_SDE, "solver_order": 3}),
    Claim("DPMSolverSinglestepScheduler", _LU, 2),
    Claim("DPMSolverSinglestepScheduler", _LU, 3, config={"solver_order": 3}),
    Claim("UniPCMultistepScheduler", "Zhao et al. 2023", 3),
    Claim("UniPCMultistepScheduler", "Zhao et al. 2023", 4, config={"solver_order": 3}),
    Claim("EulerDiscreteScheduler", _KARRAS, 1),
    Claim("EulerAncestralDiscreteScheduler", "k-diffusion", 1, 1),
    Claim("HeunDiscreteScheduler", _KARRAS, 2),
    Claim("KDPM2DiscreteScheduler", _KARRAS, 2),
    Claim("KDPM2AncestralDiscreteScheduler", "k-diffusion", None, 2),
    Claim("LMSDiscreteScheduler", "k-diffusion", 4),
    Claim("EDMEulerScheduler", _KARRAS, 1),
    Claim("EDMDPMSolverMultistepScheduler", _LU, 2),
    Claim("EDMDPMSolverMultistepScheduler", _LU, 3, config={"solver_order": 3}),
    Claim("EDMDPMSolverMultistepScheduler", _LU, 2, 2, _SDE),
    Claim("FlowMatchEulerDiscreteScheduler", "Lipman et al. 2023", 1),
]
_TEXT = """\
# Certificate of diffusers' schedulers

What schedulers of diffusers {version} do beside what their papers say, measured as
[ours](certificate.md) are. `python scripts/certify_diffusers.py` makes every number here
again. **{held} of {all} hold.**

- **Drift order**: noise off, on the two-dimensional mixture, from successive differences at 12 to 192 steps,
  the finest that are well above what float32 rounds off: many schedulers compute in it. All see the same
  levels. An order of 1 or 2 holds from 0.3 below, a higher one from 0.6: float32 hides its limit. `-`: the
  noise of an ancestral step is part of its rule, and without it there is no order to claim.
- **Weak order**: of the variance on Gaussian data, 64 to 128 steps, and of four expectations on the mixture
  by quadrature (without memory only).

"""
_OWN = """
`PNDM skip_prk_steps=True` is on its way: 1.94 between 192 and 384 steps. DEIS of order 3 converges up to 48
steps, then its coefficients, differences of large numbers, lose their digits. The third order of
`sde-dpmsolver++` has the wrong sign in one term.

## Where their own levels or their noise go wrong

Root mean square distance (64 samples) from the exact solution of the ODE, from the same start at timestep 999
of the default table, `timestep_spacing=linspace`, schedulers as in a pipeline (`levels=own`). Both are
the same first-order method; DDIM steps to t - 1000 // n instead of to the next timestep: at 600
steps, 1 instead of 1.67 timesteps, so that noise is left.

"""
_CHURN = """
Relative error of the variance of samples of N(0.3, 0.8^2), exactly, with churn (s_churn=3). EDMEuler adds its
noise after the network was asked, so it uses an answer for another state; `karras_sde` with rk_order=1 is
Algorithm 2 of Karras et al. 2022 without its correction.

"""


def measured_drift(claim: Claim) -> float:
    """The order between the finest runs whose difference is well above what float32 rounds off."""
    solver, x = claim.build(), torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(8, 2, 1, 1)
    options: Any = {"solver": solver, "final": "stop", "noise": Silent(x.shape)}
    ends = [api.sample(mixture(), x, sigmas=log_levels(n, 10.0, 0.1), **options).x for n in COUNTS]
    differences = [float((b - a).norm()) for a, b in itertools.pairwise(ends)]
    kept = [d for d in differences if d > ROUNDED_OFF]
    return math.log2(kept[-2] / kept[-1]) if len(kept) > 1 else math.nan


def row_of(claim: Claim) -> list[str]:
    """A row of the table; the last column says what does not hold."""
    solver, wrong = claim.build(), []
    drift = measured_drift(claim)
    # Of three and more, what float32 leaves to be seen is on the way to the limit, on either side of it.
    if claim.drift is not None and not drift >= claim.drift - (WITHIN if claim.drift < 3 else 2 * WITHIN):
        wrong.append(f"drift order {drift:.2f}, not {claim.drift}")
    weak = [math.nan, math.nan]
    if solver.stochastic:
        weak[0] = weak_orders(solver, 64, std=0.8, low=0.2)[1]
        if is_markov(solver):
            weak[1] = kolmogorov_order(solver).order
        low = min((order for order in weak if not math.isnan(order)), default=math.nan)
        if claim.weak is not None and not abs(low - claim.weak) <= WITHIN:
            wrong.append(f"weak order {low:.2f}, not {claim.weak}")
    said = "-" if claim.weak is None else str(claim.weak)
    numbers = [f"{x:.2f}" if not math.isnan(x) else "-" for x in (drift, *weak)]
    verdict = f"**{'; '.join(wrong)}**" if wrong else "holds"
    return [claim.title, claim.paper, str(claim.drift or "-"), numbers[0], said, *numbers[1:], verdict]


def own_levels() -> list[list[str]]:
    """Distances from the exact solution of DDIM and Euler at their own linspace timesteps."""
    start, rows = latents(torch.arange(64), (2, 1, 1), seed=0), []
    schedule = api.registry.build(api.registry.configured("schedule", "discrete"))
    sigma = [float(s) for s in schedule.sigma(torch.tensor([999.0, 0.0], dtype=torch.float64))]
    levels = torch.linspace(math.log(sigma[0]), math.log(sigma[1]), 4001, dtype=torch.float64).exp()
    exact = api.sample(mixture(), start, solver="dpmpp_3m", sigmas=levels).x
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


def main() -> int:
    """Measure and write."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import diffusers  # pyright: ignore[reportMissingImports]

    diffusers.utils.logging.set_verbosity_error()
    rows = []
    for claim in CLAIMS:
        rows.append(row_of(claim))
        print(" | ".join(rows[-1]), flush=True)
    held = sum(row[-1] == "holds" for row in rows)
    heads = ["scheduler", "paper", "drift said", "drift", "weak said", "weak, Gaussian", "weak, mixture", ""]
    text = _TEXT.format(version=diffusers.__version__, held=held, all=len(rows))
    text += "\n".join(markdown_table(heads, rows)) + "\n" + _OWN
    text += "\n".join(markdown_table(["steps", "DDIM", "Euler"], own_levels())) + "\n" + _CHURN
    text += "\n".join(markdown_table(["steps", "EDMEuler", "karras_sde"], churn())) + "\n"
    TARGET.write_text(text, encoding="utf-8", newline="\n")
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
