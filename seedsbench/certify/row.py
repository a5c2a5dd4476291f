"""One solver's certificate: everything measured, beside what it declares."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from seedsbench import api
from seedsbench.certify.distances import SAMPLES, Distance, distance
from seedsbench.certify.orders import Measured, limit_drift_order, strong_order
from seedsbench.certify.weak import common_noise_order, is_affine, is_markov, kolmogorov_order, weak_orders
from seedsbench.solvers.base import Solver

BUDGETS = (5, 7, 10, 14, 20, 28, 50, 100)
WITHIN = 0.3  # how near a measured order has to come to the declared one
_NOTHING = Measured(math.nan, math.nan)


@dataclass(frozen=True)
class ConfiguredSolver:
    """A solver's configuration with options: what one row is about."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    def build(self) -> Solver:
        return api.solver(self.name, **self.options)


def configured_solvers() -> list[ConfiguredSolver]:
    """Every configured solver whose library is installed, and the variants whose orders are claimed too."""
    needed = {name: api.solver(name).library for name in api.solver_names()}
    named = [ConfiguredSolver(name) for name, library in needed.items() if not library or find_spec(library)]
    named += [ConfiguredSolver(name, {"c2": 0.4}) for name in ("seeds2", "seeds3")]
    return sorted(named, key=lambda one: one.title)


def certify(configured: ConfiguredSolver, *, samples: int = SAMPLES) -> dict[str, Any]:
    """The row of one solver; numbers that do not exist for it are nan."""
    solver = configured.build()
    row: dict[str, Any] = {
        "solver": configured.title,
        "family": solver.family,
        "stochastic": solver.stochastic,
        "adaptive": solver.adaptive,
        "order": solver.order,
        "drift_order_linear": limit_drift_order(solver, "linear"),
        "drift_order_vp": limit_drift_order(solver, "vp"),
        "weak_order": math.nan if solver.weak_order is None else solver.weak_order,
        **_weak_and_strong_orders(solver),
        "nfe_first_step": solver.nfe(1),
        "nfe_per_step": (solver.nfe(200) - solver.nfe(100)) / 100,
        "smallest_budget": solver.total_nfe(1),
        "samples": samples,
    }
    for budget in BUDGETS:
        found = distance(solver, budget, samples=samples) or Distance(math.nan, math.nan, math.nan)
        row[f"nfe@{budget}"], row[f"frechet@{budget}"] = found.nfe, found.frechet
        row[f"sliced_wasserstein@{budget}"] = found.wasserstein
    row["verdict"] = verdict(row)
    return row


def _weak_and_strong_orders(solver: Solver) -> dict[str, Any]:
    """Weak and strong orders, how they were found, and standard errors where they were sampled."""
    gaussian, mixture, strong, method = (math.nan, math.nan), _NOTHING, _NOTHING, ""
    if solver.stochastic:
        markov = is_markov(solver)
        gaussian = gaussian_orders(solver) if is_affine(solver) else gaussian
        mixture = _where_possible(kolmogorov_order if markov else common_noise_order, solver)
        strong = _where_possible(strong_order, solver)
        method = "" if mixture is _NOTHING else "quadrature" if markov else "sampled"
    return {
        "weak_mean_gaussian": gaussian[0],
        "weak_variance_gaussian": gaussian[1],
        "weak_mixture": mixture.order,
        "weak_mixture_stderr": mixture.stderr,
        "weak_mixture_method": method,
        "strong_order": strong.order,
        "strong_order_stderr": strong.stderr,
    }


def gaussian_orders(solver: Solver, n_steps: int = 256) -> tuple[float, float]:
    """Orders of (mean, variance) on a Gaussian of std 0.8, in a range where they show with few steps.

    Where they are not the declared one, on a Gaussian of std 80: the noise of some (er_sde) is strong at
    high levels only, and what it contributes to the error hides elsewhere.
    """
    orders = weak_orders(solver, n_steps, std=0.8, low=0.2)
    declared = solver.weak_order
    if declared is None or all(math.isnan(o) or abs(o - declared) <= WITHIN for o in orders):
        return orders
    return weak_orders(solver, n_steps, std=80.0, high=2000.0, low=20.0)


def _where_possible(measure: Callable[[Solver], Measured], solver: Solver) -> Measured:
    """The measurement, if any: some follow no path, and restart's intervals do not fit the noise levels."""
    try:
        return measure(solver)
    except ValueError:
        return _NOTHING


def weak_measured(row: dict[str, Any]) -> Measured:
    """The lowest of the weak orders measured, which is what a solver may call its own, or nan."""
    exact = [row[name] for name in ("weak_mean_gaussian", "weak_variance_gaussian")]
    found = [Measured(order) for order in exact if not math.isnan(order)]
    if not math.isnan(row["weak_mixture"]):
        found.append(Measured(row["weak_mixture"], row["weak_mixture_stderr"]))
    return min(found, key=lambda measured: measured.order, default=Measured(math.nan))


def verdict(row: dict[str, Any]) -> str:
    """ "as declared", or which declared order the measurement contradicts."""
    wrong = [
        f"drift order {row[name]:.2f} ({name.rsplit('_')[-1]}), declared {row['order']}"
        for name in ("drift_order_linear", "drift_order_vp")
        if not abs(row[name] - row["order"]) <= WITHIN
    ]
    if not math.isnan(row["weak_order"]):
        measured = weak_measured(row)
        if not abs(measured.order - row["weak_order"]) <= WITHIN + 2 * measured.stderr:
            wrong.append(f"weak order {measured.order:.2f}, declared {row['weak_order']:g}")
    return "; ".join(wrong) or "as declared"
