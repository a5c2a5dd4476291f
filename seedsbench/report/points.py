"""The points of a panel: one a curve and budget, with mean, spread and minimum over repeats; the front."""

import numpy as np
import pandas as pd

from seedsbench.report.rows import STATUSES
from seedsbench.report.style import solver_rank

# Scores that only some rows have: kernel distance, and the manifold estimates against real features.
OTHERS = ("kid_mean", "kid_std", "precision", "recall", "density", "coverage")


def points(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a curve and budget of a panel's rows: means, spread (s.d., n - 1) and counts over seeds.

    Columns: curve solver solver_family nfe_budget n_steps nfe seconds (for one image) fid fid_std fid_min n
    fid_floor is_mean is_std (over the splits of one run) is_mean_std images_per_second, those of OTHERS that
    rows have, the number of rows of each status, warnings (of the finished row that has most), and doubted:
    whether other points at this budget have fewer, so that this one is best at nothing.
    """
    keys = ["curve", "nfe_budget", "n_steps"]
    rows = newest(rows.assign(n_steps=asked_steps(rows)))
    done = rows["status"] == "done"
    means = ["nfe", "seconds", "fid", "fid_floor", "is_mean", "is_std", "images_per_second"]
    means += [name for name in OTHERS if name in rows]
    rows = rows.assign(
        seconds=1 / rows["images_per_second"], warnings=rows["warning"].map(_sentences).where(done, 0)
    )
    rows = rows.assign(
        **{name: rows[name].where(done) for name in means},
        **{status: (rows["status"] == status).astype(int) for status in STATUSES},
    )
    grouped = rows.groupby(keys, dropna=False, sort=False)
    parts = [
        grouped[means].mean(),
        grouped["fid"].std(ddof=1).to_frame("fid_std"),
        pd.DataFrame({"fid_min": grouped["fid"].min()}),
        grouped["is_mean"].std(ddof=1).to_frame("is_mean_std"),
        grouped["fid"].count().to_frame("n"),
        grouped[list(STATUSES)].sum(),
        grouped["warnings"].max(),
        grouped[["solver", "solver_family"]].first(),
    ]
    out = pd.concat(parts, axis=1).reset_index()
    scored = out["warnings"].where(out["fid"].notna())
    out["doubted"] = scored > scored.groupby(out["nfe_budget"], dropna=False).transform("min")
    who = zip(out["solver"], out["solver_family"], strict=True)
    out["rank"] = pd.Series([solver_rank(name, family) for name, family in who], dtype="object")
    return out.sort_values(["rank", *keys], kind="stable").drop(columns="rank").reset_index(drop=True)


def _sentences(warning: object) -> int:
    return len(str(warning).split("; ")) if warning else 0


def asked_steps(rows: pd.DataFrame) -> pd.Series:
    """Step counts where a row has no budget: a budget alone says which point a row belongs to, since an
    adaptive solver takes another number of steps for each seed and a skipped row took none."""
    return rows["n_steps"].where(rows["nfe_budget"].isna())


def newest(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each curve, budget, seed and repeat: a done one before others, then the newest.

    Rows of equal settings and seed are the same experiment done twice, not a repeat: counting both
    would shrink the error bars.
    """
    same = ["curve", "nfe_budget", "_steps", "seed", "repeat"]
    ranked = rows.assign(
        _steps=asked_steps(rows),
        _done=rows["status"] == "done",
        _time=rows["time_utc"].fillna("").astype(str),
    )
    ranked = ranked.sort_values(["_done", "_time", "run_key"], kind="stable")
    return rows.loc[ranked.drop_duplicates(same, keep="last").index].sort_index()


def front(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mask of the points no other point beats: none is as low in both and lower in one. NaN never is."""
    cost, score = np.asarray(cost, float), np.asarray(score, float)
    no_worse = (cost[:, None] <= cost) & (score[:, None] <= score)
    better = (cost[:, None] < cost) | (score[:, None] < score)
    return ~(no_worse & better).any(axis=0) & np.isfinite(cost) & np.isfinite(score)
