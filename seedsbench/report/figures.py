"""The figures of a study: FID against measured NFE and against seconds, IS against NFE; and, where guidance
was swept, FID against its scale and against IS.

Panels are laid out in inches: the names at the line ends need a gutter as wide as the longest of them, and
their places are solved for before anything is drawn.
"""

import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from seedsbench.files.atomic import write_atomic
from seedsbench.report.guided import by_scale
from seedsbench.report.pareto import Panel, score_names, split_titles
from seedsbench.report.points import front
from seedsbench.report.published import matching
from seedsbench.report.rows import status_counts, take
from seedsbench.report.style import (
    GREY,
    INK,
    PALE,
    RC,
    log_ticks,
    missing_glyphs_as_boxes,
    padded,
    plain_number,
    spread,
    text_inches,
)
from seedsbench.report.texts import csv_bytes

_PANEL_WIDTH, _PANEL_HEIGHT = 3.35, 2.55  # of one panel's axes, inches
LEFT_MARGIN, _RIGHT, _TOP, _BOTTOM = 0.62, 0.12, 0.30, 0.50  # margins of one panel, inches
_HEAD, _FOOT = 0.36, 0.26  # the figure's title and notes, inches
# Dates and versions would make two runs differ.
_METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": dict.fromkeys(("CreationDate", "Producer")),
}

MOST_PANELS = 40  # in a figure
_MOST_PIXELS = 40_000_000  # of a PNG; a larger one is drawn with fewer to the inch
_LOWEST, _HIGHEST = 1e-30, 1e30  # what is drawn: a margin around it is a number still

_LABEL_PT, NOTE_PT = 8.0, 7.0
_LABEL_GAP = (_LABEL_PT + 2.5) / 72  # from one label to the next, inches
_MOST_LABELS = 60


class Plot(NamedTuple):
    """What a figure shows, as columns of `points.points`, under which name and in which kinds of file.

    filled: which markers are. by_scale: whether its curves run over the scale of guidance (`guided.py`).
    """

    name: str
    x: str
    y: str
    kinds: tuple[str, ...] = ("png", "svg")
    filled: str = "on the Pareto front"
    by_scale: bool = False


PARETO = Plot("pareto", "nfe", "fid", ("png", "svg", "pdf"))
SECONDS = Plot("seconds", "seconds", "fid")
GUIDANCE = Plot("guidance", "scale", "fid", filled="the lowest of its curve", by_scale=True)
TRADEOFF = Plot("tradeoff", "is_mean", "fid", filled="no other has both scores better", by_scale=True)
PLOTS = (PARETO, SECONDS, Plot("inception_score", "nfe", "is_mean"), GUIDANCE, TRADEOFF)
_NARROWEST = {"scale": 1.5, "is_mean": 1.05}  # least ratio of the ends of an x axis; of others 2.5
_LABELS = {"nfe": "NFE per sample, measured", "seconds": "sampling seconds per image"}
_LABELS |= {"is_mean": "IS", "scale": "guidance scale"}


class Curves(NamedTuple):
    """One panel ready to draw: its points, and how many finished ones no log axis can show.

    points: those of `points.points` with the plot's columns as x, y and spread; front; filled, whether the
    marker is, and its size; strand, the line it belongs to; dash, of that line where it is not the look's.
    """

    panel: Panel
    plot: Plot
    points: pd.DataFrame
    hidden: int


def prepare(panel: Panel, plot: Plot = PARETO, found: pd.DataFrame | None = None) -> Curves:
    """A panel's points, or those found instead, that can be shown."""
    if plot.by_scale and found is None:
        panel, found = by_scale(panel) or (panel, panel.points.iloc[:0].assign(scale=0.0))
    found = panel.points if found is None else found
    found = found.assign(x=found[plot.x], y=found[plot.y], spread=found[f"{plot.y}_std"])
    shown = found["x"].between(_LOWEST, _HIGHEST) & found["y"].between(_LOWEST, _HIGHEST)
    order = "scale" if plot.by_scale else "x"
    kept = take(found, shown).sort_values(order, kind="stable", ignore_index=True)
    sure = kept["y"].where(~kept["doubted"]).to_numpy() * (1 if plot.y == "fid" else -1)
    kept["front"] = front(kept["x"].to_numpy() * (-1 if plot.x == "is_mean" else 1), sure)
    if plot is GUIDANCE:  # a scale is no cost
        kept["front"] = False
    lowest = kept["y"] == kept.groupby("curve")["y"].transform("min")
    kept = kept.assign(
        filled=lowest if plot is GUIDANCE else kept["front"], strand=kept["curve"], dash=None, size=25.0
    )
    return Curves(panel, plot, kept, hidden=int(((found["done"] > 0) & ~shown).sum()))


def labelled(curves: Curves) -> list[str]:
    """The curves that get a label: all, or the best where there are too many to read."""
    best = curves.points.sort_values("y", ascending=curves.plot.y == "fid", kind="stable")
    return list(best["curve"].unique())[:_MOST_LABELS]


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
        write_atomic(written[-1], csv_bytes(pd.concat(told)))
    return written


def save(figure: Figure, path: Path, kinds: tuple[str, ...], *, dpi: float = 200) -> list[Path]:
    """Write path.png, path.svg ... without dates and versions; whole files or none."""
    width, height = figure.get_size_inches()
    dpi = min(dpi, math.sqrt(_MOST_PIXELS / (width * height)))
    written = []
    for kind in kinds:
        buffer = io.BytesIO()
        options: Any = {"pil_kwargs": {"compress_level": 4}} if kind == "png" else {}
        with missing_glyphs_as_boxes():
            figure.savefig(buffer, format=kind, dpi=dpi, metadata=_METADATA[kind], **options)
        written.append(path.with_suffix(f".{kind}"))
        write_atomic(written[-1], buffer.getvalue())
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
    place = LEFT_MARGIN / figure.get_figwidth(), 0.10 / figure.get_figheight()
    figure.text(*place, notes, fontsize=NOTE_PT, color=GREY)
    return figure


def panels_figure(drawn: list[Curves], *, overlay: bool = False, foot: float = _FOOT) -> Figure:
    """The first MOST_PANELS side by side under a title; `foot` inches beneath them are left for notes."""
    drawn = drawn[:MOST_PANELS]
    plot = drawn[0].plot
    common, titles = split_titles([curves.panel.parts for curves in drawn])
    figure, axes = _grid(drawn, common, any(titles), foot)
    limits = _limits(drawn)
    for ax, curves, title, (x_limits, y_limits) in zip(axes, drawn, titles, limits, strict=True):
        set_axes(ax, x_limits, y_limits)
        ax.set_xlabel(_LABELS[plot.x])
        ax.set_ylabel(curves.panel.axis if plot.y == "fid" else f"{_LABELS[plot.y]}, {curves.panel.features}")
        ax.set_title(title, loc="left", fontsize=9, pad=7, y=1.0)  # else matplotlib searches for a y
        if plot.y == "fid" and curves.panel.floor is not None:
            draw_floor(ax, curves.panel.floor, curves.panel.floor_std)
        if overlay:
            others = matching(curves.panel)
            ax.plot(others["nfe"], others["fid"], "x", markersize=3.5, color=GREY, alpha=0.6)
        draw_curves(ax, curves)
        draw_labels(ax, curves)
    return figure


def _grid(drawn: list[Curves], title: str, headed: bool, foot: float) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a panel, each column with room for its own labels on the right."""
    columns = 1 if len(drawn) == 1 else 2 if len(drawn) <= 4 else 3
    rows = math.ceil(len(drawn) / columns)
    names = [labelled(curves) for curves in drawn]
    lengths = [max(text_inches(text, _LABEL_PT) for text in group) for group in names]
    gutters = [max(lengths[column::columns]) for column in range(columns)]
    widths = [LEFT_MARGIN + _PANEL_WIDTH + 0.24 + gutter + _RIGHT for gutter in gutters]
    height = max(_PANEL_HEIGHT, max(map(len, names)) * _LABEL_GAP)
    cell = (_TOP if headed else 0.06) + height + _BOTTOM
    w, h = sum(widths), rows * cell + _HEAD + foot
    figure = Figure(figsize=(w, h))
    figure.text(LEFT_MARGIN / w, 1 - 0.12 / h, title, fontsize=9.5, va="top", weight="bold", gid="title")
    axes = []
    for i in range(len(drawn)):
        x = sum(widths[: i % columns]) + LEFT_MARGIN
        y = h - _HEAD - (i // columns + 1) * cell + _BOTTOM
        axes.append(figure.add_axes((x / w, y / h, _PANEL_WIDTH / w, height / h)))
    return figure, axes


def _limits(drawn: list[Curves]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Axis limits a panel: x shared by all, y by the panels that use one feature extractor."""
    least = _NARROWEST.get(drawn[0].plot.x, 2.5)
    x = padded(np.concatenate([curves.points["x"].to_numpy(float) for curves in drawn]), 0.05, least)
    by_extractor: dict[tuple[str, str], list[np.ndarray]] = {}
    keys = [(curves.panel.key["extractor"], curves.panel.key["extractor_id"]) for curves in drawn]
    for key, curves in zip(keys, drawn, strict=True):
        y, std = curves.points["y"].to_numpy(float), curves.points["spread"].fillna(0).to_numpy(float)
        floors = curves.points["fid_floor"].to_numpy(float) if curves.plot.y == "fid" else y
        values = np.concatenate([y - std, y + std, floors])
        values = values[(values >= _LOWEST) & (values <= _HIGHEST)]
        # A bar that reaches below zero has no lower end on a log axis: it runs out of the frame.
        by_extractor.setdefault(key, []).append(np.concatenate([values, y / 1.1]))
    return [(x, padded(np.concatenate(by_extractor[key]), 0.06, 1.6)) for key in keys]


def _notes(df: pd.DataFrame, drawn: list[Curves], *, overlay: bool) -> list[str]:
    repeats = [int(n) for curves in drawn for n in curves.points["n"] if n > 1]
    notes = [f"Filled: {drawn[0].plot.filled}."]
    if drawn[0].plot is TRADEOFF:
        scales = sorted({scale for curves in drawn for scale in curves.points["scale"]})
        notes.append(f"Scales from {scales[0]:g} to {scales[-1]:g}, where the names are.")
    if any((curves.points["warnings"] > 0).any() for curves in drawn):
        notes.append("!: with a warning (table.md).")
    if repeats:
        count = " to ".join(map(str, sorted({min(repeats), max(repeats)})))
        notes.append(f"Bars: ±1 s.d. over {count} seeds.")
    if overlay:
        shown = sum(len(matching(curves.panel)) for curves in drawn)
        crosses = f"Crosses: {shown} published numbers, measured by others (published.csv)."
        notes.append(crosses if shown else "No published numbers may be compared with these.")
    if drawn[0].plot is SECONDS:
        notes.append("Seconds are each row's own: compare those of one machine and one sweep.")
    counts, plot = status_counts(df), drawn[0].plot
    score = score_names([curves.panel for curves in drawn]) if plot.y == "fid" else _LABELS[plot.y]
    absent = {
        "skipped": counts["skipped"],
        "failed": counts["failed"],
        f"without a positive {score}": sum(curves.hidden for curves in drawn),
        "panels": max(0, len(drawn) - MOST_PANELS),
        "curves' names": sum(curves.points["curve"].nunique() - len(labelled(curves)) for curves in drawn),
    }
    if any(absent.values()):
        notes.append(f"Not shown: {', '.join(f'{n} {what}' for what, n in absent.items() if n)}.")
    return notes


def _empty_figure(df: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(5, 2))
    counts = ", ".join(f"{count} {status}" for status, count in status_counts(df).items())
    figure.text(0.5, 0.56, "no finished cells", ha="center", fontsize=12, color=INK)
    figure.text(0.5, 0.36, f"{counts}; reasons are in table.md", ha="center", fontsize=8, color=GREY)
    return figure


def set_axes(ax: Axes, x_limits: tuple[float, float], y_limits: tuple[float, float]) -> None:
    """Log scales with plain numbers."""
    ax.set(xscale="log", yscale="log", xlim=x_limits, ylim=y_limits)
    for axis, limits, most in ((ax.xaxis, x_limits, 5), (ax.yaxis, y_limits, 7)):
        axis.set_major_locator(FixedLocator(log_ticks(*limits, most)))
        axis.set_major_formatter(FuncFormatter(plain_number))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    ax.grid(True, which="major", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(length=3, width=0.7, labelsize=8)
    # A fixed place: matplotlib would measure every tick label to find one.
    ax.yaxis.set_label_coords(-0.45 / _PANEL_WIDTH, 0.5)


def draw_floor(ax: Axes, level: float, std: float | None) -> None:
    """The score of real images against real ones: below it a score says nothing about the sampler.

    A line at the mean over sets of them, within a band of one standard deviation of these where it is known.
    """
    ax.axhspan(ax.get_ylim()[0], level, color="#000000", alpha=0.035, linewidth=0, zorder=0.5)
    if std:
        low = max(level - std, ax.get_ylim()[0])  # a log axis has no place for what reaches below zero
        ax.axhspan(low, level + std, color="#000000", alpha=0.09, linewidth=0, zorder=0.6, gid="floor-band")
    ax.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    low, high = np.log(ax.get_ylim())
    below = (math.log(level) - low) / (high - low) > 0.08  # room for the name beneath the line
    place: Any = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
    place |= {"xytext": (3, -3), "va": "top"} if below else {"xytext": (3, 2.5), "va": "bottom"}
    told = f"{level:.2g} ± {std:.1g}" if std else f"{level:.2g}"
    ax.annotate(f"real vs real, {told}", (0, level), fontsize=NOTE_PT, color=GREY, **place)


def draw_curves(ax: Axes, curves: Curves) -> None:
    """Lines, error bars, and markers that are filled where `filled`; the front as a broad pale line."""
    points = curves.points
    best = take(points, points["front"]).sort_values(["x", "y"])
    with mpl.rc_context({"lines.solid_capstyle": "round"}):
        ax.plot(best["x"], best["y"], color="#000000", alpha=0.09, linewidth=6, zorder=1.5)
    for _, line in points.groupby("strand", sort=False):
        look = curves.panel.looks[line["curve"].iloc[0]]
        x, y, half = (line[name].to_numpy(float) for name in ("x", "y", "spread"))
        # A log axis has no place for what reaches below zero: the bar runs out of the frame.
        bars = np.stack([np.minimum(half, y - ax.get_ylim()[0] / 100), half])
        widths: Any = {"linewidth": 1.3, "elinewidth": 0.9, "capsize": 2}
        dash = line["dash"].iloc[0] or look.line
        ax.errorbar(x, y, bars, color=look.colour, linestyle=dash, zorder=3, **widths)
        marker: Any = {"marker": look.family.marker, "edgecolors": look.colour, "linewidths": 1.1}
        for filled, part in line.groupby("filled"):
            face, above = (look.colour, 4.1) if filled else ("white", 4)
            ax.scatter(part["x"], part["y"], part["size"], facecolors=face, zorder=above, **marker)
    for place in take(points, points["warnings"] > 0)[["x", "y"]].to_numpy(float):
        ax.annotate("!", place, (0, 4), textcoords="offset points", fontsize=_LABEL_PT, ha="center")


def draw_labels(ax: Axes, curves: Curves) -> None:
    """Names in the gutter beside the line ends, moved apart, tied to their curve by a thin line."""
    named = take(curves.points, curves.points["curve"].isin(labelled(curves)))
    ends = named.groupby("curve", sort=False).last()
    x, y = ax.transAxes.inverted().transform(ax.transData.transform(ends[["x", "y"]].to_numpy(float))).T
    inches = ax.get_position().height * ax.figure.get_figheight()  # type: ignore[union-attr]
    tie: Any = {"transform": ax.transAxes, "clip_on": False, "alpha": 0.55, "linewidth": 0.6, "zorder": 2}
    label: Any = {
        "transform": ax.transAxes,
        "fontsize": _LABEL_PT,
        "va": "center_baseline",
        "gid": "curve-label",
    }
    for curve, x0, y0, y1 in zip(ends.index, x, y, spread(y, _LABEL_GAP / inches, 0.0, 1.0), strict=True):
        look = curves.panel.looks[str(curve)]
        ax.plot([x0, 1, 1 + 0.17 / _PANEL_WIDTH], [y0, y0, y1], color=look.colour, **tie)
        ax.text(1 + 0.21 / _PANEL_WIDTH, y1, str(curve), color=look.text, **label)
