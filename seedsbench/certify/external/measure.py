"""A row of the field's certificate: what a foreign sampler is said to do, and does."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seedsbench import api
from seedsbench.certify.external.published import Library, Published
from seedsbench.certify.problems import as_solver, log_levels, mixture
from seedsbench.certify.row import WITHIN
from seedsbench.certify.weak import is_markov, kolmogorov_order, weak_orders
from seedsbench.diffusion.noise import Silent
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import Solver

FIRST, LAST, FINEST = 12, 192, 768  # steps: groups of two and three come out even
FINE_ROUNDING = 1e-6  # a library with more computes in float32
POWERS = (0, 1, 2)


def field_row(library: Library, claim: Published) -> dict[str, Any]:
    """Measured orders beside the published ones; nan for what does not exist."""
    solver = as_solver(claim.solver)
    row: dict[str, Any] = {
        "library": library.name,
        "version": library.version,
        "solver": claim.title,
        "source": claim.source,
        "order": math.nan if claim.drift is None else claim.drift,
        "drift_order": measured_drift(solver, library.rounding, claim.drift),
        "weak_order": math.nan if claim.weak is None else claim.weak,
        "weak_variance_gaussian": math.nan,
        "weak_mixture": math.nan,
    }
    if solver.stochastic:
        row["weak_variance_gaussian"] = weak_orders(solver, 64, std=0.8, low=0.2)[1]
        if is_markov(solver):
            row["weak_mixture"] = kolmogorov_order(solver).order
    for power, share in zip(POWERS, step_shares(solver), strict=True):
        row[f"share_s{power}"] = share
    row["exact"] = claim.exact
    row["verdict"] = field_verdict(row, library.rounding)
    row["cause"] = claim.cause if row["verdict"] != "holds" else ""
    return row


def measured_drift(solver: Solver, rounding: float, said: int | None) -> float:
    """The order, noise off, between the finest runs whose difference is well above what is rounded off.

    In float64 the steps are doubled further, up to 768, while the order is not the one that is said.
    """
    x = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(8, 2, 1, 1)
    options: Any = {"solver": solver, "final": "stop", "noise": Silent(x.shape)}

    def end(n: int) -> Tensor:
        return api.sample(mixture(), x, sigmas=log_levels(n, 10.0, 0.1), **options).x

    n, order, coarse, before = FIRST, math.nan, end(FIRST), math.nan
    while n < LAST or (n < FINEST and rounding < FINE_ROUNDING and abs(order - (said or order)) > WITHIN):
        n *= 2
        fine = end(n)
        difference = float((fine - coarse).norm())
        if difference <= rounding:
            break
        order, coarse, before = math.log2(before / difference), fine, difference
    return order


def step_shares(solver: Solver, steps: int = 20, width: float = 0.25) -> list[float]:
    """What a step in the middle of a run makes of D = 1, s and s^2, as shares of the exact integrals.

    s: -log sigma counted from the start of that step; noise off. A method that replaces D by its polynomial
    of degree p - 1 gives 1 for every power below p, and another number at the coefficient that is wrong.
    """
    levels = torch.exp(width * torch.arange(steps // 2, -steps // 2 - 1, -1, dtype=torch.float64))
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    rate, middle = 2.0 if solver.stochastic else 1.0, steps // 2
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(16))
    s = width * (1 + nodes) / 2
    shares = []
    for power in POWERS:

        def denoiser(x: Tensor, sigma: Tensor, labels: Any, power: int = power) -> Tensor:
            return torch.ones_like(x) * expand((-sigma.log()) ** power, x)

        path: Any = {"final": "stop", "noise": Silent(x.shape), "return_trajectory": True}
        states = api.sample(denoiser, x, solver=solver, sigmas=levels, **path).trajectory
        assert states is not None
        found = float(states[middle + 1] - math.exp(-rate * width) * states[middle])
        exact = float((weights * rate * (rate * (s - width)).exp() * s**power).sum()) * width / 2
        shares.append(found / exact)
    return shares


def field_verdict(row: dict[str, Any], rounding: float) -> str:
    """ "holds", or which published order the measurement contradicts.

    A drift order may be higher; the images that are exact have to be so to a hundredth. Of orders of three
    and more, what float32 leaves to be seen is on the way to the limit.
    """
    wrong, said = [], row["order"]
    allowed = WITHIN if said < 3 or rounding < FINE_ROUNDING else 2 * WITHIN
    if not math.isnan(said) and not row["drift_order"] >= said - allowed:
        wrong.append(f"drift order {row['drift_order']:.2f}, not {said:g}")
    found = [row[name] for name in ("weak_variance_gaussian", "weak_mixture") if not math.isnan(row[name])]
    if not math.isnan(row["weak_order"]) and not abs(min(found) - row["weak_order"]) <= WITHIN:
        wrong.append(f"weak order {min(found):.2f}, not {row['weak_order']:g}")
    shares = [(power, row[f"share_s{power}"]) for power in POWERS[: row["exact"]]]
    wrong += [f"{share:.2f} of the integral of s^{power}" for power, share in shares if abs(share - 1) > 0.01]
    return "; ".join(wrong) or "holds"
