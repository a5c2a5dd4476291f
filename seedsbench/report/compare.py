"""Two studies held against each other: which cells both hold, and by how much their FIDs differ.

The rows of both are split into panels together, so that only scores of the same model, regime, extractor,
reference, number of samples and labels ever meet; what meets nothing is listed with the reason. A cell is a
solver with its parameters at one budget; all that both studies hold are judged at once (`verdicts`).
A setting (grid, dtype, version ...) that is one throughout each study is what the studies differ in: it is
said, and cells are matched across it.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from seedsbench.report.curves import COMPARED_STUDY, MISSING, NAMES, NONE, settings_of, whose
from seedsbench.report.pareto import PANEL, Panel, panels, split_titles, title_part
from seedsbench.report.points import newest, points, score_of
from seedsbench.report.ranking import Point
from seedsbench.report.rows import take
from seedsbench.report.texts import printable
from seedsbench.report.verdicts import Scores, Verdict, difference, judge


class Pair(NamedTuple):
    """One cell of either study or of both.

    title: of its panel, as far as it is not all panels'. first, second: the cell's point (`points.points`) in
    each study, or None. keys: what its finished rows share. verdict: on the first; its difference is second
    less first.
    """

    panel: Panel
    title: str
    curve: str
    budget: float
    first: Point | None
    second: Point | None
    keys: str
    verdict: Verdict


class Comparison(NamedTuple):
    """Two studies: their names, the panels of their rows together, what all of these are of, their cells, and
    what must be said."""

    names: tuple[str, str]
    panels: list[Panel]
    common: str
    pairs: list[Pair]
    notes: list[str]

    @property
    def both(self) -> list[Pair]:
        """The cells that both studies hold."""
        return [pair for pair in self.pairs if pair.first and pair.second]


def names_of(first: Path, second: Path) -> tuple[str, str]:
    """The names of two folders; with as many folders above them as it takes to tell them apart."""
    a, b = first.resolve().parts, second.resolve().parts
    depth = next(depth for depth in range(1, max(len(a), len(b)) + 1) if a[-depth:] != b[-depth:])
    return printable("/".join(a[-depth:])), printable("/".join(b[-depth:]))


def compare(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> Comparison:
    """Match the cells of two tables of rows (`rows.read_rows`)."""
    joined = [rows.assign(**{COMPARED_STUDY: i}) for i, rows in enumerate((first, second))]
    shown = panels(pd.concat(joined, ignore_index=True))
    common, titles = split_titles([panel.parts for panel in shown])
    cells = [cell for panel, title in zip(shown, titles, strict=True) for cell in _cells(panel, title)]
    verdicts = judge([difference(_scores(one), _scores(two)) for *_, one, two, _ in cells])
    pairs = [Pair(*cell, verdict) for cell, verdict in zip(cells, verdicts, strict=True)]
    return Comparison(names, shown, common, pairs, [*_settings_apart(shown, names), *_alone(shown, names)])


def rows_of(panel: Panel, study: int) -> pd.DataFrame:
    """The rows of one study in a panel of both."""
    return take(panel.rows, panel.rows[COMPARED_STUDY] == study)


def _scores(point: Point | None) -> Scores:
    return point["runs"] if point else {}


def _cells(panel: Panel, title: str) -> list[tuple[Panel, str, str, float, Point | None, Point | None, str]]:
    """What a `Pair` is of."""
    found: dict[tuple[str, float], list[Point | None]] = defaultdict(lambda: [None, None])
    studies = [rows_of(panel, study) for study in (0, 1)]
    for study, rows in enumerate(studies):
        for point in points(rows).to_dict("records"):
            # Rows without a budget are at the number of steps that they took.
            budget = point["nfe"] if pd.isna(point["nfe_budget"]) else point["nfe_budget"]
            found[point["curve"], float(budget)][study] = point
    scores = [_scores_by_key(rows) for rows in studies]
    return [
        (panel, title, *cell, one, two, _keys_told(scores[0][cell], scores[1][cell]) if one and two else "")
        for cell, (one, two) in found.items()
    ]


def _scores_by_key(rows: pd.DataFrame) -> dict[tuple[str, float], dict[str, float]]:
    """By curve and budget: the score of each finished row, by its run key."""
    score, rows = score_of(rows), newest(rows)
    rows = take(rows, rows["status"] == "done")
    made: dict[Any, dict[str, float]] = defaultdict(dict)
    for cell, part in rows.groupby(["curve", rows["nfe_budget"].fillna(rows["nfe"])]):
        made[cell] = dict(zip(part["run_key"], part[score], strict=True))
    return made


def _keys_told(first: dict[str, float], second: dict[str, float]) -> str:
    """What two cells' run keys share: rows of one key are one experiment, and ought to have one score."""
    shared = first.keys() & second.keys()
    if not shared:
        return "none shared"
    differ = sum(first[k] != second[k] for k in shared)
    if differ:
        return f"{differ} shared with another score"
    if first.keys() == second.keys():
        return "identical"
    return f"{len(shared)} of {len(first | second)} shared"


def _settings_apart(shown: list[Panel], names: tuple[str, str]) -> list[str]:
    """Settings that each study has one value of in a panel, and not the same."""
    told: dict[str, list[str]] = {}
    for panel in shown:
        settings = settings_of(panel.rows)
        studies = panel.rows[COMPARED_STUDY]
        for name in settings:
            if "." in name and whose(panel.rows, name).nunique() > 1:
                continue  # the options of another schedule or grid are others anyway
            one, two = (set(settings.loc[studies == study, name]) - {MISSING, NONE} for study in (0, 1))
            if len(one) == len(two) == 1 and one != two:
                (a,), (b,) = one, two
                text = f"The studies differ in {NAMES.get(name, name)}: {a} in {names[0]}, {b} in {names[1]}"
                told.setdefault(text, []).append(panel.title)
    return [f"{text} ({'; '.join(where)})." if len(shown) > 1 else f"{text}." for text, where in told.items()]


def _alone(shown: list[Panel], names: tuple[str, str]) -> list[str]:
    held = [(panel, set(panel.rows[COMPARED_STUDY])) for panel in shown]
    told = []
    for panel, studies in held:
        if len(studies) == 2:
            continue
        (study,) = studies
        why = f"{names[1 - study]} holds no cell of it"
        others = [other for other, theirs in held if 1 - study in theirs]
        near = [o.key for o in others if all(o.key[k] == panel.key[k] for k in ("model", "regime"))]
        if near:
            apart = [(name, panel.key[name], near[0][name]) for name in PANEL]
            parts = [f"{_key_part(n, a)} against {_key_part(n, b)}" for n, a, b in apart if a != b]
            why = f"not comparable with {names[1 - study]}: {', '.join(parts)}"
        told.append(f"Only in {names[study]}: {panel.title} ({why}).")
    return told


def _key_part(name: str, value: str) -> str:
    return f"extractor {value}" if name == "extractor" else title_part(name, value)
