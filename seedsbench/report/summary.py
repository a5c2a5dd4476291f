"""The tables that judge: best solver at each budget, rank by area, solver x NFE, scores beside FID.

Each is made once a panel as a header and lines of text, for Markdown, and once for the page, where all panels
share a table.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from seedsbench.report.curves import MISSING
from seedsbench.report.pareto import Panel, score_names, split_titles
from seedsbench.report.ranking import Point, Winner, ranking
from seedsbench.report.rows import take
from seedsbench.report.verdicts import LEVEL, SMALLEST, Verdict

ENOUGH_SAMPLES = 10_000  # from here on an FID needs no warning
_RANK = (
    "The rank is by geometric mean {} over the NFE that most curves cover: the area under straight lines "
    "between a curve's points on log axes."
)
_TRAININGS = "A second ± is the standard deviation over trainings of the network, of their means."
JUDGED = (
    "A difference is over the runs that both cells have, of one seed and training: these share latents. It "
    f"is judged at the {LEVEL:.0%} level, corrected for all comparisons of a budget (Holm). Below "
    f"{SMALLEST:.1%} of the score it is inconclusive unless several trainings agree."
)
_SPREADS = {"fid_infinity": "fid_infinity_std", "kid_mean": "kid_std"}
_OTHERS = {"fid_infinity": "FID-infinity", "bias": "FID less it", "kid_mean": "KID"}
_OTHERS |= {"trajectory_median": "median distance", "sliced_wasserstein": "sliced Wasserstein"}
_OTHERS |= {name: name for name in ("precision", "recall", "density", "coverage")}
_DISTANCES = ("trajectory_median", "sliced_wasserstein")  # from 1e-12 to 1
_MEANING = {
    "fid": "FID on {}.",
    "trajectory_rms": "Distance of samples to the ends of their own exact paths, {} over samples and values.",
}
OTHERS_NOTE = "Means over seeds; ± of KID is over its subsets, of FID-infinity the error of one run."

Lines = tuple[list[str], list[list[str]]]
"""A header and lines of text."""


class TitledTable(NamedTuple):
    """A table to show: a title, a header, lines of text, and a remark beneath the title."""

    title: str
    header: list[str]
    lines: list[list[str]]
    note: str = ""


def page_tables(shown: Sequence[Panel]) -> list[TitledTable]:
    """The tables of the page that have a line; of several panels each line names its own."""
    common, titles = split_titles([panel.parts for panel in shown])
    several = any(titles)

    def joined(title: str, note: str, make: Callable[[Panel], Lines]) -> TitledTable:
        made = [make(panel) for panel in shown]
        most = max((len(header) for header, _ in made), default=0)
        headers = zip(*(header for header, _ in made if len(header) == most), strict=True)
        header = [" or ".join(dict.fromkeys(names)) for names in headers]
        told = [[panel, *line] for panel, (_, lines) in zip(titles, made, strict=True) for line in lines]
        start = int(not several)
        return TitledTable(title, ["panel", *header][start:], [line[start:] for line in told], note)

    spread = "± is one standard deviation over seeds; lowest is the best of them."
    biased = dict.fromkeys(note for panel in shown if (note := bias(panel)))
    budgets = sorted({float(b) for panel in shown for b in panel.points["nfe_budget"].dropna()})
    marks = "* is best at its budget, ~ not told apart from the best, ! carries a warning."
    score, notes = score_names(shown), " ".join([marks, spread, *biased])
    tables = [
        joined(
            "Best solver at each budget", " ".join([f"{common}."] * bool(common) + [JUDGED]), best_at_each
        ),
        joined("Rank by area under the curve", _RANK.format(score), rank_by_area),
        joined(f"{score}, solver by NFE budget", notes, lambda panel: _fid_matrix(panel, budgets)),
        joined("Other scores", OTHERS_NOTE, other_scores),
    ]
    return [table for table in tables if table.lines]


def best_at_each(panel: Panel) -> Lines:
    """The best solver at each budget of a panel, where there is a second one, and what it may be called."""
    header = ["NFE budget", "best", panel.score_name, "lowest", "second", "difference", "95 % interval"]
    header += ["error if unpaired", "correlation", "runs", "verdict", "not told apart from the best"]
    return header, [_best_line(winner) for winner in panel.winners]


def _best_line(winner: Winner) -> list[str]:
    (best, second, *_), verdict = winner.points, winner.verdicts[0, 1]
    found = verdict.difference
    low, high = found.interval
    known = not math.isnan(verdict.p)
    return [
        *(number(winner.budget, ".0f"), best["curve"], fid(best), minimum(best), second["curve"]),
        *(plus_minus(found.value, found.error, ".2g"), f"{low:.2g} to {high:.2g}" if known else "-"),
        *(number(found.unpaired, ".1g"), number(found.correlation, ".2f")),
        *(runs_text(verdict), verdict_text(verdict)),
        ", ".join(point["curve"] for point in winner.near) or ("none" if known else "-"),
    ]


def runs_text(verdict: Verdict) -> str:
    """How many runs two cells were judged over; '5 (unpaired)' where these are not the same ones."""
    found = verdict.difference
    return f"{found.n}{'' if found.paired or math.isnan(verdict.p) else ' (unpaired)'}"


def verdict_text(verdict: Verdict) -> str:
    """'better (p = 0.003)'; 'inconclusive: within its error (p = 0.3)'. p is the corrected one."""
    said = f"{verdict.word}: {verdict.why}" if verdict.why else verdict.word
    return said if math.isnan(verdict.p) else f"{said} (p = {verdict.p:.1g})"


def rank_by_area(panel: Panel) -> Lines:
    """Curves by their geometric mean score over a range of NFE; last, unranked, those not covering it."""
    low, high, ranked, left = ranking(panel.points)
    if len(ranked) < 2:
        return [], []
    span = f"{low:.4g} to {high:.4g}"
    lines = [[str(i), curve, f"{mean:.4g}", span] for i, (curve, mean) in enumerate(ranked.items(), 1)]
    header = ["rank", "solver", f"geometric mean {panel.score_name}", "over NFE"]
    return header, [*lines, *(["-", curve, "-", "not covered"] for curve in left)]


def matrix(
    panel: Panel,
    budgets: Sequence[float],
    text_of: Callable[[Point, str], str],
    *,
    score: str = "fid",
    absent: str = "",
) -> list[list[str]]:
    """A line a curve: its name, and a text for each budget, of the point and its mark.

    The mark is one of `marks_of`, or "". absent: the text of cells that nobody asked for.
    """
    marks = marks_of(panel, score)
    cells: dict[str, dict[float, str]] = {}
    for i, point in enumerate(panel.points.to_dict("records")):
        cells.setdefault(str(point["curve"]), {})[point["nfe_budget"]] = text_of(point, marks.get(i, ""))
    return [[curve, *(row.get(budget, absent) for budget in budgets)] for curve, row in cells.items()]


def marks_of(panel: Panel, score: str = "fid") -> dict[int, str]:
    """By position among a panel's points: "*" at the lowest score of each budget that two or more have, of
    those with the fewest warnings there; "~" where an FID is not told apart from it."""
    found = panel.points.reset_index(drop=True)
    scored = take(found, (found[score].notna() & ~found["doubted"]).to_numpy())
    best = scored.groupby("nfe_budget", dropna=False)[score].idxmin()
    held = found.loc[found[score].notna(), "nfe_budget"].value_counts(dropna=False)
    best = best[held.reindex(best.index) > 1]  # a lone solver is best of nothing
    near = {(winner.budget, point["curve"]) for winner in panel.winners for point in winner.near}
    cells = zip(found["nfe_budget"], found["curve"], strict=True)
    marks = {i: "~" for i, cell in enumerate(cells) if cell in near} if score == "fid" else {}
    return marks | {int(i): "*" for i in best}


def _fid_matrix(panel: Panel, budgets: Sequence[float]) -> Lines:
    def text_of(point: Point, mark: str) -> str:
        lowest = f" (lowest {minimum(point)})" if point["n"] > 1 else ""
        return f"{no_fid(point) or fid(point) + lowest} {mark}".rstrip()

    return ["solver", *(f"NFE ≤ {budget:.0f}" for budget in budgets)], matrix(panel, budgets, text_of)


def other_scores(panel: Panel) -> Lines:
    """FID-infinity and how far the FID is above it, KID, precision, recall, density and coverage, means over
    seeds, where any finished cell has them."""
    found = panel.points
    if "fid_infinity" in found:
        found = found.assign(bias=found["fid"] - found["fid_infinity"])
    known = [name for name in _OTHERS if name in found and found[name].notna().any()]
    if not known:
        return [], []

    def text_of(point: Point, name: str) -> str:
        if name in _SPREADS:
            return plus_minus(point[name], point.get(_SPREADS[name]))
        return number(point[name], ".3g" if name in _DISTANCES else ".3f")

    scored = found.dropna(subset=known, how="all").to_dict("records")
    return ["solver", "NFE budget", *(_OTHERS[name] for name in known)], [
        [str(point["curve"]), number(point["nfe_budget"], ".0f"), *(text_of(point, name) for name in known)]
        for point in scored
    ]


def bias(panel: Panel) -> str:
    """A warning that few samples bias the FID; with the papers' number for the extractors that papers use."""
    samples = panel.key["samples"]
    if panel.score != "fid" or samples == MISSING or float(samples) >= ENOUGH_SAMPLES:
        return ""
    usual = " (papers use 50,000)" if panel.key["extractor"].startswith(("inception", "dinov2")) else ""
    told = f"at {int(float(samples)):,} compare it with FIDs of as many samples only{usual}."
    return f"FID is biased upwards by few samples: {told}"


def features_note(panel: Panel) -> str:
    """What the numbers of a panel are, in sentences."""
    over = " (± over sets of them)" if panel.floor_std else ""
    notes = [
        f"{_MEANING[panel.score].format(panel.features)} ± is one standard deviation over seeds, lowest the "
        f"smallest of them, floor what real images score against real ones{over}; bold is best at its "
        "budget, ~ not told apart from the best.",
        _TRAININGS if (panel.points["trainings"] > 1).any() else "",
        "! carries a warning, listed below." if (panel.points["warnings"] > 0).any() else "",
        bias(panel),
    ]
    return " ".join(filter(None, notes))


def number(value: object, spec: str) -> str:
    """A number as text; '-' where it is missing."""
    return "-" if pd.isna(value) else format(value, spec)  # type: ignore[call-overload]


def plus_minus(mean: object, std: object, spec: str = ".4g") -> str:
    """'8.70 ± 0.04'; the mean alone where there is no spread."""
    return number(mean, spec) if pd.isna(std) else f"{number(mean, spec)} ± {number(std, '.1g')}"  # type: ignore[call-overload]


def no_fid(point: Point) -> str:
    """Why a point has no FID; nothing where it has one."""
    if not pd.isna(point["fid"]):
        return ""
    return "failed" if point["failed"] else "skipped"


def fid(point: Point) -> str:
    """Mean and spread with digits that the spread warrants, and the mark of a warning: 0.231 ± 0.012 !

    Of several trainings: 0.231 ± 0.012 ± 0.03 (3 trainings).
    """
    mean, std = point["fid"], point["fid_std"]
    if pd.isna(mean):
        return "-"
    digits = _digits(std) if std > 0 else 0
    told = f"{mean:.{digits}f} ± {std:.{digits}f}" if std > 0 else f"{mean:.4g}"
    if point["trainings"] > 1:
        told += f" ± {point['trainings_std']:.1g} ({point['trainings']} trainings)"
    return f"{told} !" if point["warnings"] else told


def floor(point: Point) -> str:
    """The floor, and its spread where that is known: 0.216 ± 0.009."""
    return plus_minus(point["fid_floor"], point.get("fid_floor_std"), ".3g")


def minimum(point: Point) -> str:
    """The lowest FID of several repeats, as EDM reports it (of three), with the digits of the mean."""
    if not point["n"] > 1:
        return "-"
    std = point["fid_std"]
    return f"{point['fid_min']:.{_digits(std)}f}" if std > 0 else f"{point['fid_min']:.4g}"


def _digits(std: float) -> int:
    return max(0, 1 - math.floor(math.log10(std)))
