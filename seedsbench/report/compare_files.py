"""What a comparison of two studies leaves: compare.md, compare.csv, compare.html and a figure."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seedsbench.report.compare import Comparison, Pair, points_of
from seedsbench.report.draw import NOTE_PT, Curves, prepare
from seedsbench.report.figures import LEFT, panels_figure, save
from seedsbench.report.html import fill, policy_hash, table_html, text
from seedsbench.report.html_data import asset
from seedsbench.report.html_images import FIGURE_BYTES, figure_uri
from seedsbench.report.pareto import PANEL
from seedsbench.report.rows import Problem
from seedsbench.report.style import GREY, INK, RC
from seedsbench.report.summary import Table, bias, fid, number
from seedsbench.report.table import markdown_table

DOTTED = (0, (1, 1.6))
VERDICTS = {True: "yes", False: "no", None: "cannot be said"}


def write_comparison(found: Comparison, problems: list[Problem], folder: Path) -> list[Path]:
    """Write all files into `folder`, the page first. The same rows give the same bytes.

    problems: files of either study that could not be read, or hold what another row does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = _write_figure(found, folder)
    tables = [table for table in (_both(found), _alone(found), _unread(problems)) if table.lines]
    page, markdown, csv = (folder / f"compare.{kind}" for kind in ("html", "md", "csv"))
    _lines_of(found).to_csv(csv, index=False, lineterminator="\n", encoding="utf-8")
    lines = [f"# {_title(found)}", "", told(found), "", *(f"- {note}" for note in _notes(found)), ""]
    for table in tables:
        lines += [f"## {table.title}", "", *([table.note, ""] if table.note else [])]
        lines += [*markdown_table(table.header, table.lines), ""]
    markdown.write_text("\n".join(lines), encoding="utf-8", newline="\n")
    page.write_text(_page(found, tables, figures), encoding="utf-8", newline="\n")
    return [page, markdown, csv, *figures]


def told(found: Comparison) -> str:
    """The outcome in one sentence."""
    both = found.both
    counts = [f"{len(both)} {'cell' if len(both) == 1 else 'cells'} in both"]
    clear = [pair for pair in both if pair.clear]
    same = sum(pair.keys == "identical" for pair in both)
    counts += [f"{same} of them by identical run keys"] if same else []
    for sign, word in ((1, "higher"), (-1, "lower")):
        n = sum(pair.difference * sign > 0 for pair in clear)
        counts += [f"{n} with an FID {word} in {found.names[1]} by more than 2 errors"] if n else []
    for study, name in enumerate(found.names):
        n = sum((pair.second if study == 0 else pair.first) is None for pair in found.pairs)
        counts += [f"{n} only in {name}"] if n else []
    return "; ".join(counts) + "."


def _title(found: Comparison) -> str:
    return f"{found.names[1]} compared with {found.names[0]}"


def _notes(found: Comparison) -> list[str]:
    common = found.titles[0]
    return [
        *([f"All of {common}."] if common else []),
        *found.notes,
        *dict.fromkeys(note for panel in found.panels if (note := bias(panel))),
    ]


def _where(found: Comparison, pair: Pair) -> list[str]:
    titles = [found.titles[1][pair.panel.slug]] if len(found.panels) > 1 else []
    return [*titles, pair.curve, number(pair.budget, ".4g")]


def _heads(found: Comparison) -> list[str]:
    return [*(["panel"] if len(found.panels) > 1 else []), "solver", "NFE budget"]


def _both(found: Comparison) -> Table:
    first, second = found.names
    header = [*_heads(found), f"FID {first}", f"FID {second}", "difference", "in %", "its error"]
    lines = []
    for pair in found.both:
        scores = [_score(pair.first), _score(pair.second)]
        base = pair.first["fid"] if pair.first else float("nan")
        share = number(100 * pair.difference / base if base else float("nan"), "+.1f")
        verdict = VERDICTS[pair.clear]
        line = [*_where(found, pair), *scores, number(pair.difference, "+.2g"), share]
        lines.append([*line, number(pair.error, ".1g"), verdict, pair.keys])
    note = (
        f"Difference: {second} less {first}; its error is that of two independent means, from the spreads "
        "over seeds (±), and unknown for one seed. Rows with one run key are one experiment, and ought to "
        "have one FID."
    )
    return Table("Cells in both", [*header, "beyond 2 errors", "run keys"], lines, note)


def _alone(found: Comparison) -> Table:
    lines = []
    for pair in found.pairs:
        if pair.first is None or pair.second is None:
            name, point = (found.names[0], pair.first) if pair.first else (found.names[1], pair.second)
            lines.append([name, *_where(found, pair), _score(point)])
    return Table("Cells in one only", ["study", *_heads(found), "FID"], lines)


def _unread(problems: list[Problem]) -> Table:
    return Table("Problems", ["file", "what"], [list(problem) for problem in problems])


def _score(point: dict[str, Any] | None) -> str:
    if point is None or pd.isna(point["fid"]):
        return (
            "-" if point is None else "failed" if point["failed"] else "skipped" if point["skipped"] else "-"
        )
    return fid(point) + (f" (n = {point['n']})" if point["n"] > 1 else "")


def _lines_of(found: Comparison) -> pd.DataFrame:
    """One line a cell, with all that is known of it in each study."""
    columns = ("nfe", "n", "fid", "fid_std", "fid_min", "is_mean", "done", "skipped", "failed")
    made = []
    for pair in found.pairs:
        line: dict[str, Any] = {**{name: pair.panel.key[name] for name in PANEL}, "solver": pair.curve}
        line["nfe_budget"] = pair.budget
        for name, point in zip(("first", "second"), (pair.first, pair.second), strict=True):
            line.update({f"{column}_{name}": point[column] if point else None for column in columns})
        line.update(
            difference=pair.difference, error=pair.error, beyond_2_errors=pair.clear, run_keys=pair.keys
        )
        made.append(line)
    counts = [f"{name}_{of}" for name in ("n", "done", "skipped", "failed") for of in ("first", "second")]
    lines = pd.DataFrame(made).astype(dict.fromkeys(counts, "Int64"))
    return lines.assign(first_study=found.names[0], second_study=found.names[1])


def _write_figure(found: Comparison, folder: Path) -> list[Path]:
    """pareto.png, .svg and .pdf of both; nothing where neither has a point to show."""
    with mpl.rc_context(RC):
        drawn = [curves for panel in found.panels if len((curves := _curves(panel)).points)]
        return save(_figure(found, drawn), folder / "pareto", ("png", "svg", "pdf")) if drawn else []


def _curves(panel: Any) -> Curves:
    """Both studies' points: the second's lines dotted, its markers larger and hollow, so that equals show."""
    parts = [points_of(panel, study).assign(second=study == 1) for study in (0, 1)]
    curves = prepare(panel, found=pd.concat(parts, ignore_index=True))
    second = curves.points["second"].to_numpy(bool)
    looks = {
        "front": False,
        "filled": ~second,
        "size": [60.0 if late else 22.0 for late in second],
        "strand": [f"{curve} {late}" for curve, late in zip(curves.points["curve"], second, strict=True)],
        "dash": pd.Series([DOTTED if late else None for late in second], dtype="object"),
    }
    return replace(curves, points=curves.points.assign(**looks))


def _figure(found: Comparison, drawn: list[Curves]) -> Figure:
    figure = panels_figure(drawn, foot=0.52)
    marks = [
        Line2D([], [], color=INK, marker="o", markersize=4.5, linewidth=1.3),
        Line2D(
            [], [], color=INK, marker="o", markersize=7, linewidth=1.3, linestyle=DOTTED, markerfacecolor="w"
        ),
    ]
    place = (LEFT / figure.get_figwidth(), 0.24 / figure.get_figheight())
    figure.legend(
        *(marks, list(found.names)),
        **{"loc": "lower left", "bbox_to_anchor": place, "ncols": 2, "frameon": False},
        **{"fontsize": 8, "borderaxespad": 0, "borderpad": 0, "handlelength": 3.2},
    )
    notes = f"Bars: ±1 s.d. over seeds.  {told(found)}"
    notes = notes if len(notes) < 110 else f"Bars: ±1 s.d. over seeds.  {len(found.both)} cells in both."
    figure.text(place[0], 0.08 / figure.get_figheight(), notes, fontsize=NOTE_PT, color=GREY)
    return figure


def _page(found: Comparison, tables: list[Table], figures: list[Path]) -> str:
    """One static page that needs no network and runs no script."""
    style = asset("report.css")
    uri = figure_uri(figures, FIGURE_BYTES) if figures else None
    alt = text(f"FID against measured NFE of both studies. {told(found)}")
    parts = {
        "title": text(_title(found)),
        "told": text(told(found)),
        "style": style,
        "style_hash": policy_hash(style),
        "notes": "".join(f"<li>{text(note)}</li>" for note in _notes(found)),
        "figure": f'<img src="{uri}" alt="{alt}">' if uri else "<p>Neither has a finished cell to draw.</p>",
        "tables": "".join(map(table_html, tables)),
    }
    return fill(asset("compare.html"), parts)
