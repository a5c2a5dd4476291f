"""Which solver is best: at each budget, with the margin to the second, and over a range of NFE."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from seedsbench.report.rows import take

Point = dict[Any, Any]
"""A line of `points.points`."""


class Difference(NamedTuple):
    """A mean FID less another one; its standard error, from the spreads over seeds (nan where either has one
    seed); and whether it is clear, that is more than two such errors (None where that cannot be said)."""

    value: float
    error: float
    clear: bool | None


def difference(first: Point | None, second: Point | None) -> Difference:
    """The second point's mean FID less the first's; all unknown where either is none."""
    if not (first and second):
        return Difference(math.nan, math.nan, None)
    value = second["fid"] - first["fid"]
    error = math.sqrt(sum(point["fid_std"] ** 2 / max(point["n"], 1) for point in (first, second)))
    return Difference(value, error, None if math.isnan(value + error) else bool(abs(value) > 2 * error))


class Winner(NamedTuple):
    """The best point at one budget, the next one, and the margin between them."""

    budget: float
    best: Point
    second: Point
    margin: Difference


def winners(found: pd.DataFrame) -> list[Winner]:
    """The winner at every budget with a second point to beat, less those doubted, lowest budget first."""
    made = []
    sure = take(found, found["fid"].notna() & ~found["doubted"]).sort_values("fid", kind="stable")
    for budget, group in sure.groupby("nfe_budget"):
        best, *others = group.head(2).to_dict("records")
        made += [Winner(float(budget), best, second, difference(best, second)) for second in others]  # type: ignore[arg-type]
    return made


class Ranking(NamedTuple):
    """Geometric mean FIDs over a range of measured NFE, best first, and the curves that do not cover it."""

    low: float
    high: float
    mean_fid: dict[str, float]
    left: list[str]


def ranking(found: pd.DataFrame) -> Ranking:
    """Curves by the area under log FID over log NFE.

    The area is that of straight lines between a curve's points on log axes, divided by the width: the log
    of a geometric mean. The range is the widest that at least half of the curves with two points cover.
    """
    usable = take(found, (found["fid"] > 0) & (found["nfe"] > 0) & ~found["doubted"])
    curves = {str(name): group.sort_values("nfe") for name, group in usable.groupby("curve", sort=False)}
    spans = {name: (g["nfe"].min(), g["nfe"].max()) for name, g in curves.items() if g["nfe"].nunique() > 1}
    if not spans:
        return Ranking(math.nan, math.nan, {}, list(curves))
    low, high = (float(np.median([span[i] for span in spans.values()])) for i in (0, 1))
    covered = [name for name, (a, b) in spans.items() if a <= low * 1.11 and b >= high / 1.11]
    if not covered or not low < high:
        return Ranking(low, high, {}, list(curves))
    low, high = max(spans[name][0] for name in covered), min(spans[name][1] for name in covered)
    means = {name: _geometric_mean(curves[name], low, high) for name in covered}
    ranked = dict(sorted(means.items(), key=lambda item: item[1]))
    return Ranking(float(low), float(high), ranked, [name for name in curves if name not in covered])


def _geometric_mean(curve: pd.DataFrame, low: float, high: float) -> float:
    x, y = np.log(curve["nfe"].to_numpy(float)), np.log(curve["fid"].to_numpy(float))
    a, b = np.log([low, high])
    grid = np.array([a, *x[(x > a) & (x < b)], b])
    return math.exp(trapezoid(np.interp(grid, x, y), grid) / (b - a))
