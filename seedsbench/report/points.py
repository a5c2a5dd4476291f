"""The points of a panel: one a curve and budget, with mean, spread and minimum over repeats; the front."""

import math

import numpy as np
import pandas as pd

from seedsbench.files.rows import SCORE_NAMES
from seedsbench.report.rows import STATUSES
from seedsbench.report.style import solver_rank
from seedsbench.report.verdicts import RunId, RunSpread, spread_over_runs

# Scores that only some rows have: FID extrapolated in N, distances to exact paths, kernel distance, the
# manifold estimates.
OTHER_SCORES = ("fid_infinity", "fid_infinity_std", "trajectory_median", "sliced_wasserstein")
OTHER_SCORES += ("kid_mean", "kid_std", "precision", "recall", "density", "coverage")
# Those, and what else only some rows have: fid_floor_std is over the sets of one floor.
SOME = ("fid_floor_std", *OTHER_SCORES)
_NO_SPREAD = RunSpread(math.nan, math.nan, math.nan, 0, 0, math.nan)


def curves_of(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a curve, in the order of tables and legends: its solver, solver_family and order.

    A skipped row does not say the last two, since its solver was never built: other rows of it do.
    """
    curves = rows.groupby("curve", sort=True)[["solver"]].first()
    curves = curves.join(rows.groupby("solver")[["solver_family", "order"]].first(), on="solver")
    curves = curves.assign(order=curves["order"].fillna(0.0))
    ranks = [solver_rank(*line) for line in curves.itertuples(index=False)]
    return curves.iloc[sorted(range(len(curves)), key=ranks.__getitem__)]


def score_of(rows: pd.DataFrame) -> str:
    """The column that a panel's rows are judged by: the first of SCORE_NAMES that any has, else fid."""
    return next((name for name in SCORE_NAMES if name in rows and rows[name].notna().any()), "fid")


def points(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a curve and budget of a panel's rows: means, spread (s.d., n - 1) and counts over seeds.

    fid and what is made of it are of the score that the rows are judged by, whatever its name (`score_of`).
    Columns: curve nfe_budget n_steps nfe seconds (for one image) fid fid_std fid_min n fid_floor is_mean
    is_std (over the splits of one run) is_mean_std images_per_second, those of SOME that rows have,
    runs (the scores by RunId), trainings and trainings_std (of `spread_over_runs`, as fid and fid_std are),
    the number of rows of each status, warnings (of the finished row that has most), and doubted: whether
    other points at this budget have fewer warnings, so that this one is best at nothing.
    """
    keys = ["curve", "nfe_budget", "n_steps"]
    rows = newest(rows.assign(n_steps=asked_steps(rows), fid=rows[score_of(rows)]))
    done = rows["status"] == "done"
    means = ["nfe", "seconds", "fid", "fid_floor", "is_mean", "is_std", "images_per_second"]
    means += [name for name in SOME if name in rows]
    rows = rows.assign(
        seconds=1 / rows["images_per_second"],
        warnings=rows["warning"].map(lambda told: len(told.split("; ")) if told else 0).where(done, 0),
        **{status: (rows["status"] == status).astype(int) for status in STATUSES},
    )
    rows[means] = rows[means].where(done)
    rows["_scored"] = list(zip(rows["run"], rows["fid"], strict=True))
    wanted = {
        **{name: (name, "mean") for name in means},
        **{"fid_min": ("fid", "min"), "n": ("fid", "count"), "runs": ("_scored", _by_run)},
        **{"is_mean_std": ("is_mean", "std"), "warnings": ("warnings", "max")},
        **{status: (status, "sum") for status in STATUSES},
    }
    out = rows.groupby(keys, dropna=False, sort=False).agg(**wanted).reset_index()
    spreads = [spread_over_runs(runs) if runs else _NO_SPREAD for runs in out["runs"]]
    found = pd.DataFrame(spreads, columns=RunSpread._fields, index=out.index)
    names = {"mean": "fid", "std": "fid_std", "trainings": "trainings", "trainings_std": "trainings_std"}
    out[list(names.values())] = found[list(names)]
    scored = out["warnings"].where(out["fid"].notna())
    out["doubted"] = scored > scored.groupby(out["nfe_budget"], dropna=False).transform("min")
    place = {curve: i for i, curve in enumerate(curves_of(rows).index)}
    out = out.assign(_place=out["curve"].map(place)).sort_values(["_place", *keys], kind="stable")
    return out.drop(columns="_place").reset_index(drop=True)


def _by_run(scored: pd.Series) -> dict[RunId, float]:
    return {run: fid for run, fid in scored if not math.isnan(fid)}


def asked_steps(rows: pd.DataFrame) -> pd.Series:
    """Step counts where a row has no budget: a budget alone says which point a row belongs to, since an
    adaptive solver takes another number of steps for each seed and a skipped row took none."""
    return rows["n_steps"].where(rows["nfe_budget"].isna())


def newest(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each curve, budget, run and repeat: a done one before others, then the newest.

    Rows of equal settings and seed are the same experiment done twice, not a repeat: counting both
    would shrink the error bars.
    """
    same = ["curve", "nfe_budget", "_steps", "run", "repeat"]
    ranked = rows.assign(
        _steps=asked_steps(rows),
        _done=rows["status"] == "done",
        _time=rows["time_utc"].fillna(""),
    )
    ranked = ranked.sort_values(["_done", "_time", "run_key"], kind="stable")
    return rows.loc[ranked.drop_duplicates(same, keep="last").index].sort_index()


def front(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mask of the points no other point beats: none is as low in both and lower in one. NaN never is."""
    cost, score = np.asarray(cost, float), np.asarray(score, float)
    no_worse = (cost[:, None] <= cost) & (score[:, None] <= score)
    better = (cost[:, None] < cost) | (score[:, None] < score)
    return ~(no_worse & better).any(axis=0) & np.isfinite(cost) & np.isfinite(score)
