"""One panel of a figure: its curves, the axes, the floor, the names at the line ends."""

import math
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from seedsbench.report.pareto import Panel
from seedsbench.report.points import front
from seedsbench.report.rows import take
from seedsbench.report.style import GREY, PALE, log_ticks, plain_number, spread

LABEL_PT, NOTE_PT = 8.0, 7.0
PANEL_WIDTH = 3.35  # of one panel's axes, inches
LABEL_GAP = (LABEL_PT + 2.5) / 72  # from one label to the next, inches
MOST_LABELS = 60


@dataclass(frozen=True)
class Plot:
    """What a figure shows: columns of `points.points`, and words for the axes.

    name: of the files. spread: column of the standard deviation over seeds. lower: whether less of y is
    better. floored: whether the real-vs-real score is a line. kinds: of the files.
    """

    name: str
    x: str
    y: str
    spread: str
    x_label: str
    y_label: str
    lower: bool = True
    floored: bool = True
    kinds: tuple[str, ...] = ("png", "svg")


_NFE, _FID = "NFE per sample, measured", "FID, {features}"
PARETO = Plot("pareto", "nfe", "fid", "fid_std", _NFE, _FID, kinds=("png", "svg", "pdf"))
SECONDS = Plot("seconds", "seconds", "fid", "fid_std", "sampling seconds per image", _FID)
INCEPTION_SCORE = Plot(
    *("inception_score", "nfe", "is_mean", "is_mean_std", _NFE, "IS, {features}"), lower=False, floored=False
)
PLOTS = (PARETO, SECONDS, INCEPTION_SCORE)


@dataclass(frozen=True)
class Curves:
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
    found = panel.points if found is None else found
    found = found.assign(x=found[plot.x], y=found[plot.y], spread=found[plot.spread])
    shown = np.isfinite(found[["x", "y"]]).all(axis=1) & (found[["x", "y"]] > 0).all(axis=1)
    kept = take(found, shown).sort_values("x", kind="stable", ignore_index=True)
    sure = kept["y"].where(~kept["doubted"]).to_numpy() * (1 if plot.lower else -1)
    kept["front"] = front(kept["x"].to_numpy(), sure)
    kept = kept.assign(filled=kept["front"], strand=kept["curve"], dash=None, size=25.0)
    return Curves(panel, plot, kept, hidden=int(((found["done"] > 0) & ~shown).sum()))


def labelled(curves: Curves) -> list[str]:
    """The curves that get a label: all, or the best where there are too many to read."""
    best = curves.points.sort_values("y", ascending=curves.plot.lower, kind="stable").drop_duplicates("curve")
    return list(best["curve"])[:MOST_LABELS]


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
    # Places of their own, not to be searched for among the tick labels.
    ax.yaxis.set_label_coords(-0.45 / PANEL_WIDTH, 0.5)


def draw_floor(ax: Axes, level: float) -> None:
    """The score of real images against real ones: below it a score says nothing about the sampler."""
    ax.axhspan(ax.get_ylim()[0], level, color="#000000", alpha=0.035, linewidth=0, zorder=0.5)
    ax.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    low, high = np.log(ax.get_ylim())
    below = (math.log(level) - low) / (high - low) > 0.08  # room for the name beneath the line
    ax.annotate(
        f"real vs real, {level:.2g}",
        (0, level),
        xycoords=ax.get_yaxis_transform(),
        textcoords="offset points",
        fontsize=NOTE_PT,
        color=GREY,
        xytext=(3, -3 if below else 2.5),
        va="top" if below else "bottom",
    )


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
        ax.errorbar(
            *(x, y, bars),
            color=look.colour,
            linestyle=line["dash"].iloc[0] or look.line,
            linewidth=1.3,
            elinewidth=0.9,
            capsize=2,
            zorder=3,
        )
        for filled, part in line.groupby("filled"):
            ax.scatter(
                part["x"],
                part["y"],
                s=part["size"],
                marker=look.family.marker,
                facecolors=look.colour if filled else "white",
                edgecolors=look.colour,
                linewidths=1.1,
                zorder=4.1 if filled else 4,
            )
    for place in take(points, points["warnings"] > 0)[["x", "y"]].to_numpy(float):
        ax.annotate("!", place, (0, 4), textcoords="offset points", fontsize=LABEL_PT, ha="center")


def draw_published(ax: Axes, found: pd.DataFrame) -> None:
    """Published numbers as grey crosses."""
    ax.plot(found["nfe"], found["fid"], linestyle="none", marker="x", markersize=3.5, color=GREY, alpha=0.6)


def draw_labels(ax: Axes, curves: Curves) -> None:
    """Names in the gutter beside the line ends, moved apart, tied to their curve by a thin line."""
    ends = (
        take(curves.points, curves.points["curve"].isin(labelled(curves))).groupby("curve", sort=False).last()
    )
    x, y = ax.transAxes.inverted().transform(ax.transData.transform(ends[["x", "y"]].to_numpy(float))).T
    inches = ax.get_position().height * ax.figure.get_figheight()  # type: ignore[union-attr]
    for curve, x0, y0, y1 in zip(ends.index, x, y, spread(y, LABEL_GAP / inches, 0.0, 1.0), strict=True):
        look = curves.panel.looks[str(curve)]
        ax.plot(
            [x0, 1, 1 + 0.17 / PANEL_WIDTH],
            [y0, y0, y1],
            transform=ax.transAxes,
            clip_on=False,
            color=look.colour,
            alpha=0.55,
            linewidth=0.6,
            zorder=2,
        )
        ax.text(
            *(1 + 0.21 / PANEL_WIDTH, y1, str(curve)),
            transform=ax.transAxes,
            fontsize=LABEL_PT,
            color=look.text,
            va="center_baseline",
            gid="curve-label",
        )
