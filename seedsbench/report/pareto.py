"""What may be compared with what: panels, curves, repeats, the Pareto front. Pure functions on rows.

A *panel* holds rows whose scores are comparable: same model, regime, feature extractor, reference
statistics, sample count and labels. A *curve* is one solver with one set of parameters within a panel. A
*point* of a curve is one budget: the mean over seeds.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from seedsbench.report.rows import STATUSES, Problem
from seedsbench.report.style import REGIME_NAMES, solver_rank

PANEL: tuple[str, ...] = ("model", "regime", "extractor", "extractor_id", "reference_id", "samples", "labels")
# Beside solver and parameters these make a curve of their own; named in its label where they vary.
SETTINGS: tuple[str, ...] = (
    "schedule",
    "grid",
    "final",
    "model_id",
    "dtype",
    "seeding",
    "precision",
    "numerics_version",
)
# What the rows of an unaltered regime say, so that a panel on another grid can name it.
REGIME_DEFAULTS = {
    "vp": {"schedule": "vp", "grid": "vp"},
    "ve": {"schedule": "ve", "grid": "ve"},
    "iddpm": {"schedule": "linear", "grid": "iddpm"},
    "edm": {"schedule": "linear", "grid": "edm"},
}
MISSING = "?"


@dataclass(frozen=True)
class Panel:
    """Comparable rows; `key` holds one text for each of PANEL, `rows` has a `curve` column of labels."""

    key: dict[str, str]
    title: str
    slug: str
    rows: pd.DataFrame

    @cached_property
    def points(self) -> pd.DataFrame:
        """`points` of its rows."""
        return points(self.rows)


def panels(df: pd.DataFrame) -> list[Panel]:
    """Split rows into panels, in a fixed order, with titles that tell them apart."""
    if df.empty:
        return []
    keys = _panel_keys(df)
    groups: list[tuple[dict[str, str], pd.DataFrame]] = []
    for values, index in keys.groupby(list(PANEL), sort=True).groups.items():
        key = dict(zip(PANEL, map(str, values), strict=True))  # type: ignore[call-overload]
        groups.append((key, df.loc[index]))
    groups.sort(key=lambda group: (group[0]["model"], *_regime_order(group[0]["regime"])))
    told = [name for name in PANEL if name in ("model", "regime") or _tells_apart(name, groups)]
    made = []
    for key, rows in groups:
        title = " · ".join([describe(name, key[name]) for name in told] + overrides(rows))
        slug = "_".join(_slug(name, key[name]) for name in told)
        made.append(Panel(key, title, slug, rows.assign(curve=curve_labels(rows))))
    return made


def _panel_keys(df: pd.DataFrame) -> pd.DataFrame:
    """The PANEL columns as text. Skipped and failed rows may know no extractor: they join a scored panel."""
    keys = pd.DataFrame({name: _text(df, name) for name in PANEL}, index=df.index)
    done = (df["status"] == "done").to_numpy()
    scored = [tuple(row) for row in keys[done].drop_duplicates().itertuples(index=False)]
    for _, group in keys[~done].groupby(list(PANEL)):
        unscored = tuple(map(str, group.iloc[0]))
        near = [
            key
            for key in scored
            if all(MISSING in (mine, a) or mine == a for mine, a in zip(unscored, key, strict=True))
        ]
        if near:
            keys.loc[group.index, list(PANEL)] = [near[0]] * len(group)
    return keys


def _text(df: pd.DataFrame, name: str) -> pd.Series:
    """A column as text; whole numbers without a point, missing values as MISSING."""
    if name not in df:
        return pd.Series(MISSING, index=df.index)
    return df[name].map(
        lambda value: MISSING if pd.isna(value) else f"{value:g}" if _is_float(value) else str(value)
    )


def _is_float(value: object) -> bool:
    return isinstance(value, float) and abs(value) < 1e6


def _regime_order(regime: str) -> tuple[int, str]:
    known = list(REGIME_NAMES)
    return (known.index(regime) if regime in known else len(known), regime)


def _tells_apart(name: str, groups: list[tuple[dict[str, str], pd.DataFrame]]) -> bool:
    """Whether two panels of one model and regime differ in this key."""
    seen: dict[tuple[str, str], str] = {}
    return any(seen.setdefault((key["model"], key["regime"]), key[name]) != key[name] for key, _ in groups)


def describe(name: str, value: str) -> str:
    """One part of a title: 'N = 2,000', 'balanced labels', 'reference 1a2b3c4d'."""
    if name == "regime":
        return REGIME_NAMES.get(value, value)
    if name == "samples":
        return "N not recorded" if value == MISSING else f"N = {int(float(value)):,}"
    if name == "labels":
        named = {"balanced": "balanced labels", "random": "random labels", "none": "no labels"}
        return named.get(value, "labels not recorded" if value == MISSING else f"class {value}")
    if name in ("extractor_id", "reference_id"):
        return f"{name.removesuffix('_id')} {value[:8]}"
    return value


def title_parts(panel: Panel) -> list[str]:
    """Everything a reader must know of a panel: its title, then N and labels where that lacks them."""
    parts = panel.title.split(" · ")
    from_key = [describe(name, panel.key[name]) for name in ("samples", "labels")]
    return parts + [part for part in from_key if part not in parts]


def split_titles(parts: list[list[str]]) -> tuple[str, list[str]]:
    """What all panels share, for the figure's title, and what each has of its own.

    >>> split_titles([["glyphs", "VP"], ["glyphs", "VE"]])
    ('glyphs', ['VP', 'VE'])
    """
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    return " · ".join(shared), [" · ".join(p for p in one if p not in shared) for one in parts]


def _slug(name: str, value: str) -> str:
    text = value[:8] if name.endswith("_id") else value
    text = {"samples": "n", "labels": "labels-"}.get(name, "") + text
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text)


def overrides(rows: pd.DataFrame) -> list[str]:
    """Schedule and grid where a whole panel departs from its regime: ['grid edm']."""
    defaults = REGIME_DEFAULTS.get(str(rows["regime"].iloc[0]), {})
    found = []
    for name, usual in defaults.items():
        values = set(_text(rows, name)) - {MISSING}
        if len(values) == 1 and values != {usual}:
            found.append(f"{name} {values.pop()}")
    return found


def curve_labels(rows: pd.DataFrame) -> pd.Series:
    """A label for each row: the solver, and only those parameters and settings in which curves differ."""
    told = [name for name in SETTINGS if len(set(_text(rows, name)) - {MISSING}) > 1]
    settings = pd.DataFrame({name: _text(rows, name) for name in told}, index=rows.index)
    params = {text: _params(text) for text in rows["solver_params"].unique()}
    varying = {
        solver: _varying([params[text] for text in group["solver_params"].unique()])
        for solver, group in rows.groupby("solver", sort=False)
    }
    labels, owner = [], {}
    for index, solver, text in zip(rows.index, rows["solver"], rows["solver_params"], strict=True):
        told_params = [
            f"{n}={_short(params[text][n])}" for n in varying[solver] if params[text].get(n) is not None
        ]
        told_settings = [_setting(name, settings.at[index, name]) for name in told]
        label = " ".join([solver, *told_params, *told_settings])
        identity = (text, *told_settings)
        # Null against a value that happens to print alike: rare, but two curves must never become one.
        if owner.setdefault(label, identity) != identity:
            label += " #" + hashlib.sha256(repr(identity).encode()).hexdigest()[:4]
        labels.append(label)
    return pd.Series(labels, index=rows.index, dtype="object")


def _params(text: str) -> dict:
    value = json.loads(text)
    return value if isinstance(value, dict) else {"params": value}


def _varying(params: list[dict]) -> list[str]:
    names = sorted({name for one in params for name in one})
    return [name for name in names if len({json.dumps(one.get(name), sort_keys=True) for one in params}) > 1]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"{value:.4g}" if isinstance(value, float) else text[:24]


def _setting(name: str, value: str) -> str:
    return f"{name.removesuffix('_id')}={value[:8] if name.endswith('_id') else value}"


def points(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a curve and budget of a panel's rows: means, spread (s.d., n - 1) and counts over seeds.

    Columns: curve solver solver_family nfe_budget n_steps nfe seconds (for one image) fid fid_std n
    fid_floor is_mean is_std (over the splits of one run) is_mean_std images_per_second, and the number of
    rows of each status.
    """
    keys = ["curve", "nfe_budget", "n_steps"]
    rows = newest(rows.assign(n_steps=_asked_steps(rows)))
    done = rows["status"] == "done"
    means = ["nfe", "seconds", "fid", "fid_floor", "is_mean", "is_std", "images_per_second"]
    rows = rows.assign(seconds=1 / rows["images_per_second"])
    rows = rows.assign(
        **{name: rows[name].where(done) for name in means},
        **{status: (rows["status"] == status).astype(int) for status in STATUSES},
    )
    grouped = rows.groupby(keys, dropna=False, sort=False)
    parts = [
        grouped[means].mean(),
        grouped["fid"].std(ddof=1).to_frame("fid_std"),
        grouped["is_mean"].std(ddof=1).to_frame("is_mean_std"),
        grouped["fid"].count().to_frame("n"),
        grouped[list(STATUSES)].sum(),
        grouped[["solver", "solver_family"]].first(),
    ]
    out = pd.concat(parts, axis=1).reset_index()
    who = zip(out["solver"], out["solver_family"], strict=True)
    out["rank"] = pd.Series([solver_rank(name, family) for name, family in who], dtype="object")
    return out.sort_values(["rank", *keys], kind="stable").drop(columns="rank").reset_index(drop=True)


def _asked_steps(rows: pd.DataFrame) -> pd.Series:
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
        _steps=_asked_steps(rows),
        _done=rows["status"] == "done",
        _time=rows["time_utc"].fillna("").astype(str),
    )
    ranked = ranked.sort_values(["_done", "_time", "run_key"], kind="stable")
    return rows.loc[ranked.drop_duplicates(same, keep="last").index].sort_index()


def doubled(df: pd.DataFrame) -> list[Problem]:
    """Rows that `newest` sets aside: either run twice, or apart in a setting that rows do not name."""
    why = "same settings, budget, seed and repeat as another row; the newest finished one counts"
    found = [set(panel.rows["run_key"]) - set(newest(panel.rows)["run_key"]) for panel in panels(df)]
    return sorted(Problem(f"{key}.json", why) for keys in found for key in keys)


def front(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mask of the points no other point beats: none is as low in both and lower in one. NaN never is."""
    cost, score = np.asarray(cost, float), np.asarray(score, float)
    no_worse = (cost[:, None] <= cost) & (score[:, None] <= score)
    better = (cost[:, None] < cost) | (score[:, None] < score)
    return ~(no_worse & better).any(axis=0) & np.isfinite(cost) & np.isfinite(score)
