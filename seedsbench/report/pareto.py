"""What may be compared with what: panels and curves. Pure functions on rows.

A *panel* holds rows whose scores are comparable: same model, regime, feature extractor, reference
statistics, sample count and labels. A *curve* is one configuration of the rest within a panel (`curves.py`),
a *point* of it one budget (`points.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from seedsbench.files.rows import SCORE_NAMES
from seedsbench.report.curves import MISSING, as_text, curve_labels, runs_of
from seedsbench.report.points import curves_of, newest, points, score_of
from seedsbench.report.ranking import Winner, winners
from seedsbench.report.rows import RowFault, some_of
from seedsbench.report.style import REGIME_NAMES, Look, feature_name, looks_of
from seedsbench.report.texts import LONGEST, shown_name

PANEL: tuple[str, ...] = ("model", "regime", "extractor", "extractor_id", "reference_id", "samples", "labels")
EVALUATOR = ("extractor_id", "reference_id")
"""What two rows differ in whose features or reference have one name, and are not the same."""
# Schedule and grid of each regime, so that a panel which departs from them can say so.
_REGIME_DEFAULTS = {
    "vp": {"schedule": "vp", "grid": "vp"},
    "ve": {"schedule": "ve", "grid": "ve"},
    "iddpm": {"schedule": "linear", "grid": "iddpm"},
    "edm": {"schedule": "linear", "grid": "edm"},
    "flow": {"schedule": "flow", "grid": "flow_uniform"},
}


@dataclass(frozen=True)
class Panel:
    """Comparable rows; `key` holds one text for each of PANEL, `rows` has columns `curve`, of labels, and
    `run`.

    looks: of the curves of all panels that were split together, so that they agree.
    """

    key: dict[str, str]
    title: str
    slug: str
    rows: pd.DataFrame
    looks: dict[str, Look]

    @property
    def parts(self) -> list[str]:
        """Everything a reader must know of it: its title, then N and labels where that lacks them."""
        counts = [title_part(name, self.key[name]) for name in ("samples", "labels")]
        return list(dict.fromkeys([*self.title.split(" · "), *counts]))

    @property
    def full_title(self) -> str:
        """`parts` in one line."""
        return " · ".join(self.parts)

    @property
    def features(self) -> str:
        """The extractor in words."""
        return feature_name(shown_name(self.key["extractor"]))

    @cached_property
    def score(self) -> str:
        """The column that its rows are judged by."""
        return score_of(self.rows)

    @property
    def score_name(self) -> str:
        """What people call it."""
        return SCORE_NAMES[self.score]

    @property
    def axis(self) -> str:
        """The score and what it is made of: 'FID, Inception-v3'."""
        return f"{self.score_name}, {self.features}"

    @cached_property
    def points(self) -> pd.DataFrame:
        """`points` of its rows."""
        return points(self.rows)

    @cached_property
    def winners(self) -> list[Winner]:
        """`winners` of its points."""
        return winners(self.points)

    @cached_property
    def floor(self) -> float | None:
        """The FID of real images against real ones, where rows know it: below it a score says nothing."""
        floors = self.rows["fid_floor"]
        return float(floors[floors > 0].mean()) if (floors > 0).any() else None

    @cached_property
    def floor_std(self) -> float | None:
        """The standard deviation of one such FID over independent sets of real images, where rows know it."""
        if self.floor is None or "fid_floor_std" not in self.rows:
            return None
        found = self.rows["fid_floor_std"].mean()
        return None if pd.isna(found) else float(found)


def panels(df: pd.DataFrame) -> list[Panel]:
    """Split rows into panels, in a fixed order, with titles that tell them apart."""
    keys = _panel_keys(df)
    groups = [
        (dict(zip(PANEL, map(str, values), strict=True)), df.loc[index])  # type: ignore[call-overload]
        for values, index in keys.groupby(list(PANEL)).groups.items()
    ]
    places = {regime: i for i, regime in enumerate(REGIME_NAMES)}
    groups.sort(key=lambda of: (of[0]["model"], places.get(of[0]["regime"], len(places)), of[0]["regime"]))
    same = list(PANEL[:2])  # model and regime; what tells panels of one of both apart is in their titles
    told = [*same, *(name for name in PANEL[2:] if (keys.groupby(same)[name].nunique() > 1).any())]
    labelled = [rows.assign(curve=curve_labels(rows), run=runs_of(rows)) for _, rows in groups]
    looks = looks_of(curves_of(pd.concat(labelled))) if labelled else {}
    made = []
    for (key, _), rows in zip(groups, labelled, strict=True):
        title = " · ".join([title_part(name, key[name]) for name in told] + _departures(rows))
        slug = "_".join(_slug(name, key[name]) for name in told).encode()[:LONGEST].decode(errors="ignore")
        if slug in {panel.slug for panel in made}:  # names that differ in what no file name shows
            slug += f"_{len(made)}"
        made.append(Panel(key, title, slug, rows, looks))
    return made


def _panel_keys(df: pd.DataFrame) -> pd.DataFrame:
    """The PANEL columns as text. Skipped and failed rows may know no extractor: they join a scored panel."""
    keys = pd.DataFrame({name: as_text(df, name) for name in PANEL}, index=df.index)
    done = (df["status"] == "done").to_numpy()
    scored = [tuple(row) for row in keys[done].drop_duplicates().itertuples(index=False)]
    for _, group in keys[~done].groupby(list(PANEL)):
        unscored = tuple(map(str, group.iloc[0]))
        for key in scored:
            if all(MISSING in (mine, a) or mine == a for mine, a in zip(unscored, key, strict=True)):
                keys.loc[group.index, list(PANEL)] = [key] * len(group)
                break
    return keys


def title_part(name: str, value: str) -> str:
    """One part of a title: 'N = 2,000', 'balanced labels', 'reference 1a2b3c4d'."""
    value = shown_name(value)
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


def score_names(shown: Sequence[Panel]) -> str:
    """What panels are judged by: 'FID', 'FID or distance to the exact path'."""
    names = {panel.score: panel.score_name for panel in shown}
    return " or ".join(names[score] for score in SCORE_NAMES if score in names) or SCORE_NAMES["fid"]


def split_titles(parts: list[list[str]]) -> tuple[str, list[str]]:
    """What all panels share, for the figure's title, and what each has of its own.

    >>> split_titles([["glyphs", "VP"], ["glyphs", "VE"]])
    ('glyphs', ['VP', 'VE'])
    """
    shared = [part for one in parts[:1] for part in one if all(part in other for other in parts)]
    return " · ".join(shared), [" · ".join(p for p in one if p not in shared) for one in parts]


def _slug(name: str, value: str) -> str:
    text = value[:8] if name.endswith("_id") else value
    text = {"samples": "n", "labels": "labels-"}.get(name, "") + text
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text)


def _departures(rows: pd.DataFrame) -> list[str]:
    """Schedule and grid where a whole panel departs from its regime: ['grid edm']."""
    usual = _REGIME_DEFAULTS.get(str(rows["regime"].iloc[0]), {})
    found = {name: set(as_text(rows, name)) - {MISSING} for name in usual}
    apart = {name: values for name, values in found.items() if usual[name] not in values}
    return [f"{name} {shown_name(min(values))}" for name, values in apart.items() if len(values) == 1]


def doubled(shown: list[Panel]) -> list[RowFault]:
    """Rows that `newest` sets aside: either run twice, or apart in a setting that rows do not name."""
    why = "same settings, budget, seed and repeat as another row; the newest finished one counts"
    found = [set(panel.rows["run_key"]) - set(newest(panel.rows)["run_key"]) for panel in shown]
    return sorted(RowFault(f"{key}.json", why) for keys in found for key in keys)


def foreign(shown: list[Panel]) -> list[tuple[Panel, str]]:
    """Panels of another evaluator than most rows of the same model, regime and samples, and what differs.

    Their features or reference have the same names, so that only the panel keeps their scores apart.
    """
    alike: dict[tuple[str, ...], list[Panel]] = {}
    for panel in shown:
        references = sorted(set(as_text(panel.rows, "reference")) - {MISSING})
        same = [panel.key[name] for name in PANEL if name not in EVALUATOR]
        alike.setdefault((*same, *references), []).append(panel)
    found = []
    for group in alike.values():
        usual, *others = sorted(group, key=lambda panel: -len(panel.rows))
        for panel in others:
            pairs = [(name, panel.key[name], usual.key[name]) for name in EVALUATOR]
            told = [f"{name} {a[:16]}, not {b[:16]} as most" for name, a, b in pairs if a != b]
            found.append((panel, " and ".join(told)))
    return found


def quarantined(shown: list[Panel]) -> list[RowFault]:
    """What is said of the panels of another evaluator."""
    return [
        RowFault(
            f"{len(panel.rows)} row(s) of another evaluator",
            f"{some_of(panel.rows['run_key'].tolist())}: {told}; in a panel of their own",
        )
        for panel, told in foreign(shown)
    ]
