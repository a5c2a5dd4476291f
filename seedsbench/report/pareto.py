"""What may be compared with what: panels and curves. Pure functions on rows.

A *panel* holds rows whose scores are comparable: same model, regime, feature extractor, reference
statistics, sample count and labels. A *curve* is one solver with one set of parameters within a panel. A
*point* of a curve is one budget (`points.py`).
"""

import hashlib
import json
import weakref
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from seedsbench.report.points import newest, points
from seedsbench.report.rows import Problem
from seedsbench.report.style import REGIME_NAMES

PANEL: tuple[str, ...] = ("model", "regime", "extractor", "extractor_id", "reference_id", "samples", "labels")
# Beside solver and parameters these make a curve of their own; named in its label where they vary.
SETTINGS: tuple[str, ...] = (
    "schedule",
    "grid",
    "final",
    "model_id",
    "dtype",
    "seeding",
    "afs",
    "network_precision",
    "compile",
    "numerics_version",
)
# What a finished row that does not name a setting was computed with.
UNSAID = {"network_precision": "fp32", "compile": "False", "afs": "False", "seeding": "philox"}
# What the rows of an unaltered regime say, so that a panel on another grid can name it.
REGIME_DEFAULTS = {
    "vp": {"schedule": "vp", "grid": "vp"},
    "ve": {"schedule": "ve", "grid": "ve"},
    "iddpm": {"schedule": "linear", "grid": "iddpm"},
    "edm": {"schedule": "linear", "grid": "edm"},
}
SAID = {"network_precision": "precision"}  # settings under the names that people give them
MISSING = "?"
STUDY = "compared_study"  # a column of rows that come from several studies: which one


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


_LAST: dict[str, tuple[weakref.ref[pd.DataFrame], list[Panel]]] = {}
"""The panels of the table asked for last: every writer of a report asks for those of the same one."""


def panels(df: pd.DataFrame) -> list[Panel]:
    """Split rows into panels, in a fixed order, with titles that tell them apart.

    df is not to be changed in place afterwards.
    """
    if "last" not in _LAST or _LAST["last"][0]() is not df:
        _LAST["last"] = (weakref.ref(df), _split(df) if len(df) else [])
    return list(_LAST["last"][1])


def _split(df: pd.DataFrame) -> list[Panel]:
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
    # Each distinct value once; the type is part of the key, since in Python 1, 1.0 and True are one.
    told: dict[tuple[type, object], str] = {}
    values = df[name].tolist()
    for value in values:
        if (key := (type(value), value)) not in told:
            told[key] = MISSING if pd.isna(value) else f"{value:g}" if _is_float(value) else str(value)
    return pd.Series([told[type(value), value] for value in values], index=df.index, dtype="object")


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
    settings = settings_of(rows)
    # A setting in which studies differ, each having one value of it, is said once and makes no other curve.
    parts = [part for _, part in settings.groupby(rows[STUDY])] if STUDY in rows else [settings]
    told = [name for name in SETTINGS if any(len(set(part[name]) - {MISSING}) > 1 for part in parts)]
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


def settings_of(rows: pd.DataFrame) -> pd.DataFrame:
    """SETTINGS as text, what finished rows leave unsaid being its default."""
    settings = pd.DataFrame({name: _text(rows, name) for name in SETTINGS}, index=rows.index)
    for name, value in UNSAID.items():
        settings.loc[(settings[name] == MISSING) & (rows["status"] == "done"), name] = value
    return settings


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
    said = SAID.get(name, name.removesuffix("_id"))
    return f"{said}={value[:8] if name.endswith('_id') else value}"


def doubled(df: pd.DataFrame) -> list[Problem]:
    """Rows that `newest` sets aside: either run twice, or apart in a setting that rows do not name."""
    why = "same settings, budget, seed and repeat as another row; the newest finished one counts"
    found = [set(panel.rows["run_key"]) - set(newest(panel.rows)["run_key"]) for panel in panels(df)]
    return sorted(Problem(f"{key}.json", why) for keys in found for key in keys)
