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

from seedsbench.files.atomic import write_atomic
from seedsbench.report.draw import (
    NOTE_PT,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    Label,
    draw_curves,
    draw_floor,
    draw_labels,
    draw_leaving,
    draw_published,
    gutter_width,
    labels_of,
    line_height,
    set_axes,
    wrapped,
)
from seedsbench.report.guided import by_scale
from seedsbench.report.limits import ends, unbeaten
from seedsbench.report.pareto import Panel, score_names, split_titles
from seedsbench.report.points import front
from seedsbench.report.published import matching
from seedsbench.report.rows import status_counts, take
from seedsbench.report.style import GREY, INK, RC, missing_glyphs_as_boxes, padded
from seedsbench.report.texts import csv_bytes

LEFT_MARGIN, _RIGHT, _TOP, _BOTTOM = 0.62, 0.08, 0.30, 0.44  # margins of one panel, inches
_TITLE_PT, _TITLE_LINE = 9.5, 0.18  # of the figure's title; its lines, inches
_BOLDER = 1.15  # a bold text is so much wider
_NOTE_LINE = 0.14  # of the notes, inches
# Dates and versions would make two runs differ.
_METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": dict.fromkeys(("CreationDate", "Producer")),
}

MOST_PANELS = 40  # in a figure
_MOST_PIXELS = 40_000_000  # of a PNG; a larger one is drawn with fewer to the inch
_LOWEST, _HIGHEST = 1e-30, 1e30  # what is drawn: a margin around it is a number still

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
_LEAST_RATIO = {"fid": 1.6, "is_mean": 1.05}  # the same of a y axis
_LABELS = {"nfe": "NFE per sample, measured", "seconds": "sampling seconds per image"}
_LABELS |= {"is_mean": "IS", "scale": "guidance scale"}


class Curves(NamedTuple):
    """One panel ready to draw: its points, and how many finished ones no log axis can show.

    points: those of `points.points` with the plot's columns as x, y and spread; front; filled, whether the
    marker is, and its size; strand, the line it belongs to; dash, of that line where it is not the look's.
    published: printed scores to show beside them (`published.matching`).
    """

    panel: Panel
    plot: Plot
    points: pd.DataFrame
    hidden: int
    published: pd.DataFrame

    @property
    def floor(self) -> float | None:
        """That of the panel, where the plot shows its score."""
        return self.panel.floor if self.plot.y == "fid" else None

    @property
    def labels(self) -> list[Label]:
        """What stands beside it."""
        return labels_of(self.panel, self.points, labelled(self), self.floor)


def prepare(
    panel: Panel, plot: Plot = PARETO, found: pd.DataFrame | None = None, *, overlay: bool = False
) -> Curves:
    """A panel's points, or those found instead, that can be shown; overlay: and published ones."""
    others = matching(panel) if overlay else matching(panel).iloc[:0]
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
    return Curves(panel, plot, kept, int(((found["done"] > 0) & ~shown).sum()), others)


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
    every = [prepare(panel, plot, overlay=overlay) for panel in shown]
    drawn = [curves for curves in every if len(curves.points)]
    if not drawn:
        return _empty_figure(df) if plot is PARETO else None
    return panels_figure(drawn, "  ".join(_notes(df, drawn, overlay=overlay)))


def panels_figure(drawn: list[Curves], notes: str, foot: float = 0.0) -> Figure:
    """The first MOST_PANELS side by side, under a title and above notes; `foot` inches between are left."""
    drawn = drawn[:MOST_PANELS]
    plot = drawn[0].plot
    common, titles = split_titles([curves.panel.parts for curves in drawn])
    figure, axes = _grid(drawn, common, notes, headed=any(titles), foot=foot)
    for ax, curves, title, limits in zip(axes, drawn, titles, _limits(drawn), strict=True):
        set_axes(ax, *limits)
        ax.set_xlabel(_LABELS[plot.x])
        ax.set_ylabel(curves.panel.axis if plot.y == "fid" else f"{_LABELS[plot.y]}, {curves.panel.features}")
        ax.set_title(title, loc="left", fontsize=9, pad=7, y=1.0)  # else matplotlib searches for a y
        if curves.floor is not None:
            draw_floor(ax, curves.floor, curves.panel.floor_std)
        draw_published(ax, curves.published)
        draw_curves(ax, curves.panel, curves.points)
        draw_leaving(ax, curves.panel, curves.points)
        draw_labels(ax, curves.labels)
    return figure


def _grid(
    drawn: list[Curves], title: str, notes: str, *, headed: bool, foot: float
) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a panel, each column with room for its own labels on the right."""
    columns = 1 if len(drawn) == 1 else 2 if len(drawn) <= 4 else 3
    rows = math.ceil(len(drawn) / columns)
    labels = [curves.labels for curves in drawn]
    gutters = [max(map(gutter_width, labels[column::columns])) for column in range(columns)]
    widths = [LEFT_MARGIN + PANEL_WIDTH + gutter + _RIGHT for gutter in gutters]
    height = max(PANEL_HEIGHT, *(len(group) * line_height(group) for group in labels))
    cell = (_TOP if headed else 0.0) + height + _BOTTOM
    w = sum(widths)
    room = w - LEFT_MARGIN - _RIGHT
    heads, told = wrapped(title, _TITLE_PT * _BOLDER, room), wrapped(notes, NOTE_PT, room)
    head, foot = 0.16 + len(heads) * _TITLE_LINE, foot + len(told) * _NOTE_LINE + 0.06
    h = rows * cell + head + foot
    figure = Figure(figsize=(w, h))
    put: Any = {"fontsize": _TITLE_PT, "va": "top", "weight": "bold", "gid": "title"}
    figure.text(LEFT_MARGIN / w, 1 - 0.08 / h, "\n".join(heads), **put)
    put = {"fontsize": NOTE_PT, "color": GREY, "va": "bottom", "linespacing": 1.35, "gid": "notes"}
    figure.text(LEFT_MARGIN / w, 0.05 / h, "\n".join(told), **put)
    axes = []
    for i in range(len(drawn)):
        x = sum(widths[: i % columns]) + LEFT_MARGIN
        y = h - head - (i // columns + 1) * cell + _BOTTOM
        axes.append(figure.add_axes((x / w, y / h, PANEL_WIDTH / w, height / h)))
    return figure, axes


def _limits(drawn: list[Curves]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Axis limits a panel: x shared by all, y by the panels that use one feature extractor."""
    plot = drawn[0].plot
    better = [_better_than_ours(curves) for curves in drawn]
    costs = [curves.points["x"].to_numpy(float) for curves in drawn] + [of["nfe"] for of in better]
    x = padded(np.concatenate(costs), 0.05, _NARROWEST.get(plot.x, 2.5))
    keys = [(curves.panel.key["extractor"], curves.panel.key["extractor_id"]) for curves in drawn]
    limits = {}
    for key in dict.fromkeys(keys):
        group = [i for i, other in enumerate(keys) if other == key]
        points = pd.concat([drawn[i].points for i in group])
        floors = points["fid_floor"] if plot.y == "fid" else points["y"].iloc[:0]
        anchors = np.concatenate(
            [floors[floors.between(_LOWEST, _HIGHEST)], *(better[i]["fid"] for i in group)]
        )
        low, high = ends(points["y"].to_numpy(), anchors, lower_is_better=plot.y == "fid")
        inside = take(points, points["y"].between(low * (1 - 1e-9), high * (1 + 1e-9)))
        half = inside["spread"].fillna(0)
        # A bar that reaches below zero has no lower end on a log axis: it runs out of the frame.
        down = (inside["y"] - half).where(half < inside["y"], inside["y"] / 1.1)
        bars = np.concatenate([down, inside["y"] + half])
        bars = bars[(bars >= _LOWEST) & (bars <= _HIGHEST)]
        limits[key] = padded(np.array([low, high, *bars]), 0.06, _LEAST_RATIO[plot.y])
    return [(x, limits[key]) for key in keys]


def _better_than_ours(curves: Curves) -> pd.DataFrame:
    """The published points that none of ours beats: the axes reach to them, whatever they leave out else."""
    others, ours = curves.published, curves.points
    return take(
        others,
        unbeaten(
            *(
                of[name].to_numpy()
                for of, name in ((others, "nfe"), (others, "fid"), (ours, "x"), (ours, "y"))
            )
        ),
    )


def _notes(df: pd.DataFrame, drawn: list[Curves], *, overlay: bool) -> list[str]:
    repeats = [int(n) for curves in drawn for n in curves.points["n"] if n > 1]
    notes = [f"Filled: {drawn[0].plot.filled}."]
    if drawn[0].plot is TRADEOFF:
        scales = sorted({scale for curves in drawn for scale in curves.points["scale"]})
        notes.append(f"Scales from {scales[0]:g} to {scales[-1]:g}, where the names are.")
    if any((curves.points["warnings"] > 0).any() for curves in drawn):
        notes.append("!: with a warning (table.md).")
    frames = _limits(drawn)
    if any((~curves.points["y"].between(*y)).any() for curves, (_, y) in zip(drawn, frames, strict=True)):
        notes.append("Arrows: beyond the axis.")
    if repeats:
        count = " to ".join(map(str, sorted({min(repeats), max(repeats)})))
        notes.append(f"Shaded: ±1 s.d. over {count} seeds.")
    if overlay:
        found = [(of.published["nfe"], *frame[0]) for of, frame in zip(drawn, frames, strict=True)]
        shown = sum(int(nfe.between(low, high).sum()) for nfe, low, high in found)
        crosses = f"Crosses: {shown} published numbers, measured by others (published.csv)."
        notes.append(crosses if shown else "No published numbers may be compared with these.")
    if drawn[0].plot is SECONDS:
        sweeps = df["invocation"].nunique() if "invocation" in df else 1
        told = f"are those of {sweeps} sweeps" if sweeps > 1 else "are each row's own"
        notes.append(f"Seconds {told}: compare those of one machine and one sweep.")
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
