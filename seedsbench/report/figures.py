"""The figures of a study: FID against measured NFE and against seconds, IS against NFE.

Panels are laid out in inches rather than by a layout engine: the labels at the line ends need a gutter
as wide as the longest of them, and their places are solved for before anything is drawn.
"""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seedsbench.report.draw import (
    LABEL_GAP,
    LABEL_PT,
    NOTE_PT,
    PANEL_WIDTH,
    PARETO,
    PLOTS,
    SECONDS,
    Curves,
    Plot,
    draw_curves,
    draw_floor,
    draw_labels,
    draw_published,
    labelled,
    prepare,
    set_axes,
)
from seedsbench.report.pareto import Panel, split_titles, title_parts
from seedsbench.report.published import matching
from seedsbench.report.rows import status_counts
from seedsbench.report.style import GREY, INK, RC, feature_name, padded, text_inches

PANEL_HEIGHT = 2.55  # of one panel's axes, inches
LEFT, RIGHT, TOP, BOTTOM = 0.62, 0.12, 0.30, 0.50  # margins of one panel, inches
HEAD, FOOT = 0.36, 0.26  # the figure's title and notes, inches
# Dates and versions would make two runs differ.
_METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Producer": None},
}


@mpl.rc_context(RC)
def write_figures(df: pd.DataFrame, shown: list[Panel], folder: Path, *, overlay: bool = False) -> list[Path]:
    """Write each of PLOTS that has something to show, the Pareto figure first and always.

    The same rows give the same bytes. overlay: published numbers in the Pareto figure, where there are any,
    and who printed them where in published.csv.
    """
    written = []
    for plot in PLOTS:
        figure = draw_figure(df, shown, plot, overlay=overlay and plot is PARETO)
        if figure is not None:
            written += save(figure, folder / plot.name, plot.kinds)
    if overlay:
        told = [matching(panel).assign(panel=panel.title) for panel in shown]
        written.append(folder / "published.csv")
        pd.concat(told).to_csv(written[-1], index=False, lineterminator="\n")
    return written


def save(figure: Figure, path: Path, kinds: tuple[str, ...], *, dpi: int = 200) -> list[Path]:
    """Write path.png, path.svg ... without dates and versions; whole files or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in kinds:
        buffer = io.BytesIO()
        options: Any = {"pil_kwargs": {"compress_level": 4}} if kind == "png" else {}
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=_METADATA[kind], **options)
        written.append(path.with_suffix(f".{kind}"))
        written[-1].write_bytes(buffer.getvalue())
    return written


@mpl.rc_context(RC)
def draw_figure(
    df: pd.DataFrame, shown: list[Panel], plot: Plot = PARETO, *, overlay: bool = False
) -> Figure | None:
    """One figure of a study; where there is nothing to show None, or a Pareto figure that says so."""
    drawn = [curves for panel in shown if len((curves := prepare(panel, plot)).points)]
    if not drawn:
        return _empty_figure(df) if plot is PARETO else None
    figure = panels_figure(drawn, overlay=overlay)
    notes = "  ".join(_notes(df, drawn, overlay=overlay))
    place = LEFT / figure.get_figwidth(), 0.10 / figure.get_figheight()
    figure.text(*place, notes, fontsize=NOTE_PT, color=GREY)
    return figure


def panels_figure(drawn: list[Curves], *, overlay: bool = False, foot: float = FOOT) -> Figure:
    """Panels side by side under a title; `foot` inches beneath them are left for notes."""
    plot = drawn[0].plot
    common, titles = split_titles([title_parts(curves.panel) for curves in drawn])
    figure, axes = _grid(drawn, common, any(titles), foot)
    limits = _limits(drawn)
    for ax, curves, title, (x_limits, y_limits) in zip(axes, drawn, titles, limits, strict=True):
        set_axes(ax, x_limits, y_limits)
        ax.set_xlabel(plot.x_label)
        ax.set_ylabel(plot.y_label.format(features=feature_name(curves.panel.key["extractor"])))
        ax.set_title(title, loc="left", fontsize=9, pad=7, y=1.0)  # y: not to be searched for
        if plot.floored and curves.panel.floor is not None:
            draw_floor(ax, curves.panel.floor)
        if overlay:
            draw_published(ax, matching(curves.panel))
        draw_curves(ax, curves)
        draw_labels(ax, curves)
    return figure


def _grid(drawn: list[Curves], title: str, headed: bool, foot: float) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a panel, each column with room for its own labels on the right."""
    columns = 1 if len(drawn) == 1 else 2 if len(drawn) <= 4 else 3
    rows = math.ceil(len(drawn) / columns)
    longest = [
        max(text_inches(text, LABEL_PT) for curves in drawn[c::columns] for text in labelled(curves))
        for c in range(columns)
    ]
    widths = [LEFT + PANEL_WIDTH + 0.24 + gutter + RIGHT for gutter in longest]
    most = max(len(labelled(curves)) for curves in drawn)
    height = max(PANEL_HEIGHT, most * LABEL_GAP)
    cell = (TOP if headed else 0.06) + height + BOTTOM
    w, h = sum(widths), rows * cell + HEAD + foot
    figure = Figure(figsize=(w, h))
    FigureCanvasAgg(figure)
    figure.text(LEFT / w, 1 - 0.12 / h, title, fontsize=9.5, va="top", weight="bold", gid="title")
    axes = []
    for i in range(len(drawn)):
        x = sum(widths[: i % columns]) + LEFT
        y = h - HEAD - (i // columns + 1) * cell + BOTTOM
        axes.append(figure.add_axes((x / w, y / h, PANEL_WIDTH / w, height / h)))
    return figure, axes


def _limits(drawn: list[Curves]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Axis limits a panel: x shared by all, y by the panels that use one feature extractor."""
    x = padded(np.concatenate([curves.points["x"].to_numpy(float) for curves in drawn]), 0.05, 2.5)
    by_extractor: dict[tuple[str, str], list[np.ndarray]] = {}
    keys = [(curves.panel.key["extractor"], curves.panel.key["extractor_id"]) for curves in drawn]
    for key, curves in zip(keys, drawn, strict=True):
        y, std = curves.points["y"].to_numpy(float), curves.points["spread"].fillna(0).to_numpy(float)
        floors = curves.points["fid_floor"].to_numpy(float) if curves.plot.floored else y
        values = np.concatenate([y - std, y + std, floors])
        # A bar that reaches below zero has no lower end on a log axis: it runs out of the frame.
        by_extractor.setdefault(key, []).append(np.concatenate([values[values > 0], y / 1.1]))
    return [(x, padded(np.concatenate(by_extractor[key]), 0.06, 1.6)) for key in keys]


def _notes(df: pd.DataFrame, drawn: list[Curves], *, overlay: bool) -> list[str]:
    """What marks mean, and what is not shown."""
    repeats = [int(n) for curves in drawn for n in curves.points["n"] if n > 1]
    notes = ["Filled: on the Pareto front."]
    if any((curves.points["warnings"] > 0).any() for curves in drawn):
        notes.append("!: with a warning (table.md).")
    if repeats:
        count = " to ".join(str(n) for n in sorted({min(repeats), max(repeats)}))
        notes.append(f"Bars: ±1 s.d. over {count} seeds.")
    if overlay:
        shown = sum(len(matching(curves.panel)) for curves in drawn)
        crosses = f"Crosses: {shown} published numbers, measured by others (published.csv)."
        notes.append(crosses if shown else "No published numbers may be compared with these.")
    if drawn[0].plot is SECONDS:
        notes.append("Seconds are each row's own: compare those of one machine and one sweep.")
    counts = status_counts(df)
    absent = {
        "skipped": counts["skipped"],
        "failed": counts["failed"],
        f"without a positive {'FID' if drawn[0].plot.lower else 'IS'}": sum(
            curves.hidden for curves in drawn
        ),
        "curves' names": sum(curves.points["curve"].nunique() - len(labelled(curves)) for curves in drawn),
    }
    if any(absent.values()):
        notes.append(f"Not shown: {', '.join(f'{n} {what}' for what, n in absent.items() if n)}.")
    return notes


def _empty_figure(df: pd.DataFrame) -> Figure:
    """A figure that says there is nothing to draw, and why."""
    figure = Figure(figsize=(5, 2))
    FigureCanvasAgg(figure)
    counts = ", ".join(f"{count} {status}" for status, count in status_counts(df).items())
    figure.text(0.5, 0.56, "no finished cells", ha="center", fontsize=12, color=INK)
    figure.text(0.5, 0.36, f"{counts}; reasons are in table.md", ha="center", fontsize=8, color=GREY)
    return figure
