"""Two studies held against each other: which cells both hold, and by how much their FIDs differ.

The rows of both are split into panels together, so that only scores of the same model, regime, extractor,
reference, number of samples and labels ever meet; what meets nothing is listed with the reason. A cell is a
solver with its parameters at one budget. A setting (grid, dtype, version ...) that is one throughout each
study is what the studies differ in: it is said, and cells are matched across it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seedsbench.report.curves import MISSING, NONE, SAID, STUDY, settings_of, whose
from seedsbench.report.pareto import PANEL, Panel, describe, panels, split_titles, title_parts
from seedsbench.report.points import newest, points
from seedsbench.report.rows import records, take


@dataclass(frozen=True)
class Pair:
    """One cell of either study or of both.

    first, second: the cell's point (`points.points`) in each study, or None. difference: second's mean FID
    less the first's; nan where either has none. error: standard error of it, nan where either has one seed.
    clear: whether the difference is more than two such errors; None where that cannot be said. keys: what its
    finished rows share.
    """

    panel: Panel
    curve: str
    budget: float
    first: dict[str, Any] | None
    second: dict[str, Any] | None
    difference: float
    error: float
    clear: bool | None
    keys: str


@dataclass(frozen=True)
class Comparison:
    """Two studies: their names, the panels of their rows together, their cells, and what must be said."""

    names: tuple[str, str]
    panels: list[Panel]
    pairs: list[Pair]
    notes: list[str]

    @property
    def titles(self) -> tuple[str, dict[str, str]]:
        """What all panels are of, and what each one (by its slug) is of beside that."""
        common, own = split_titles([title_parts(panel) for panel in self.panels])
        return common, dict(zip((panel.slug for panel in self.panels), own, strict=True))

    @property
    def both(self) -> list[Pair]:
        """The cells that both studies hold."""
        return [pair for pair in self.pairs if pair.first and pair.second]


def names_of(first: Path, second: Path) -> tuple[str, str]:
    """The studies' folder names; with as many folders above them as it takes to tell them apart."""
    paths = [first.resolve().parts, second.resolve().parts]
    for depth in range(1, max(map(len, paths)) + 1):
        one, two = ("/".join(parts[-depth:]) for parts in paths)
        if one != two:
            return one, two
    return f"{one} (1)", f"{two} (2)"


def compare(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> Comparison:
    """Match the cells of two tables of rows (`rows.read_rows`)."""
    joined = pd.concat([first.assign(**{STUDY: 0}), second.assign(**{STUDY: 1})], ignore_index=True)
    shown = panels(joined)
    pairs = [pair for panel in shown for pair in _pairs(panel)]
    notes = [*_differences(shown, names), *_alone(shown, names)]
    return Comparison(names, shown, pairs, notes)


def points_of(panel: Panel, study: int) -> pd.DataFrame:
    """The points of one study's rows in a panel of both."""
    return points(take(panel.rows, panel.rows[STUDY] == study))


def _pairs(panel: Panel) -> list[Pair]:
    found: dict[tuple[str, float], list[dict[str, Any] | None]] = {}
    for study in (0, 1):
        for point in records(points_of(panel, study)):
            # Rows without a budget are at the number of steps that they took.
            budget = point["nfe_budget"] if not pd.isna(point["nfe_budget"]) else point["nfe"]
            found.setdefault((str(point["curve"]), float(budget)), [None, None])[study] = point  # type: ignore[assignment]
    keys = _row_keys(panel)
    return [_pair(panel, curve, budget, one, two, keys) for (curve, budget), (one, two) in found.items()]


def _pair(
    panel: Panel,
    curve: str,
    budget: float,
    one: dict[str, Any] | None,
    two: dict[str, Any] | None,
    keys: dict[tuple[int, str, float], dict[str, float]],
) -> Pair:
    difference = error = math.nan
    told = ""
    if one and two:
        difference = two["fid"] - one["fid"]
        error = math.sqrt(sum(p["fid_std"] ** 2 / p["n"] if p["n"] > 1 else math.nan for p in (one, two)))
        told = _keys_told(*(keys.get((study, curve, budget), {}) for study in (0, 1)))
    clear = None if math.isnan(error) or math.isnan(difference) else bool(abs(difference) > 2 * error)
    return Pair(panel, curve, budget, one, two, difference, error, clear, told)


def _row_keys(panel: Panel) -> dict[tuple[int, str, float], dict[str, float]]:
    """The run keys of each cell's finished rows and their FIDs."""
    made: dict[tuple[int, str, float], dict[str, float]] = {}
    for study in (0, 1):
        rows = newest(take(panel.rows, panel.rows[STUDY] == study))
        rows = take(rows, rows["status"] == "done")
        budgets = rows["nfe_budget"].fillna(rows["nfe"])
        for curve, budget, key, fid in zip(rows["curve"], budgets, rows["run_key"], rows["fid"], strict=True):
            made.setdefault((study, str(curve), float(budget)), {})[key] = fid
    return made


def _keys_told(first: dict[str, float], second: dict[str, float]) -> str:
    """What two cells' run keys share: rows of one key are one experiment, and ought to have one FID."""
    shared = first.keys() & second.keys()
    if not shared:
        return "none shared"
    differ = sum(first[k] != second[k] and not (pd.isna(first[k]) and pd.isna(second[k])) for k in shared)
    if differ:
        return f"{differ} shared with another FID"
    if first.keys() == second.keys():
        return "identical"
    return f"{len(shared)} of {len(first | second)} shared"


def _differences(shown: list[Panel], names: tuple[str, str]) -> list[str]:
    """Settings that each study has one value of in a panel, and not the same."""
    told: dict[str, list[str]] = {}
    for panel in shown:
        settings = settings_of(panel.rows)
        for name in settings:
            if "." in name and whose(panel.rows, name).nunique() > 1:
                continue  # the options of another schedule or grid are others anyway
            values = [
                set(settings.loc[(panel.rows[STUDY] == study).to_numpy(), name]) - {MISSING, NONE}
                for study in (0, 1)
            ]
            if all(len(one) == 1 for one in values) and values[0] != values[1]:
                (a,), (b,) = values
                text = f"The studies differ in {SAID.get(name, name)}: {a} in {names[0]}, {b} in {names[1]}"
                told.setdefault(text, []).append(panel.title)
    return [f"{text} ({'; '.join(where)})." if len(shown) > 1 else f"{text}." for text, where in told.items()]


def _alone(shown: list[Panel], names: tuple[str, str]) -> list[str]:
    """Panels of one study alone, and in what they differ from the other's of the same model and regime."""
    held = [(panel, set(panel.rows[STUDY])) for panel in shown]
    told = []
    for panel, studies in held:
        if len(studies) == 2:
            continue
        (study,) = studies
        why = f"{names[1 - study]} holds no cell of it"
        others = [other for other, theirs in held if 1 - study in theirs]
        near = [o for o in others if all(o.key[k] == panel.key[k] for k in ("model", "regime"))]
        if near:
            parts = [
                f"{_told(name, panel.key[name])} against {_told(name, near[0].key[name])}"
                for name in PANEL
                if panel.key[name] != near[0].key[name]
            ]
            why = f"not comparable with {names[1 - study]}: {', '.join(parts)}"
        told.append(f"Only in {names[study]}: {panel.title} ({why}).")
    return told


def _told(name: str, value: str) -> str:
    return f"extractor {value}" if name == "extractor" else describe(name, value)
