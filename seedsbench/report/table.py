"""The tables: every row as CSV, one line a point as Markdown, and a small matrix for the terminal."""

from pathlib import Path

import pandas as pd

from seedsbench.report.pareto import Panel, panels, split_titles, title_parts
from seedsbench.report.rows import WHOLE, Problem, records, take
from seedsbench.report.style import feature_name
from seedsbench.report.summary import (
    best_at_each,
    best_points,
    features_note,
    fid,
    minimum,
    number,
    other_scores,
    plus_minus,
    rank_by_area,
)

HEADER = ["solver", "NFE budget", "NFE", "FID", "lowest", "floor", "IS", "images/s", "status"]


def write_csv(df: pd.DataFrame, path: Path) -> None:
    """All rows and columns; whole numbers without a point, missing values empty."""
    floats = [name for name in WHOLE if name in df and df[name].dtype == float]
    whole = [name for name in floats if (df[name].dropna() % 1 == 0).all()]
    df.astype(dict.fromkeys(whole, "Int64")).to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def write_markdown(df: pd.DataFrame, problems: list[Problem], path: Path) -> None:
    """The table people read: points by panel, then what was skipped, failed or unreadable, and why."""
    lines = [f"# {path.parent.resolve().name}", "", _counts(df), ""]
    for panel in panels(df):
        lines += _section(panel)
    lines += _listed(df, "warning", df["warning"].notna())
    for status in ("skipped", "failed"):
        lines += _listed(df, "reason", df["status"] == status, status)
    lines += _no_score(df)
    if problems:
        lines += ["## Problems", "", *markdown_table(["file", "what"], [list(p) for p in problems]), ""]
    path.write_text("\n".join(lines), encoding="utf-8", newline="\n")


def _counts(df: pd.DataFrame) -> str:
    counts = [f"{int((df['status'] == status).sum())} {status}" for status in ("done", "skipped", "failed")]
    return f"{len(df)} cell{'s' * (len(df) != 1)}: {', '.join(counts)}."


def _section(panel: Panel) -> list[str]:
    """One panel's points under a heading, the best FID at each budget in bold; then the tables that judge."""
    found = panel.points
    best = best_points(found)
    lines = [
        [
            str(point["curve"]),
            number(point["nfe_budget"], ".0f"),
            number(point["nfe"], ".4g"),
            f"**{fid(point)}**" if i in best else fid(point),
            minimum(point),
            number(point["fid_floor"], ".3g"),
            plus_minus(point["is_mean"], point["is_std"]),
            number(point["images_per_second"], ".3g"),
            _status(point),
        ]
        for i, point in enumerate(records(found))
    ]
    title = f"## {' · '.join(title_parts(panel))}"
    told = [title, "", features_note(panel), "", *markdown_table(HEADER, lines), ""]
    for name, (header, lines) in (
        ("Best at each budget", best_at_each(found)),
        ("Geometric mean FID over a range of NFE (area under the curve on log axes)", rank_by_area(found)),
        ("Other scores, means over seeds (KID ± over its subsets)", other_scores(found)),
    ):
        told += [f"{name}:", "", *markdown_table(header, lines), ""] if lines else []
    return told


def _status(point: dict) -> str:
    """'done', 'done x 3', '2 done, 1 failed'."""
    counts = {status: int(point[status]) for status in ("done", "skipped", "failed") if point[status]}
    if len(counts) == 1:
        status, count = next(iter(counts.items()))
        return status if count == 1 else f"{status} x {count}"
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _listed(df: pd.DataFrame, column: str, mask: pd.Series, title: str = "warnings") -> list[str]:
    """Some cells and what a column says of them."""
    lines = []
    for panel in panels(df):
        for row in records(take(panel.rows, mask.loc[panel.rows.index])):
            where = f"{row['model']} {row['regime']}"
            budget, seed = number(row["nfe_budget"], ".0f"), number(row["seed"], "d")
            lines.append(
                [where, row["curve"], budget, seed, row[column] or f"no {column} recorded", row["run_key"]]
            )
    if not lines:
        return []
    header = ["model, regime", "solver", "NFE budget", "seed", column, "run_key"]
    return [f"## {title.capitalize()}", "", *markdown_table(header, lines), ""]


def _no_score(df: pd.DataFrame) -> list[str]:
    """Finished cells without a usable FID: said, since figures leave them out."""
    rows = take(df, (df["status"] == "done") & ~(df["fid"] > 0))
    if rows.empty:
        return []
    lines = [
        [r["solver"], number(r["nfe_budget"], ".0f"), number(r["fid"], ".4g"), r["run_key"]]
        for r in records(rows)
    ]
    title = "## Finished without a positive FID (in no figure)"
    return [title, "", *markdown_table(["solver", "NFE budget", "FID", "run_key"], lines), ""]


def markdown_table(header: list[str], lines: list[list[str]]) -> list[str]:
    """A Markdown table whose columns line up as plain text too."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in [header, *lines]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    drawn = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return [drawn[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *drawn[1:]]


def summary_text(df: pd.DataFrame) -> str:
    """Mean FID as a solver x NFE budget matrix a panel: * is best of its column, ! carries a warning."""
    shown = panels(df)
    if not shown:
        return "no rows"
    common, titles = split_titles([title_parts(panel) for panel in shown])
    blocks = [f"FID, {common}" if common else "FID"]
    for panel, title in zip(shown, titles, strict=True):
        name = feature_name(panel.key["extractor"])
        blocks.append("\n".join([f"{title} ({name})" if title else f"({name})", *_matrix(panel.points)]))
    n = int(df["warning"].notna().sum())
    return "\n\n".join([*blocks, _counts(df), *([f"! {n} with a warning: see table.md."] if n else [])])


def _matrix(found: pd.DataFrame) -> list[str]:
    """Lines of the matrix; skipped and failed cells by name, cells never asked for as '.'."""
    budgets = sorted(found["nfe_budget"].dropna().unique()) + (
        [float("nan")] if found["nfe_budget"].isna().any() else []
    )
    best = best_points(found)
    cells = {}
    for i, point in enumerate(records(found)):
        column = next(
            j
            for j, b in enumerate(budgets)
            if b == point["nfe_budget"] or (b != b and pd.isna(point["nfe_budget"]))
        )
        missing = "failed" if point["failed"] else "skipped" if point["skipped"] else "no FID"
        text = missing if pd.isna(point["fid"]) else f"{point['fid']:#.3g}"
        mark = ("*" if i in best else "") + ("!" if point["warnings"] else "") or " "
        cells.setdefault(point["curve"], {}).setdefault(column, text.rstrip(".") + mark)
    head = ["NFE budget", *[number(b, ".0f") + " " for b in budgets]]
    body = [[curve, *[row.get(j, ". ") for j in range(len(budgets))]] for curve, row in cells.items()]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return [
        "  "
        + line[0].ljust(widths[0])
        + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)).rstrip()
        for line in [head, *body]
    ]
