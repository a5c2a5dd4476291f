"""The solver x NFE matrix as a LaTeX table (booktabs), to paste into a paper."""

from pathlib import Path

import pandas as pd

from seedsbench.report.pareto import Panel, panels, title_parts
from seedsbench.report.rows import records, take
from seedsbench.report.style import feature_name

ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "·": r"$\cdot$",
}


def write_latex(df: pd.DataFrame, path: Path) -> None:
    """One table a panel; needs \\usepackage{booktabs}. The best mean of each budget is bold.

    Where cells were repeated a second table holds the lowest of each cell's FIDs (EDM reports that of three).
    """
    blocks = ["% needs \\usepackage{booktabs}"]
    for panel in panels(df):
        blocks.append(_table(panel, "fid"))
        if (panel.points["n"] > 1).any():
            blocks.append(_table(panel, "fid_min"))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8", newline="\n")


def escape(text: str) -> str:
    """Text with LaTeX's own characters made harmless."""
    return "".join(ESCAPES.get(c, c) for c in text)


def _table(panel: Panel, column: str) -> str:
    """column: fid (mean and spread) or fid_min (with the number of repeats in the caption)."""
    found = panel.points
    found = take(found, found["nfe_budget"].notna())
    budgets = sorted(float(budget) for budget in found["nfe_budget"].unique())
    sure = take(found, ~found["doubted"])
    best = {float(budget): group[column].min() for budget, group in sure.groupby("nfe_budget")}  # type: ignore[arg-type]
    lines = []
    by_curve: dict[str, dict[float, dict]] = {}
    for point in records(found):
        by_curve.setdefault(str(point["curve"]), {})[point["nfe_budget"]] = point
    for curve, at in by_curve.items():
        cells = [_cell(at.get(budget), column, best.get(budget)) for budget in budgets]
        lines.append(" & ".join([escape(curve), *cells]) + r" \\")
    title = escape(" · ".join(title_parts(panel)))
    features = escape(feature_name(panel.key["extractor"]))
    runs = "--".join(f"{n:.0f}" for n in dict.fromkeys((found["n"][found["n"] > 0].min(), found["n"].max())))
    told = "$\\pm$: s.d. over seeds" if column == "fid" else f"lowest of {runs} runs"
    warned = "; $!$: with a warning (table.md)" if (found["warnings"] > 0).any() else ""
    caption = f"{title}. FID on {features}, by NFE budget; {told}{warned}."
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{caption}}}",
            f"  \\begin{{tabular}}{{l{'r' * len(budgets)}}}",
            r"    \toprule",
            "    " + " & ".join(["NFE", *(f"{budget:.0f}" for budget in budgets)]) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def _cell(point: dict | None, column: str, best: float | None) -> str:
    if point is None or pd.isna(point[column]):
        return "--"
    text = f"{point[column]:.3g}"
    if column == "fid" and point["fid_std"] > 0:
        text += f" \\pm {point['fid_std']:.1g}"
    mark = "\\,!" if point["warnings"] else ""
    bold = point[column] == best and not point["doubted"]
    return f"$\\mathbf{{{text}}}{mark}$" if bold else f"${text}{mark}$"
