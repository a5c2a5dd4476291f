"""The solver x NFE matrix as a LaTeX table (booktabs), to paste into a paper."""

from pathlib import Path

import pandas as pd

from seedsbench.report.pareto import Panel, title_parts
from seedsbench.report.ranking import Point
from seedsbench.report.style import feature_name
from seedsbench.report.summary import matrix

_ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "·": r"$\cdot$"}
)
_TABLE = r"""\begin{table}
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


def write_latex(shown: list[Panel], path: Path) -> None:
    """One table a panel; needs \\usepackage{booktabs}. The best mean of each budget is bold.

    Where cells were repeated a second table holds the lowest of each cell's FIDs (EDM reports that of three).
    """
    blocks = ["% needs \\usepackage{booktabs}"]
    for panel in shown:
        blocks.append(_table(panel, "fid"))
        if (panel.points["n"] > 1).any():
            blocks.append(_table(panel, "fid_min"))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8", newline="\n")


def escape(text: str) -> str:
    """Text with LaTeX's own characters made harmless."""
    return text.translate(_ESCAPES)


def _table(panel: Panel, score: str) -> str:
    """score: fid (mean and spread) or fid_min (with the number of repeats in the caption)."""

    def cell(point: Point, best: bool) -> str:
        if pd.isna(point[score]):
            return "--"
        text = f"{point[score]:.3g}"
        if score == "fid" and point["fid_std"] > 0:
            text += f" \\pm {point['fid_std']:.1g}"
        mark = "\\,!" if point["warnings"] else ""
        return f"$\\mathbf{{{text}}}{mark}$" if best else f"${text}{mark}$"

    found = panel.points.dropna(subset="nfe_budget")
    budgets = sorted(found["nfe_budget"].unique())
    lines = [
        " & ".join([escape(curve), *cells]) + r" \\"
        for curve, *cells in matrix(found, budgets, cell, score=score, absent="--")
    ]
    runs = "--".join(f"{n:.0f}" for n in dict.fromkeys((found["n"][found["n"] > 0].min(), found["n"].max())))
    told = "$\\pm$: s.d. over seeds" if score == "fid" else f"lowest of {runs} runs"
    warned = "; $!$: with a warning (table.md)" if (found["warnings"] > 0).any() else ""
    title, features = escape(" · ".join(title_parts(panel))), escape(feature_name(panel.key["extractor"]))
    caption = f"{title}. FID on {features}, by NFE budget; {told}{warned}."
    head = " & ".join(["NFE", *(f"{budget:.0f}" for budget in budgets)]) + r" \\"
    return _TABLE % (caption, "r" * len(budgets), head, "\n    ".join(lines))
