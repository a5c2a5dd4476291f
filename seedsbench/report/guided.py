"""A panel by the scale of its guidance: curves that run over the scale instead of the budget."""

import json
from dataclasses import replace

import pandas as pd

from seedsbench.report.curves import curve_labels
from seedsbench.report.pareto import Panel
from seedsbench.report.points import curves_of
from seedsbench.report.rows import canonical_params, take
from seedsbench.report.style import looks_of


def by_scale(panel: Panel) -> tuple[Panel, pd.DataFrame] | None:
    """The panel with one curve for all scales of a solver and budget, and its points; None without a sweep.

    The points are those of `points.points`, one a scale, with a column `scale` beside.
    """
    if "guidance_params" not in panel.rows:
        return None
    params = panel.rows["guidance_params"].map(lambda text: json.loads(text) if isinstance(text, str) else {})
    numbers = params.map(lambda options: type(options.get("scale")) in (int, float))
    known = numbers & panel.rows["nfe_budget"].notna()
    if not known.any():
        return None
    rest = params.map(lambda options: canonical_params({k: v for k, v in options.items() if k != "scale"}))
    rows = take(panel.rows.assign(guidance_params=rest), known)
    budgets = rows["nfe_budget"].map(lambda budget: f" NFE {budget:g}")
    scales = [float(options["scale"]) for options in params[known]]
    rows = rows.assign(scale=scales, whole=curve_labels(rows) + budgets)
    found = panel.points.merge(
        rows[["curve", "nfe_budget", "scale", "whole"]].drop_duplicates(), on=["curve", "nfe_budget"]
    )
    found = found.assign(curve=found["whole"])
    swept = found.dropna(subset="fid").groupby("curve")["scale"].nunique() > 1
    if not swept.any():
        return None
    found = take(found, found["curve"].map(swept).fillna(False).astype(bool))
    rows = rows.assign(curve=rows["whole"])
    return replace(panel, rows=rows, looks=looks_of(curves_of(rows))), found
