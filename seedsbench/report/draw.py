"""What stands in a panel of a figure: axes, the floor, curves with their intervals, published points, names.

Names stand in a gutter beside the axes: nothing is ever drawn over them.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from seedsbench.report.pareto import Panel
from seedsbench.report.rows import take
from seedsbench.report.style import GREY, PALE, log_ticks, plain_number, spread, text_inches

PANEL_WIDTH, PANEL_HEIGHT = 3.2, 2.55  # of one panel's axes, inches
LABEL_PT, OPTIONS_PT, NOTE_PT = 8.0, 6.5, 7.0
_LINE = (LABEL_PT + 2.5) / 72  # from one label of one line to the next, inches
_TWO_LINES = (LABEL_PT + OPTIONS_PT + 4.5) / 72
_TIE, _GAP = 0.17, 0.04  # from the axes to the end of a label's tie, and on to the label, inches


class Label(NamedTuple):
    """A name in the gutter: a title, its options beneath or beside it, its colour, and the place it points to
    (the curve's end, or None for the floor, a level)."""

    text: str
    options: str
    colour: str
    x: float | None
    y: float


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
    ax.yaxis.set_label_coords(-0.45 / PANEL_WIDTH, 0.5)


def draw_floor(ax: Axes, level: float, std: float | None) -> None:
    """The score of real images against real ones: below it a score says nothing about the sampler.

    A line at the mean over sets of them, within a band of one standard deviation of these where it is known.
    """
    if std:
        low = max(level - std, ax.get_ylim()[0])  # a log axis has no place for what reaches below zero
        ax.axhspan(low, level + std, color="#000000", alpha=0.07, linewidth=0, zorder=0.6, gid="floor-band")
    ax.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)


def draw_published(ax: Axes, points: pd.DataFrame) -> None:
    """Crosses for printed scores (columns nfe, fid); arrows for those above the frame."""
    inside = points["fid"] <= ax.get_ylim()[1]
    near = take(points, inside)
    ax.plot(near["nfe"], near["fid"], "x", markersize=3.5, color=GREY, alpha=0.7, zorder=2, gid="published")
    beyond = take(points, ~inside & points["nfe"].between(*ax.get_xlim()))
    top = [ax.get_ylim()[1]] * len(beyond)
    ax.plot(beyond["nfe"], top, "^", markersize=2.5, color=GREY, alpha=0.5, clip_on=False, zorder=2)


def draw_curves(ax: Axes, panel: Panel, points: pd.DataFrame) -> None:
    """Lines with their intervals shaded, and markers that are filled where `filled`.

    points: those of `figures.Curves`. A point alone has a bar: a band needs two.
    """
    for _, line in points.groupby("strand", sort=False):
        look = panel.looks[line["curve"].iloc[0]]
        x, y, half = (line[name].fillna(0).to_numpy(float) for name in ("x", "y", "spread"))
        low = np.maximum(y - half, ax.get_ylim()[0] / 100)  # a log axis has no place for what is below zero
        if len(x) > 1:
            ax.fill_between(x, low, y + half, color=look.colour, alpha=0.11, linewidth=0, zorder=1.5)
        else:
            ax.vlines(x, low, y + half, color=look.colour, linewidth=0.9, zorder=3)
        ax.plot(x, y, color=look.colour, linestyle=line["dash"].iloc[0] or look.line, linewidth=1.3, zorder=3)
        marker: Any = {"marker": look.family.marker, "edgecolors": look.colour, "linewidths": 1.1}
        for filled, part in line.groupby("filled"):
            face, above = (look.colour, 4.1) if filled else ("white", 4)
            ax.scatter(part["x"], part["y"], part["size"], facecolors=face, zorder=above, **marker)
    inside = points["y"].between(*ax.get_ylim())
    for place in take(points, inside & (points["warnings"] > 0))[["x", "y"]].to_numpy(float):
        ax.annotate("!", place, (0, 4), textcoords="offset points", fontsize=LABEL_PT, ha="center")


def draw_leaving(ax: Axes, panel: Panel, points: pd.DataFrame) -> None:
    """An arrow and its value for each point beyond the frame; of one cost the values stand in a column."""
    low, high = ax.get_ylim()
    below: dict[float, int] = {}
    for curve, x, y, warnings in points[["curve", "x", "y", "warnings"]].itertuples(index=False):
        if low <= y <= high:
            continue
        over, n = y > high, below.get(x, 0)
        below[x] = n + 1
        place, colour = (x, high if over else low), panel.looks[str(curve)].colour
        ax.plot(
            *place, "^" if over else "v", color=colour, markersize=5, clip_on=False, zorder=5, gid="leaves"
        )
        told = f"{y:.3g}{' !' if warnings else ''}"
        line = NOTE_PT + 1  # the column runs into the frame: beneath it are the axis' own numbers
        shift = (5, 2 - n * line if over else 5 + n * line)
        put: Any = {"textcoords": "offset points", "va": "center", "fontsize": NOTE_PT, "color": colour}
        ax.annotate(told, place, shift, annotation_clip=False, zorder=6, **put)


def labels_of(panel: Panel, points: pd.DataFrame, names: list[str], floor: float | None) -> list[Label]:
    """The names of these curves, at their last points, and of the floor if there is one."""
    ends = take(points, points["curve"].isin(names)).groupby("curve", sort=False).last()
    made = []
    for curve, x, y in ends[["x", "y"]].itertuples():
        name, _, options = str(curve).partition(" ")
        made.append(Label(name, options, panel.looks[str(curve)].colour, x, y))
    if floor is not None:
        told = f"{floor:.2g} ± {panel.floor_std:.1g}" if panel.floor_std else f"{floor:.2g}"
        made.append(Label(f"real vs real, {told}", "", GREY, None, floor))
    return made


def line_height(labels: list[Label]) -> float:
    """Inches from one label to the next: options stand beneath names where a usual panel has room for it."""
    beneath = any(label.options for label in labels) and len(labels) * _TWO_LINES <= PANEL_HEIGHT
    return _TWO_LINES if beneath else _LINE


def gutter_width(labels: list[Label]) -> float:
    """Inches that the longest needs."""
    if line_height(labels) == _TWO_LINES:
        widths = [max(text_inches(n, LABEL_PT), text_inches(o, OPTIONS_PT)) for n, o, *_ in labels]
    else:
        widths = [text_inches(_in_one_line(label), LABEL_PT) for label in labels]
    return _TIE + _GAP + max(widths)


def _in_one_line(label: Label) -> str:
    return f"{label.text} {label.options}".rstrip()


def draw_labels(ax: Axes, labels: list[Label]) -> None:
    """Names in the gutter, moved apart, tied to their curve by a thin line."""
    places = [(ax.get_xlim()[1] if label.x is None else label.x, label.y) for label in labels]
    x, y = ax.transAxes.inverted().transform(ax.transData.transform(places)).T
    x, y = np.where((y < 0) | (y > 1), 1, x), np.clip(y, 0, 1)  # a curve may end beyond the frame
    inches = ax.get_position().height * ax.figure.get_figheight()  # type: ignore[union-attr]
    height = line_height(labels)
    tie: Any = {"transform": ax.transAxes, "clip_on": False, "alpha": 0.55, "linewidth": 0.6, "zorder": 2}
    put: Any = {"transform": ax.transAxes, "va": "center_baseline"}
    at, up = 1 + (_TIE + _GAP) / PANEL_WIDTH, (OPTIONS_PT + 2) / 2 / 72 / inches
    for label, x0, y0, y1 in zip(labels, x, y, spread(y, height / inches, 0.0, 1.0), strict=True):
        ax.plot([x0, 1, 1 + _TIE / PANEL_WIDTH], [y0, y0, y1], color=label.colour, **tie)
        put |= {"color": label.colour, "gid": "floor-label" if label.x is None else "curve-label"}
        if height == _TWO_LINES and label.options:
            ax.text(at, y1 + up, label.text, fontsize=LABEL_PT, **put)
            ax.text(at, y1 - up, label.options, fontsize=OPTIONS_PT, **(put | {"gid": "curve-options"}))
        else:
            ax.text(at, y1, _in_one_line(label), fontsize=LABEL_PT, **put)


def wrapped(text: str, points: float, inches: float) -> list[str]:
    """A text in lines no wider than so many inches; a longer word stays whole."""
    lines = [""]
    for word in text.split(" "):
        wider = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_inches(wider, points) > inches:
            lines.append(word)
        else:
            lines[-1] = wider
    return lines
