"""Which solver is best: at each budget, with the margin to the second, and over a range of NFE."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seedsbench.report.rows import records, take


@dataclass(frozen=True)
class Winner:
    """The best curve at one budget and the next one.

    margin: second's mean FID less the best's. error: standard error of that difference, from the spreads
    over seeds; nan where either has one seed. clear: whether the margin is more than two such errors; None
    where that cannot be said.
    """

    budget: float
    best: str
    fid: float
    second: str | None
    margin: float
    error: float
    clear: bool | None


def winners(found: pd.DataFrame) -> list[Winner]:
    """The winner at every budget of a panel's `points`, less those doubted, lowest budget first."""
    made: list[Winner] = []
    at: dict[float, list[dict]] = {}
    for point in records(take(found, found["fid"].notna() & found["nfe_budget"].notna() & ~found["doubted"])):
        at.setdefault(float(point["nfe_budget"]), []).append(point)
    for budget in sorted(at):
        ranked = sorted(at[budget], key=lambda point: point["fid"])
        best, second = ranked[0], ranked[1] if len(ranked) > 1 else None
        if second is None:
            made.append(Winner(budget, best["curve"], best["fid"], None, math.nan, math.nan, None))
            continue
        margin = second["fid"] - best["fid"]
        error = math.sqrt(sum(one["fid_std"] ** 2 / one["n"] for one in (best, second)))
        clear = None if math.isnan(error) else bool(margin > 2 * error)
        made.append(Winner(budget, best["curve"], best["fid"], second["curve"], margin, error, clear))
    return made


@dataclass(frozen=True)
class Ranked:
    """A curve's geometric mean FID over a range of measured NFE."""

    curve: str
    mean_fid: float


def ranking(found: pd.DataFrame) -> tuple[tuple[float, float], list[Ranked], list[str]]:
    """(range of NFE, curves by the area under log FID over log NFE, curves that do not cover the range).

    The area is that of straight lines between a curve's points on log axes, divided by the width: the log
    of a geometric mean. The range is the widest that at least half of the curves with two points cover.
    """
    usable = take(found, (found["fid"] > 0) & (found["nfe"] > 0) & ~found["doubted"])
    curves = {str(name): group.sort_values("nfe") for name, group in usable.groupby("curve", sort=False)}
    spans = {name: (g["nfe"].min(), g["nfe"].max()) for name, g in curves.items() if g["nfe"].nunique() > 1}
    if not spans:
        return (math.nan, math.nan), [], list(curves)
    low, high = (float(np.median([span[i] for span in spans.values()])) for i in (0, 1))
    covered = [name for name, (a, b) in spans.items() if a <= low * 1.11 and b >= high / 1.11]
    if not covered or not low < high:
        return (low, high), [], list(curves)
    low, high = max(spans[name][0] for name in covered), min(spans[name][1] for name in covered)
    ranked = sorted(
        (Ranked(name, _geometric_mean(curves[name], low, high)) for name in covered),
        key=lambda one: one.mean_fid,
    )
    return (float(low), float(high)), ranked, [name for name in curves if name not in covered]


def _geometric_mean(curve: pd.DataFrame, low: float, high: float) -> float:
    x = np.log(curve["nfe"].to_numpy(float))
    y = np.log(curve["fid"].to_numpy(float))
    ends = np.log([low, high])
    inside = x[(x > ends[0]) & (x < ends[1])]
    grid = np.concatenate([ends[:1], inside, ends[1:]])
    heights = np.interp(grid, x, y)
    area = float(np.sum((heights[1:] + heights[:-1]) / 2 * np.diff(grid)))
    return math.exp(area / (ends[1] - ends[0]))
