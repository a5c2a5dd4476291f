"""What a comparison of two studies leaves: compare.md, compare.csv, compare.html and a figure."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seedsbench.files.atomic import write_atomic
from seedsbench.report.compare import Comparison, Pair, rows_of
from seedsbench.report.figures import LEFT_MARGIN, NOTE_PT, Curves, panels_figure, prepare, save
from seedsbench.report.html import fill, policy_hash, table_html, text
from seedsbench.report.html_data import FIGURE_BYTES, asset, figure_uri
from seedsbench.report.pareto import Panel, score_names
from seedsbench.report.points import points
from seedsbench.report.ranking import Point
from seedsbench.report.rows import RowFault
from seedsbench.report.style import GREY, INK, RC
from seedsbench.report.summary import (
    JUDGED,
    TitledTable,
    bias,
    fid,
    no_fid,
    number,
    plus_minus,
    runs_text,
    verdict_text,
)
from seedsbench.report.table import plain_table, text_table, verdict_columns
from seedsbench.report.texts import csv_bytes, markdown
from seedsbench.report.verdicts import Verdict

MOST_LINES = 40
"""Cells that `differences_text` tells of."""
_DOTTED = (0, (1, 1.6))
_OTHER = {"better": "worse", "worse": "better", "inconclusive": "inconclusive"}


def write_comparison(found: Comparison, faults: list[RowFault], folder: Path) -> list[Path]:
    """Write all files into `folder`, the page first. The same rows give the same bytes.

    faults: files of either study that could not be read, or repeat another row.
    """
    figures = _write_figure(found, folder)
    problems = TitledTable("Problems", ["file", "what"], [list(fault) for fault in faults])
    cells = [_both(found), _alone(found)]
    if len(found.panels) == 1:  # their first column names the panel
        cells = [t._replace(header=t.header[1:], lines=[line[1:] for line in t.lines]) for t in cells]
    tables = [table for table in (*cells, problems) if table.lines]
    page, read, csv = (folder / f"compare.{kind}" for kind in ("html", "md", "csv"))
    write_atomic(csv, csv_bytes(_lines_of(found)))
    notes = [f"- {markdown(note)}" for note in _notes(found)]
    title = f"{found.names[1]} compared with {found.names[0]}"
    lines = [f"# {markdown(title)}", "", markdown(outcome_sentence(found)), "", *notes, ""]
    for table in tables:
        lines += [f"## {table.title}", "", *([markdown(table.note), ""] if table.note else [])]
        lines += [*text_table(table.header, table.lines), ""]
    write_atomic(read, "\n".join(lines).encode())
    write_atomic(page, _page(title, found, tables, figures).encode())
    return [page, read, csv, *figures]


def outcome_sentence(found: Comparison) -> str:
    """The outcome in one sentence."""
    both, (first, second) = found.both, found.names
    words = [pair.verdict.word for pair in both]
    counts = {
        f"{'cell' if len(both) == 1 else 'cells'} in both": len(both),
        "of them by identical run keys": sum(pair.keys == "identical" for pair in both),
        f"worse in {second}": words.count("better"),
        f"better in {second}": words.count("worse"),
        f"only in {first}": sum(pair.second is None for pair in found.pairs),
        f"only in {second}": sum(pair.first is None for pair in found.pairs),
    }
    return "; ".join(f"{n} {what}" for what, n in counts.items() if n or what.endswith("in both")) + "."


def differences_text(compared: Comparison) -> str:
    """For a terminal: a line for each cell of both whose scores differ, the largest changes first."""
    second, score = compared.names[1], score_names(compared.panels)
    held = [pair for pair in compared.both if pair.verdict.difference.value]  # nan, of a failed cell, is one
    if not held:
        return f"No {score} differs." if compared.both else ""
    held.sort(key=_change, reverse=True)
    header = ["panel", "solver", "NFE budget", *compared.names, "difference", "in %", f"{second} is"]
    lines = [
        [
            *(pair.title, pair.curve, number(pair.budget, ".4g"), _score(pair.first), _score(pair.second)),
            *(plus_minus(found.value, found.error, "+.2g"), _percent(pair), _of_second(pair.verdict)),
        ]
        for pair in held[:MOST_LINES]
        for found in [pair.verdict.difference]
    ]
    start = int(len(compared.panels) == 1)
    more = len(held) - MOST_LINES
    table = plain_table(header[start:], [line[start:] for line in lines])
    return "\n".join([f"{score} by cell:", *table, *([f"  and {more} more: compare.md"] if more > 0 else [])])


def _change(pair: Pair) -> float:
    """The size of a difference beside the first score; least where either has none."""
    base = pair.first["fid"] if pair.first else 0
    change = abs(pair.verdict.difference.value) / base if base else math.inf
    return -1.0 if math.isnan(change) else change


def _notes(found: Comparison) -> list[str]:
    common = [f"All of {found.common}."] if found.common else []
    return [*common, *found.notes, *dict.fromkeys(filter(None, map(bias, found.panels)))]


def _percent(pair: Pair) -> str:
    base = pair.first["fid"] if pair.first else 0
    return number(100 * pair.verdict.difference.value / base if base else float("nan"), "+.1f")


def _both(held: Comparison) -> TitledTable:
    (first, second), score = held.names, score_names(held.panels)
    header = ["panel", "solver", "NFE budget", f"{score} {first}", f"{score} {second}", "difference", "in %"]
    header += ["if unpaired", "runs", f"{second} is", "run keys"]
    lines = [
        [
            *(pair.title, pair.curve, number(pair.budget, ".4g"), _score(pair.first), _score(pair.second)),
            *(plus_minus(found.value, found.error, "+.2g"), _percent(pair), number(found.unpaired, ".1g")),
            *(runs_text(pair.verdict), _of_second(pair.verdict), pair.keys),
        ]
        for pair in held.both
        for found in [pair.verdict.difference]
    ]
    note = (
        f"Difference: {second} less {first}, ± its standard error, and that of independent runs. {JUDGED} "
        "Rows with one run key are one experiment, and ought to have one score."
    )
    return TitledTable("Cells in both", header, lines, note)


def _of_second(verdict: Verdict) -> str:
    return verdict_text(replace(verdict, word=_OTHER[verdict.word]))


def _alone(found: Comparison) -> TitledTable:
    lines = [
        [pair.title, name, pair.curve, number(pair.budget, ".4g"), _score(point)]
        for pair in found.pairs
        for name, point in zip(found.names, (pair.first, pair.second), strict=True)
        if point and not (pair.first and pair.second)
    ]
    header = ["panel", "study", "solver", "NFE budget", score_names(found.panels)]
    return TitledTable("Cells in one only", header, lines)


def _score(point: Point | None) -> str:
    if point is None or pd.isna(point["fid"]):
        return no_fid(point) if point else "-"
    return fid(point) + (f" (n = {point['n']})" if point["n"] > 1 else "")


def _lines_of(found: Comparison) -> pd.DataFrame:
    columns = ("nfe", "n", "fid", "fid_std", "fid_min", "is_mean", "done", "skipped", "failed")
    made = []
    for pair in found.pairs:
        line: dict[str, Any] = {**pair.panel.key, "solver": pair.curve, "nfe_budget": pair.budget}
        for name, point in (("first", pair.first), ("second", pair.second)):
            line |= {f"{column}_{name}": point[column] if point else None for column in columns}
        line |= {"run_keys": pair.keys, **verdict_columns(pair.verdict)}
        made.append(line)
    counts = [f"{name}_{of}" for name in ("n", "done", "skipped", "failed") for of in ("first", "second")]
    lines = pd.DataFrame(made).astype(dict.fromkeys(counts, "Int64"))
    return lines.assign(first_study=found.names[0], second_study=found.names[1])


@mpl.rc_context(RC)
def _write_figure(found: Comparison, folder: Path) -> list[Path]:
    drawn = [curves for panel in found.panels if len((curves := _curves(panel)).points)]
    return save(_figure(found, drawn), folder / "pareto", ("png", "svg", "pdf")) if drawn else []


def _curves(panel: Panel) -> Curves:
    """Both studies' points: the second's lines dotted, its markers larger and hollow, so that equals show."""
    parts = [points(rows_of(panel, study)).assign(second=study == 1) for study in (0, 1)]
    curves = prepare(panel, found=pd.concat(parts, ignore_index=True))
    second = curves.points["second"]
    looks = {
        "front": False,
        "filled": ~second,
        "size": np.where(second, 60.0, 22.0),
        "strand": curves.points["curve"] + second.map({True: " second", False: " first"}),
        "dash": pd.Series([_DOTTED if late else None for late in second], dtype="object"),
    }
    return curves._replace(points=curves.points.assign(**looks))


def _figure(found: Comparison, drawn: list[Curves]) -> Figure:
    figure = panels_figure(drawn, foot=0.52)
    width, height = figure.get_size_inches()
    line: dict[str, Any] = {"color": INK, "marker": "o", "linewidth": 1.3}
    second = Line2D([], [], **line, markersize=7, linestyle=_DOTTED, markerfacecolor="w")
    bare: Any = {"frameon": False, "borderaxespad": 0, "borderpad": 0, "handlelength": 3.2, "fontsize": 8}
    place: Any = {"loc": "lower left", "bbox_to_anchor": (LEFT_MARGIN / width, 0.24 / height)}
    figure.legend([Line2D([], [], **line, markersize=4.5), second], [*found.names], ncols=2, **place, **bare)
    told = outcome_sentence(found)
    notes = f"Bars: ±1 s.d. over seeds.  {told if len(told) < 82 else f'{len(found.both)} cells in both.'}"
    figure.text(LEFT_MARGIN / width, 0.08 / height, notes, fontsize=NOTE_PT, color=GREY)
    return figure


def _page(title: str, found: Comparison, tables: list[TitledTable], figures: list[Path]) -> str:
    style = asset("report.css")
    uri = figure_uri(figures, FIGURE_BYTES) if figures else None
    alt = text(f"{score_names(found.panels)} against measured NFE of both studies. {outcome_sentence(found)}")
    parts = {
        "title": text(title),
        "told": text(outcome_sentence(found)),
        "style": style,
        "style_hash": policy_hash(style),
        "notes": "".join(f"<li>{text(note)}</li>" for note in _notes(found)),
        "figure": f'<img src="{uri}" alt="{alt}">' if uri else "<p>Neither has a finished cell to draw.</p>",
        "tables": "".join(map(table_html, tables)),
    }
    return fill(asset("compare.html"), parts)
