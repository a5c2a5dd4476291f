"""One panel of a figure: its curves, their looks, the axes, the floor, the names at the line ends."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from seedsbench.report.pareto import Panel
from seedsbench.report.points import front
from seedsbench.report.rows import take
from seedsbench.report.style import GREY, PALE, Look, log_ticks, look, plain, spread

LABEL_PT, NOTE_PT = 8.0, 7.0
WIDTH = 3.35  # of one panel's axes, inches
LABEL_GAP = (LABEL_PT + 2.5) / 72  # from one label to the next, inches
MOST_LABELS = 60


@dataclass(frozen=True)
class Plot:
    """What a figure shows: columns of `points.points`, and words for the axes.

    name: of the files. spread: column of the standard deviation over seeds. lower: whether less of y is
    better. floored: whether the real-vs-real score is a line.
    """

    name: str
    x: str
    y: str
    spread: str
    x_label: str
    y_label: str
    lower: bool
    floored: bool


PARETO = Plot("pareto", "nfe", "fid", "fid_std", "NFE per sample, measured", "FID, {features}", True, True)
SECONDS = Plot(
    "seconds", "seconds", "fid", "fid_std", "sampling seconds per image", "FID, {features}", True, True
)
SCORE = Plot(
    *("inception_score", "nfe", "is_mean", "is_mean_std"),
    *("NFE per sample, measured", "IS, {features}", False, False),
)
PLOTS = (PARETO, SECONDS, SCORE)


@dataclass(frozen=True)
class Curves:
    """One panel ready to draw: its points, a look for each curve, and the points no log axis can show.

    points: those of `points.points` with the plot's columns as x, y and spread; front; filled, whether the
    marker is, and its size; strand, the line it belongs to; dash, of that line where it is not the look's.
    """

    panel: Panel
    plot: Plot
    points: pd.DataFrame
    looks: dict[str, Look]
    hidden: int


def prepare(panel: Panel, plot: Plot = PARETO, found: pd.DataFrame | None = None) -> Curves:
    """Give each curve of a panel its look, and say which points can be shown.

    found: points to draw instead of the panel's own.
    """
    found = panel.points if found is None else found
    found = found.assign(x=found[plot.x], y=found[plot.y], spread=found[plot.spread])
    finite = np.isfinite(found["y"].to_numpy(float)) & np.isfinite(found["x"].to_numpy(float))
    shown = finite & (found["y"] > 0).to_numpy() & (found["x"] > 0).to_numpy()
    hidden = int(((found["done"] > 0).to_numpy() & ~shown).sum())
    kept = take(found, shown).sort_values("x", kind="stable").reset_index(drop=True)
    sure = kept["y"].where(~kept["doubted"]).to_numpy() * (1 if plot.lower else -1)
    kept["front"] = front(kept["x"].to_numpy(), sure)
    kept = kept.assign(filled=kept["front"], strand=kept["curve"], dash=None, size=25.0)
    looks: dict[str, Look] = {}
    variants: dict[str, int] = {}
    for curve, solver, family in found.drop_duplicates("curve")[
        ["curve", "solver", "solver_family"]
    ].to_numpy():
        looks[curve] = look(solver, family, variants.setdefault(solver, 0))
        variants[solver] += 1
    return Curves(panel, plot, kept, looks, hidden)


def labelled(curves: Curves) -> list[str]:
    """The curves that get a label: all, or the best where there are too many to read."""
    best = curves.points.sort_values("y", ascending=curves.plot.lower, kind="stable").drop_duplicates("curve")
    return list(best["curve"])[:MOST_LABELS]


def set_axes(ax: Axes, x_limits: tuple[float, float], y_limits: tuple[float, float]) -> None:
    """Log scales with plain numbers."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(x_limits)
    ax.set_ylim(y_limits)
    for axis, limits, most in ((ax.xaxis, x_limits, 5), (ax.yaxis, y_limits, 7)):
        axis.set_major_locator(FixedLocator(log_ticks(*limits, most)))
        axis.set_major_formatter(FuncFormatter(plain))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    ax.grid(True, which="major", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(length=3, width=0.7, labelsize=8)
    # Places of their own, not to be searched for among the tick labels.
    ax.yaxis.set_label_coords(-0.45 / WIDTH, 0.5)


def draw_floor(ax: Axes, curves: Curves) -> None:
    """The score of real images against real ones: below it a score says nothing about the sampler."""
    floors = curves.panel.rows["fid_floor"].to_numpy(float)
    floors = floors[floors > 0]
    if not len(floors):
        return
    level = float(floors.mean())
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
        gid="floor-label",
        xytext=(3, -3 if below else 2.5),
        va="top" if below else "bottom",
    )


def draw_curves(ax: Axes, curves: Curves) -> None:
    """Lines, error bars, and markers that are filled where `filled`, all of a kind as one collection."""
    best = take(curves.points, curves.points["front"]).sort_values(["x", "y"])
    ax.plot(
        best["x"],
        best["y"],
        color="#000000",
        alpha=0.09,
        linewidth=6,
        solid_capstyle="round",
        solid_joinstyle="round",
        zorder=1.5,
        gid="front",
    )
    strands = [(line, curves.looks[str(line["curve"].iloc[0])]) for _, line in _strands(curves)]
    paths = [line[["x", "y"]].to_numpy(float) for line, _ in strands]
    colours = [style.colour for _, style in strands]
    dashes = [style.line if line["dash"].iloc[0] is None else line["dash"].iloc[0] for line, style in strands]
    lines = LineCollection(paths, colors=colours, linestyles=dashes, linewidths=1.3, zorder=3)
    ax.add_collection(lines, autolim=False)
    _draw_bars(ax, curves)
    points = curves.points.sort_values("filled", kind="stable")  # drawn over the hollow ones
    looks = points["curve"].map(curves.looks)
    for marker in dict.fromkeys(style.marker for style in looks):
        mine = (looks.map(lambda style: style.marker) == marker).to_numpy()
        edges = [style.colour for style in looks[mine]]
        filled = points["filled"].to_numpy(bool)[mine]
        ax.scatter(
            points["x"][mine],
            points["y"][mine],
            s=points["size"][mine],
            marker=marker,
            facecolors=[edge if full else "white" for edge, full in zip(edges, filled, strict=True)],
            edgecolors=edges,
            linewidths=1.1,
            zorder=4,
        )
    for place in take(points, points["warnings"] > 0)[["x", "y"]].to_numpy(float):
        ax.annotate("!", place, (0, 4), textcoords="offset points", fontsize=LABEL_PT, ha="center")


def _strands(curves: Curves) -> list[tuple[object, pd.DataFrame]]:
    """The points of each line."""
    return list(curves.points.groupby("strand", sort=False))


def _draw_bars(ax: Axes, curves: Curves) -> None:
    """Error bars with caps, where points have a spread."""
    known = take(curves.points, np.isfinite(curves.points["spread"].to_numpy(float)))
    if known.empty:
        return
    x, y, half = (known[name].to_numpy(float) for name in ("x", "y", "spread"))
    # A log axis has no place for what reaches below zero: the bar runs out of the frame.
    low = np.maximum(y - half, ax.get_ylim()[0] / 100)
    colours = [curves.looks[str(curve)].colour for curve in known["curve"]]
    bars = np.stack([np.stack([x, low], -1), np.stack([x, y + half], -1)], 1)
    ax.add_collection(LineCollection(list(bars), colors=colours, linewidths=0.9, zorder=3), autolim=False)
    caps = np.concatenate([low, y + half])
    ax.scatter(np.tile(x, 2), caps, s=16, marker="_", c=colours * 2, linewidths=0.9, zorder=3)


def draw_published(ax: Axes, found: pd.DataFrame) -> None:
    """Published numbers as grey crosses; they do not move the axes."""
    limits = ax.get_xlim(), ax.get_ylim()
    ax.plot(found["nfe"], found["fid"], linestyle="none", marker="x", markersize=3.5, color=GREY, alpha=0.6)
    ax.set_xlim(limits[0])
    ax.set_ylim(limits[1])


def draw_labels(ax: Axes, curves: Curves) -> None:
    """Names in the gutter beside the line ends, moved apart, tied to their curve by a thin line."""
    names = set(labelled(curves))
    ends = take(curves.points, curves.points["curve"].isin(names)).groupby("curve", sort=False).last()
    (x_low, x_high), (y_low, y_high) = np.log(ax.get_xlim()), np.log(ax.get_ylim())
    x = (np.log(ends["x"].to_numpy(float)) - x_low) / (x_high - x_low)
    y = (np.log(ends["y"].to_numpy(float)) - y_low) / (y_high - y_low)
    inches = ax.get_position().height * ax.figure.get_figheight()  # type: ignore[union-attr]
    placed = spread(y, LABEL_GAP / inches, 0.0, 1.0)
    ties = [[(x0, y0), (1.0, y0), (1 + 0.17 / WIDTH, y1)] for x0, y0, y1 in zip(x, y, placed, strict=True)]
    ax.add_collection(
        LineCollection(
            ties,
            colors=[curves.looks[str(curve)].colour for curve in ends.index],
            transform=ax.transAxes,
            clip_on=False,
            alpha=0.55,
            linewidths=0.6,
            zorder=2,
        ),
        autolim=False,
    )
    for curve, y1 in zip(ends.index, placed, strict=True):
        ax.text(
            1 + 0.21 / WIDTH,
            y1,
            str(curve),
            transform=ax.transAxes,
            fontsize=LABEL_PT,
            color=curves.looks[str(curve)].text,
            va="center_baseline",
            gid="curve-label",
        )
