"""The certificate as CSV (everything) and Markdown (what people read)."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from seedsbench.certify.row import BUDGETS
from seedsbench.report.style import solver_rank
from seedsbench.report.table import markdown_table, plain_table

_INTRODUCTION = """\
What each solver does, measured by `seedsbench-certify`, which makes every number here again, with exact
denoisers, so that all error is the solver's own. {claims}

- **Drift order**: noise off, on the two-dimensional mixture, from successive differences at 64, 128 and 256
  steps (up to 4096 where the limit shows late), under the schedules `linear` and `vp`.
- **Weak order**: how fast the distribution approaches that of the SDE. *Gaussian*: of the mean and of the
  variance, by exact propagation, 256 to 512 steps, of data 0.8 wide (80 wide where that does not show the
  limit: er_sde's noise is strong at high levels only); `exact` where the error is rounding. *Mixture*: of
  four expectations, by quadrature (a solver without memory is a Markov chain) or, with ± one standard error,
  by common noise.
- **Strong order**: mean difference along one Brownian path, refined in the solver's own clock, ± one standard
  error; `-` for solvers that draw fresh normals. `none`: refined runs do not approach each other (sa_solver
  switches its noise at grid levels, so two grids follow two SDEs of one law).
- **NFE**: evaluations of the first step and of each later one. *Smallest*: budget, final evaluation included.
"""
_ERRORS = """\
`seedsbench.sample(mixture, latents, solver=..., nfe=...)` with default options: {samples:,} samples, EDM's
grid from 80 to 0.002. *Fréchet*: squared distance to the exact moments. *W2*: sliced Wasserstein-2 distance
to the exact distribution. As many exact samples score {floors}: less than about twice that says nothing.
Bold: best at its budget. `-`: the budget fits no step.
"""


_ORDERS = ["solver", "family", "drift", "linear", "vp", "weak", "Gaussian mean", "variance", "mixture"]
_ORDERS += ["strong", "NFE", "smallest"]


def ordered(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows by family, as in every figure; variants after the solver they vary."""
    key = {row["solver"]: solver_rank(row["solver"].split()[0], row["family"], row["order"]) for row in rows}
    return pd.DataFrame(sorted(rows, key=lambda row: (key[row["solver"]], row["solver"])))


def write_tables(df: pd.DataFrame, exact: tuple[float, float], folder: Path) -> list[Path]:
    """certificate.md: orders and cost, errors at the budgets people quote. certificate.csv: every number.

    exact: both distances of exact samples.
    """
    records = df.to_dict("records")
    wrong = [f"- {row['solver']}: {row['verdict']}" for row in records if row["verdict"] != "as declared"]
    claims = f"**{len(records) - len(wrong)} of {len(records)} are as declared.**"
    kinds = [("frechet", "Fréchet"), ("sliced_wasserstein", "W2")]
    columns = {f"{name}@{budget}": f"{title} {budget}" for name, title in kinds for budget in (10, 20, 50)}
    best = {name: df[name].min() for name in columns}
    errors = [[row["solver"], *(_bold(row[name], best[name]) for name in columns)] for row in records]
    told = f"{exact[0]:.1g} and {exact[1]:.2g}"
    lines = [
        *("# Certificate", "", _INTRODUCTION.format(claims=claims), *wrong),
        *("", "## Orders and cost", ""),
        *markdown_table(_ORDERS, [_orders(row) for row in records]),
        *("", "## Error on the mixture", ""),
        _ERRORS.format(samples=int(df["samples"].max()), floors=told),
        *markdown_table(["solver", *columns.values()], errors),
        "",
    ]
    written = [folder / "certificate.md", folder / "certificate.csv"]
    written[0].write_text("\n".join(lines), encoding="utf-8", newline="\n")
    df.to_csv(written[1], index=False, float_format="%.6g", lineterminator="\n", encoding="utf-8")
    return written


def orders_text(df: pd.DataFrame) -> str:
    """Orders and cost for a terminal: drift and weak are declared, what follows each is measured."""
    told = "drift, weak: declared orders; after each the measured ones"
    return "\n".join([*plain_table(_ORDERS, [_orders(row) for row in df.to_dict("records")]), told])


def curve(row: dict[str, Any]) -> list[tuple[float, float]]:
    """(measured NFE, sliced Wasserstein distance) at every budget that fits."""
    points = [(row[f"nfe@{b}"], row[f"sliced_wasserstein@{b}"]) for b in BUDGETS]
    return [point for point in points if not math.isnan(point[0])]


def _orders(row: dict[str, Any]) -> list[str]:
    first, later = row["nfe_first_step"], row["nfe_per_step"]
    gaussian = [row["weak_mean_gaussian"], row["weak_variance_gaussian"]]
    measured = not all(math.isnan(order) for order in gaussian)
    return [
        row["solver"],
        row["family"],
        f"{row['order']:g}",
        _number(row["drift_order_linear"]),
        _number(row["drift_order_vp"]),
        _number(row["weak_order"], "g"),
        *("exact" if measured and math.isnan(order) else _number(order) for order in gaussian),
        _spread(row["weak_mixture"], row["weak_mixture_stderr"]),
        "none" if row["strong_order"] < 0.2 else _spread(row["strong_order"], row["strong_order_stderr"]),
        f"{later:.3g}" if first == later else f"{first:g}, then {later:.3g}",
        f"{row['smallest_budget']:g}",
    ]


def _number(value: float, spec: str = ".2f") -> str:
    return "-" if math.isnan(value) else format(value, spec)


def _spread(value: float, stderr: float) -> str:
    return f"{value:.2f} ± {stderr:.2f}" if stderr > 0 else _number(value)


def _bold(value: float, best: float) -> str:
    text = _number(value, ".3g")
    return f"**{text}**" if value == best else text
