"""The tables: every row as CSV, one line a point as Markdown, solver x NFE for LaTeX and for the terminal."""

import math
from pathlib import Path

import pandas as pd

from seedsbench.files.atomic import write_atomic
from seedsbench.report.pareto import Panel, score_names, split_titles
from seedsbench.report.ranking import Point
from seedsbench.report.rows import STATUSES, WHOLE, RowFault, status_counts, take, without_fid
from seedsbench.report.summary import (
    JUDGED,
    OTHERS_NOTE,
    best_at_each,
    features_note,
    fid,
    floor,
    marks_of,
    matrix,
    minimum,
    no_fid,
    number,
    other_scores,
    plus_minus,
    rank_by_area,
)
from seedsbench.report.texts import csv_bytes, latex, markdown, printable
from seedsbench.report.verdicts import Verdict

_WORDS = (
    "A cell is one solver at one NFE budget, of one model, regime and seed. NFE: evaluations of the network "
    "for an image, measured; the budget is their limit."
)
_LATEX_TABLE = r"""\begin{table}
  \centering
  \caption{%s}
  \begin{tabular}{l%s}
    \toprule
    %s
    \midrule
    %s
    \bottomrule
  \end{tabular}
\end{table}"""
_LATEX_MARKS = {"*": r"\mathbf{%s}", "~": r"\underline{%s}", "": "%s"}
_HEADER = ["lowest", "floor", "IS", "images/s", "status"]


def write_csv(df: pd.DataFrame, path: Path) -> None:
    """All rows and columns; whole numbers without a point, missing values empty."""
    whole = [name for name in WHOLE if df[name].dtype == float]
    write_atomic(path, csv_bytes(df.astype(dict.fromkeys(whole, "Int64"))))


def write_verdicts(shown: list[Panel], path: Path) -> None:
    """A line for each two points of a budget of a panel: their difference, second less first, and the verdict
    on the first."""
    lines = [
        {**panel.key, "nfe_budget": winner.budget, "first": first["curve"], "second": second["curve"]}
        | {f"{panel.score}_first": first["fid"], f"{panel.score}_second": second["fid"]}
        | verdict_columns(verdict)
        for panel in shown
        for winner in panel.winners
        for (i, j), verdict in winner.verdicts.items()
        for first, second in [(winner.points[i], winner.points[j])]
    ]
    write_atomic(path, csv_bytes(pd.DataFrame(lines)))


def verdict_columns(verdict: Verdict) -> dict[str, object]:
    """A verdict as columns of a CSV file."""
    found, (low, high) = verdict.difference, verdict.difference.interval
    return {
        **{"difference": found.value, "error": found.error, "low": low, "high": high, "paired": found.paired},
        **{"runs": found.n, "unpaired_error": found.unpaired, "correlation": found.correlation},
        **{"p_alone": found.p, "p": verdict.p, "comparisons": verdict.comparisons},
        **{"verdict": verdict.word, "why": verdict.why},
    }


def write_markdown(
    df: pd.DataFrame, shown: list[Panel], faults: list[RowFault], title: str, path: Path
) -> None:
    """The table people read: points by panel, then what was skipped, failed or unreadable, and why."""
    lines = [f"# {markdown(printable(title))}", "", _counts(df), "", _WORDS, ""]
    for panel in shown:
        lines += _section(panel)
    lines += _listed(shown, "warning", df["warning"].notna(), "Warnings")
    for status in ("skipped", "failed"):
        lines += _listed(shown, "reason", df["status"] == status, status.capitalize())
    without = [
        [row["solver"], number(row["nfe_budget"], ".0f"), row["run_key"]]
        for row in without_fid(df).to_dict("records")
    ]
    header = ["solver", "NFE budget", "run_key"]
    lines += _titled("## Finished with an FID of 0 (in no figure)", header, without)
    lines += _titled("## Problems", ["file", "what"], [list(fault) for fault in faults])
    write_atomic(path, "\n".join(lines).encode())


def _counts(df: pd.DataFrame) -> str:
    counts = [f"{count} {status}" for status, count in status_counts(df).items()]
    return f"{len(df)} cell{'s' * (len(df) != 1)}: {', '.join(counts)}."


def _section(panel: Panel) -> list[str]:
    """One panel's points under a heading, the best FID at each budget in bold; then the tables that judge."""
    marks = marks_of(panel)
    shown = {"*": "**{}**", "~": "{} ~", "": "{}"}
    lines = [
        [
            *(markdown(point["curve"]), number(point["nfe_budget"], ".0f"), number(point["nfe"], ".4g")),
            *(shown[marks.get(i, "")].format(fid(point)), minimum(point)),
            *(floor(point), plus_minus(point["is_mean"], point["is_std"])),
            *(number(point["images_per_second"], ".3g"), _status(point)),
        ]
        for i, point in enumerate(panel.points.to_dict("records"))
    ]
    by_area = f"Geometric mean {panel.score_name} over a range of NFE (area under the curve on log axes):"
    return [
        *(f"## {markdown(panel.full_title)}", "", markdown(features_note(panel)), ""),
        *(*markdown_table(["solver", "NFE budget", "NFE", panel.score_name, *_HEADER], lines), ""),
        *_titled(f"Best at each budget. {JUDGED}", *best_at_each(panel)),
        *_titled(by_area, *rank_by_area(panel)),
        *_titled(f"Other scores. {OTHERS_NOTE}", *other_scores(panel)),
    ]


def _titled(title: str, header: list[str], lines: list[list[str]]) -> list[str]:
    return [title, "", *text_table(header, lines), ""] if lines else []


def _status(point: Point) -> str:
    """'done', 'done x 3', '2 done, 1 failed'."""
    counts = {status: int(point[status]) for status in STATUSES if point[status]}
    if len(counts) > 1:
        return ", ".join(f"{count} {status}" for status, count in counts.items())
    return "".join(status if count == 1 else f"{status} x {count}" for status, count in counts.items())


def _listed(shown: list[Panel], column: str, mask: pd.Series, title: str) -> list[str]:
    lines = [
        [
            *(f"{row['model']} {row['regime']}", row["curve"]),
            *(number(row["nfe_budget"], ".0f"), number(row["seed"], "d")),
            *(row[column] or f"no {column} recorded", row["run_key"]),
        ]
        for panel in shown
        for row in take(panel.rows, mask.loc[panel.rows.index]).to_dict("records")
    ]
    header = ["model, regime", "solver", "NFE budget", "seed", column, "run_key"]
    return _titled(f"## {title}", header, lines)


def text_table(header: list[str], lines: list[list[str]]) -> list[str]:
    """A Markdown table of any texts."""
    return markdown_table([*map(markdown, header)], [[*map(markdown, line)] for line in lines])


def markdown_table(header: list[str], lines: list[list[str]]) -> list[str]:
    """A Markdown table whose columns line up as plain text too; its cells are Markdown."""
    cells = [[str(cell).replace("\n", " ") for cell in line] for line in [header, *lines]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    drawn = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in cells]
    return [drawn[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *drawn[1:]]


def plain_table(header: list[str], lines: list[list[str]]) -> list[str]:
    """Lines of a terminal, indented by two: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    told = ([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])] for first, *rest in [header, *lines])
    return ["  ".join(["", *line]).rstrip() for line in told]


def summary_text(df: pd.DataFrame, shown: list[Panel]) -> str:
    """Mean scores as a solver x NFE budget matrix a panel, with `marks_of`, and ! where a warning is."""
    common, titles = split_titles([panel.parts for panel in shown])
    name = score_names(shown)
    blocks = [f"{name}, {common}" if common else name]
    for panel, title in zip(shown, titles, strict=True):
        blocks.append("\n".join([f"{title} ({panel.features})".strip(), *_aligned(panel)]))
    n = int(df["warning"].notna().sum())
    told = [_marks_told(shown), f"! {n} with a warning: see table.md." if n else ""]
    return "\n\n".join([*blocks, _counts(df), *filter(None, told)])


def _marks_told(shown: list[Panel]) -> str:
    """What the marks of a summary mean, and what it takes to judge; nothing where nothing is to compare."""
    compared = [winner for panel in shown for winner in panel.winners]
    if not any("*" in marks_of(panel).values() for panel in shown):
        return ""
    if not compared:
        return "* best at its budget, of those without a warning."
    if all(math.isnan(verdict.p) for winner in compared for verdict in winner.verdicts.values()):
        return "* best at its budget, of one seed: whether by chance, seed=0,1,2,3,4 would tell."
    if not any(winner.near for winner in compared):
        return "* best at its budget, and better than every other there (table.md)."
    return "* best at its budget; ~ not told apart from it (differences and verdicts are in table.md)."


def _aligned(panel: Panel) -> list[str]:
    def text_of(point: Point, mark: str) -> str:
        text = no_fid(point) or f"{point['fid']:#.3g}".rstrip(".")
        return text + mark + ("!" if point["warnings"] else "" if mark else " ")

    budgets = sorted(panel.points["nfe_budget"].dropna().unique())
    head = ["NFE budget", *(number(budget, ".0f") + " " for budget in budgets)]
    return plain_table(head, matrix(panel, budgets, text_of, absent=". "))


def write_latex(shown: list[Panel], path: Path) -> None:
    """Write `latex_text`."""
    write_atomic(path, latex_text(shown).encode())


def latex_text(shown: list[Panel]) -> str:
    """One table a panel; needs \\usepackage{booktabs}.

    Bold is the best mean of each budget, underlined what is not told apart from it.

    Where cells were repeated a second table holds the lowest of each cell's FIDs (EDM reports that of three).
    """
    blocks = ["% needs \\usepackage{booktabs}"]
    for panel in shown:
        blocks.append(_latex_table(panel, "fid"))
        if (panel.points["n"] > 1).any():
            blocks.append(_latex_table(panel, "fid_min"))
    return "\n\n".join(blocks) + "\n"


def _latex_table(panel: Panel, score: str) -> str:
    """score: fid (mean and spread) or fid_min (with the number of repeats in the caption)."""

    def cell(point: Point, marked: str) -> str:
        if pd.isna(point[score]):
            return "--"
        text = f"{point[score]:.3g}"
        if score == "fid" and point["fid_std"] > 0:
            text += f" \\pm {point['fid_std']:.1g}"
        warned = "\\,!" if point["warnings"] else ""
        return f"${_LATEX_MARKS[marked] % text}{warned}$"

    found = panel.points.dropna(subset="nfe_budget")
    budgets = sorted(found["nfe_budget"].unique())
    table = matrix(panel, budgets, cell, score=score, absent="--")
    lines = [" & ".join([latex(curve), *cells]) + r" \\" for curve, *cells in table]
    runs = "--".join(f"{n:.0f}" for n in dict.fromkeys((found["n"][found["n"] > 0].min(), found["n"].max())))
    told = "$\\pm$: s.d. over seeds" if score == "fid" else f"lowest of {runs} runs"
    if score == "fid" and any(winner.near for winner in panel.winners):
        told += "; underlined: not told apart from the best"
    warned = "; $!$: with a warning (table.md)" if (found["warnings"] > 0).any() else ""
    title, features = latex(panel.full_title), latex(panel.features)
    measured = "FID on" if panel.score == "fid" else f"{panel.score_name.capitalize()},"
    caption = f"{title}. {measured} {features}, by NFE budget; {told}{warned}."
    head = " & ".join(["NFE", *(f"{budget:.0f}" for budget in budgets)]) + r" \\"
    return _LATEX_TABLE % (caption, "r" * len(budgets), head, "\n    ".join(lines))
