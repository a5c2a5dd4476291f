"""The tables: every row as CSV, one line a point as Markdown, and a small matrix for the terminal."""

import math
from pathlib import Path

import pandas as pd

from seedsbench.report.pareto import MISSING, Panel, panels, split_titles, title_parts
from seedsbench.report.ranking import ranking, winners
from seedsbench.report.rows import WHOLE, Problem, take
from seedsbench.report.style import feature_name

STANDARD, ENOUGH = ("inception", "dinov2"), 10_000
HEADER = ["solver", "NFE budget", "NFE", "FID", "floor", "IS", "images/s", "status"]


def write_csv(df: pd.DataFrame, path: Path) -> None:
    """All rows and columns; whole numbers without a point, missing values empty."""
    whole = [name for name in WHOLE if name in df and (df[name].dropna() % 1 == 0).all()]
    df.astype(dict.fromkeys(whole, "Int64")).to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def write_markdown(df: pd.DataFrame, problems: list[Problem], path: Path) -> None:
    """The table people read: points by panel, then what was skipped, failed or unreadable, and why."""
    lines = [f"# {path.parent.resolve().name}", "", _counts(df), ""]
    for panel in panels(df):
        lines += _section(panel)
    for status in ("skipped", "failed"):
        lines += _reasons(df, status)
    lines += _no_score(df)
    if problems:
        lines += ["## Problems", "", *markdown_table(["file", "what"], [list(p) for p in problems]), ""]
    path.write_text("\n".join(lines), encoding="utf-8", newline="\n")


def _counts(df: pd.DataFrame) -> str:
    counts = [f"{int((df['status'] == status).sum())} {status}" for status in ("done", "skipped", "failed")]
    return f"{len(df)} cells: {', '.join(counts)}."


def _section(panel: Panel) -> list[str]:
    """One panel's points under a heading; the best FID at each budget in bold."""
    found = panel.points
    best = _best(found)
    lines = [
        [
            str(point["curve"]),
            _number(point["nfe_budget"], ".0f"),
            _number(point["nfe"], ".4g"),
            f"**{_fid(point)}**" if i in best else _fid(point),
            _number(point["fid_floor"], ".3g"),
            _spread(point["is_mean"], point["is_std"]),
            _number(point["images_per_second"], ".3g"),
            _status(point),
        ]
        for i, point in enumerate(found.to_dict("records"))
    ]
    extractor = feature_name(panel.key["extractor"])
    note = f"FID on {extractor}. ± is one standard deviation over seeds; bold is best at its budget."
    note += _bias(panel)
    title = f"## {' · '.join(title_parts(panel))}"
    return [title, "", note, "", *markdown_table(HEADER, lines), "", *_winners(found), *_ranking(found)]


def _winners(found: pd.DataFrame) -> list[str]:
    """The best solver at each budget; nothing where there is no second one to beat."""
    told = [winner for winner in winners(found) if winner.second is not None]
    if not told:
        return []
    verdicts = {True: "yes", False: "no", None: "one seed: cannot be said"}
    lines = [
        [
            _number(one.budget, ".0f"),
            one.best,
            f"{one.fid:.4g}",
            one.second,
            f"{one.margin:.2g}",
            _number(one.error, ".1g"),
            verdicts[one.clear],
        ]
        for one in told
    ]
    header = ["NFE budget", "best", "FID", "second", "margin", "its error", "beyond 2 errors"]
    return ["Best at each budget:", "", *markdown_table(header, lines), ""]


def _ranking(found: pd.DataFrame) -> list[str]:
    """Solvers by the area under their curve."""
    (low, high), ranked, left = ranking(found)
    if len(ranked) < 2:
        return []
    lines = [[str(i + 1), one.curve, f"{one.mean_fid:.4g}"] for i, one in enumerate(ranked)]
    note = f"Geometric mean FID over NFE {low:.4g} to {high:.4g} (area under the curve on log axes)"
    note += f"; not ranked, for want of that range: {', '.join(left)}." if left else "."
    return [note, "", *markdown_table(["rank", "solver", "mean FID"], lines), ""]


def _bias(panel: Panel) -> str:
    """What must be said of a standard extractor's FID at few samples, where readers know it at 50,000."""
    extractor, samples = panel.key["extractor"], panel.key["samples"]
    if not extractor.startswith(STANDARD) or samples == MISSING or float(samples) >= ENOUGH:
        return ""
    return (
        f" FID is biased upwards by few samples: at {int(float(samples)):,} compare it with FIDs of as many "
        "samples only (papers use 50,000)."
    )


def _best(found: pd.DataFrame) -> set[int]:
    """Positions of the lowest mean FID at each budget."""
    return {int(i) for i in found.dropna(subset=["fid"]).groupby("nfe_budget", dropna=False)["fid"].idxmin()}


def _number(value: object, spec: str) -> str:
    return "-" if pd.isna(value) else format(value, spec)  # type: ignore[call-overload]


def _spread(mean: object, std: object) -> str:
    return _number(mean, ".4g") if pd.isna(std) else f"{_number(mean, '.4g')} ± {_number(std, '.1g')}"  # type: ignore[call-overload]


def _fid(point: dict) -> str:
    """Mean and spread with digits that the spread warrants: 0.231 ± 0.012."""
    mean, std = point["fid"], point["fid_std"]
    if pd.isna(mean):
        return "-"
    if pd.isna(std) or not std > 0:
        return f"{mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(std)))
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def _status(point: dict) -> str:
    """'done', 'done x 3', '2 done, 1 failed'."""
    counts = {status: int(point[status]) for status in ("done", "skipped", "failed") if point[status]}
    if len(counts) == 1:
        status, count = next(iter(counts.items()))
        return status if count == 1 else f"{status} x {count}"
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _reasons(df: pd.DataFrame, status: str) -> list[str]:
    """The cells of one status and their reasons."""
    lines = []
    for panel in panels(df):
        for row in take(panel.rows, panel.rows["status"] == status).to_dict("records"):
            where = f"{row['model']} {row['regime']}"
            budget, seed = _number(row["nfe_budget"], ".0f"), _number(row["seed"], ".0f")
            lines.append(
                [where, row["curve"], budget, seed, row["reason"] or "no reason recorded", row["run_key"]]
            )
    if not lines:
        return []
    header = ["model, regime", "solver", "NFE budget", "seed", "reason", "run_key"]
    return [f"## {status.capitalize()}", "", *markdown_table(header, lines), ""]


def _no_score(df: pd.DataFrame) -> list[str]:
    """Finished cells without a usable FID: said, since figures leave them out."""
    rows = take(df, (df["status"] == "done") & ~(df["fid"] > 0))
    if rows.empty:
        return []
    lines = [
        [r["solver"], _number(r["nfe_budget"], ".0f"), _number(r["fid"], ".4g"), r["run_key"]]
        for r in rows.to_dict("records")
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
    """Mean FID as a solver x NFE budget matrix a panel, the best of each column marked with *."""
    shown = panels(df)
    if not shown:
        return "no rows"
    common, titles = split_titles([title_parts(panel) for panel in shown])
    blocks = [f"FID, {common}" if common else "FID"]
    for panel, title in zip(shown, titles, strict=True):
        name = feature_name(panel.key["extractor"])
        blocks.append("\n".join([f"{title} ({name})" if title else f"({name})", *_matrix(panel.points)]))
    return "\n\n".join([*blocks, _counts(df)])


def _matrix(found: pd.DataFrame) -> list[str]:
    """Lines of the matrix; skipped and failed cells by name, cells never asked for as '.'."""
    budgets = sorted(found["nfe_budget"].dropna().unique()) + (
        [float("nan")] if found["nfe_budget"].isna().any() else []
    )
    best = _best(found)
    cells = {}
    for i, point in enumerate(found.to_dict("records")):
        column = next(
            j
            for j, b in enumerate(budgets)
            if b == point["nfe_budget"] or (b != b and pd.isna(point["nfe_budget"]))
        )
        missing = "failed" if point["failed"] else "skipped" if point["skipped"] else "no FID"
        text = missing if pd.isna(point["fid"]) else f"{point['fid']:#.3g}"
        mark = "*" if i in best else " "
        cells.setdefault(point["curve"], {}).setdefault(column, text.rstrip(".") + mark)
    head = ["NFE budget", *[_number(b, ".0f") + " " for b in budgets]]
    body = [[curve, *[row.get(j, ". ") for j in range(len(budgets))]] for curve, row in cells.items()]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return [
        "  "
        + line[0].ljust(widths[0])
        + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)).rstrip()
        for line in [head, *body]
    ]
