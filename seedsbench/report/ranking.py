"""Which solver is best: at each budget, with a verdict on every other one, and over a range of NFE."""

import math
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from seedsbench.report.rows import take
from seedsbench.report.verdicts import Verdict, difference, judge

Point = dict[Any, Any]
"""A line of `points.points`."""


class Winner(NamedTuple):
    """The points of one budget, lowest mean FID first, and the verdict on each two of them, by position."""

    budget: float
    points: list[Point]
    verdicts: dict[tuple[int, int], Verdict]

    @property
    def near(self) -> list[Point]:
        """The points that the best one is not found to be better than, of those that can be judged."""
        judged = [(self.verdicts[0, i], point) for i, point in enumerate(self.points) if i]
        return [point for verdict, point in judged if verdict.word != "better" and not math.isnan(verdict.p)]


def winners(found: pd.DataFrame) -> list[Winner]:
    """What is found at every budget with two points to compare, less those doubted, lowest budget first."""
    made = []
    sure = take(found, found["fid"].notna() & ~found["doubted"]).sort_values("fid", kind="stable")
    for budget, group in sure.groupby("nfe_budget"):
        points = group.to_dict("records")
        pairs = list(combinations(range(len(points)), 2))
        verdicts = judge([difference(points[i]["runs"], points[j]["runs"]) for i, j in pairs])
        if pairs:
            made.append(Winner(float(budget), points, dict(zip(pairs, verdicts, strict=True))))  # type: ignore[arg-type]
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
