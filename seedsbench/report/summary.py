"""The tables that judge: best solver at each budget, rank by area, solver x NFE, scores beside FID.

Each is made once a panel as a header and lines of text, for Markdown, and once for the page, where all panels
share a table.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from seedsbench.report.curves import MISSING
from seedsbench.report.pareto import Panel, split_titles, title_parts
from seedsbench.report.points import OTHERS
from seedsbench.report.ranking import ranking, winners
from seedsbench.report.rows import records, take
from seedsbench.report.style import feature_name

STANDARD, ENOUGH = ("inception", "dinov2"), 10_000
WARNED = " !"
"""Behind an FID: its row carries a warning."""
VERDICTS = {True: "yes", False: "no", None: "one seed: cannot be said"}


Lines = tuple[list[str], list[list[str]]]
"""A header and lines of text."""


class Table(NamedTuple):
    """A table to show: a title, a header, lines of text, and a remark beneath the title."""

    title: str
    header: list[str]
    lines: list[list[str]]
    note: str = ""


def page_tables(shown: Sequence[Panel]) -> list[Table]:
    """The tables of the page, less those with nothing to say; where there are several panels each line names
    its own."""
    common, titles = split_titles([title_parts(panel) for panel in shown]) if shown else ("", [])
    several = any(titles)

    def joined(title: str, note: str, make: Callable[[pd.DataFrame], Lines]) -> Table:
        made = [make(panel.points) for panel in shown]
        header = max((header for header, _ in made), key=len, default=[])
        lines = [
            [*([panel] if several else []), *line]
            for panel, (_, lines) in zip(titles, made, strict=True)
            for line in lines
        ]
        return Table(title, [*(["panel"] if several else []), *header], lines, note)

    spread = "± is one standard deviation over repeats; lowest is the best of them."
    biased = dict.fromkeys(note for panel in shown if (note := bias(panel)))
    told = f"{common}. {spread}" if common else spread
    area = "Straight lines between a curve's points on log axes, over the NFE that most curves cover."
    budgets = sorted({float(b) for panel in shown for b in panel.points["nfe_budget"].dropna()})
    tables = [
        joined("Best solver at each budget", told, best_at_each),
        joined("Rank by area under the curve", area, rank_by_area),
        joined(
            "FID, solver by NFE budget",
            " ".join(["* is best at its budget, ! carries a warning.", spread, *biased]),
            lambda found: matrix(found, budgets),
        ),
        joined("Other scores", "Means over repeats; ± of KID is over its subsets.", other_scores),
    ]
    return [table for table in tables if table.lines]


def best_at_each(found: pd.DataFrame) -> Lines:
    """The best solver at each budget of a panel's points, where there is a second one to beat."""
    header = ["NFE budget", "best", "FID", "lowest", "second", "margin", "its error", "beyond 2 errors"]
    lowest = {(p["curve"], p["nfe_budget"]): p for p in records(found)}
    lines = []
    for one in winners(found):
        if one.second is not None:
            point = lowest[one.best, one.budget]
            told = [number(one.budget, ".0f"), one.best, fid(point), minimum(point), one.second]
            told += [f"{one.margin:.2g}", number(one.error, ".1g"), VERDICTS[one.clear]]
            lines.append(told)
    return header, lines


def rank_by_area(found: pd.DataFrame) -> Lines:
    """Curves by their geometric mean FID over a range of NFE; last, unranked, those that do not cover it."""
    (low, high), ranked, left = ranking(found)
    if len(ranked) < 2:
        return [], []
    header = ["rank", "solver", "geometric mean FID", "over NFE"]
    span = f"{low:.4g} to {high:.4g}"
    lines = [[str(i + 1), one.curve, f"{one.mean_fid:.4g}", span] for i, one in enumerate(ranked)]
    return header, [*lines, *(["-", curve, "-", "not covered"] for curve in left)]


def matrix(found: pd.DataFrame, budgets: Sequence[float]) -> Lines:
    """Mean FID of each curve (down) at each budget (across), the best of each budget marked by a star."""
    best = best_points(found)
    cells: dict[str, dict[float, str]] = {}
    for i, point in enumerate(records(found)):
        text = fid(point) + (f" (lowest {minimum(point)})" if point["n"] > 1 else "")
        if pd.isna(point["fid"]):
            text = "failed" if point["failed"] else "skipped" if point["skipped"] else "no FID"
        cells.setdefault(str(point["curve"]), {})[point["nfe_budget"]] = text + (" *" if i in best else "")
    header = ["solver", *(f"NFE ≤ {budget:.0f}" for budget in budgets)]
    return header, [[curve, *(row.get(budget, "") for budget in budgets)] for curve, row in cells.items()]


def other_scores(found: pd.DataFrame) -> Lines:
    """KID, precision, recall, density and coverage, means over repeats, where any finished cell has them."""
    known = [name for name in OTHERS if name in found and found[name].notna().any() and name != "kid_std"]
    if not known:
        return [], []
    scored = found.dropna(subset=known, how="all")
    lines = [
        [
            str(point["curve"]),
            number(point["nfe_budget"], ".0f"),
            *(
                plus_minus(point[name], point.get("kid_std"))
                if name == "kid_mean"
                else number(point[name], ".3f")
                for name in known
            ),
        ]
        for point in records(scored)
    ]
    return ["solver", "NFE budget", *("KID" if name == "kid_mean" else name for name in known)], lines


def bias(panel: Panel) -> str:
    """What must be said of an FID at few samples; of a standard extractor's readers know it at 50,000."""
    samples = panel.key["samples"]
    if samples == MISSING or float(samples) >= ENOUGH:
        return ""
    usual = " (papers use 50,000)" if panel.key["extractor"].startswith(STANDARD) else ""
    return (
        f"FID is biased upwards by few samples: at {int(float(samples)):,} compare it with FIDs of as many "
        f"samples only{usual}."
    )


def features_note(panel: Panel) -> str:
    """What the numbers of a panel are, in sentences."""
    note = (
        f"FID on {feature_name(panel.key['extractor'])}. ± is one standard deviation over seeds, lowest the "
    )
    warned = " ! carries a warning, listed below." if (panel.points["warnings"] > 0).any() else ""
    return f"{note}smallest of them; bold is best at its budget.{warned} {bias(panel)}".rstrip()


def best_points(found: pd.DataFrame) -> set[int]:
    """Positions of the lowest mean FID at each budget, of those with the fewest warnings there."""
    scored = take(found, found["fid"].notna() & ~found["doubted"])
    return {int(i) for i in scored.groupby("nfe_budget", dropna=False)["fid"].idxmin()}


def number(value: object, spec: str) -> str:
    """A number as text; '-' where it is missing."""
    return "-" if pd.isna(value) else format(value, spec)  # type: ignore[call-overload]


def plus_minus(mean: object, std: object) -> str:
    """'8.70 ± 0.04'; the mean alone where there is no spread."""
    return number(mean, ".4g") if pd.isna(std) else f"{number(mean, '.4g')} ± {number(std, '.1g')}"  # type: ignore[call-overload]


def fid(point: dict) -> str:
    """Mean and spread with digits that the spread warrants, and the mark of a warning: 0.231 ± 0.012 !"""
    mean, std = point["fid"], point["fid_std"]
    if pd.isna(mean):
        return "-"
    mark = WARNED if point["warnings"] else ""
    if pd.isna(std) or not std > 0:
        return f"{mean:.4g}{mark}"
    digits = _digits(std)
    return f"{mean:.{digits}f} ± {std:.{digits}f}{mark}"


def minimum(point: dict) -> str:
    """The lowest FID of several repeats, as EDM reports it (of three), with the digits of the mean."""
    if not point["n"] > 1:
        return "-"
    std = point["fid_std"]
    return f"{point['fid_min']:.{_digits(std)}f}" if std > 0 else f"{point['fid_min']:.4g}"


def _digits(std: float) -> int:
    return max(0, 1 - math.floor(math.log10(std)))
