"""One panel of a figure: its curves, their looks, the axes, the floor, the names at the line ends."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from seedsbench.report.pareto import Panel, front
from seedsbench.report.rows import take
from seedsbench.report.style import GREY, PALE, Look, log_ticks, look, plain, spread

LABEL_PT, NOTE_PT = 8.0, 7.0
WIDTH = 3.35  # of one panel's axes, inches
LABEL_GAP = (LABEL_PT + 2.5) / 72  # from one label to the next, inches
MOST_LABELS = 60


@dataclass(frozen=True)
class Plot:
    """What a figure shows: columns of `pareto.points`, and words for the axes.

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

    points: those of `pareto.points` with the plot's columns as x, y and spread.
    """

    panel: Panel
    plot: Plot
    points: pd.DataFrame
    looks: dict[str, Look]
    hidden: int


def prepare(panel: Panel, plot: Plot = PARETO) -> Curves:
    """Aggregate a panel's rows and give each curve its look."""
    found = panel.points
    found = found.assign(x=found[plot.x], y=found[plot.y], spread=found[plot.spread])
    finite = np.isfinite(found["y"].to_numpy(float)) & np.isfinite(found["x"].to_numpy(float))
    shown = finite & (found["y"] > 0).to_numpy() & (found["x"] > 0).to_numpy()
    hidden = int(((found["done"] > 0).to_numpy() & ~shown).sum())
    kept = take(found, shown).sort_values("x", kind="stable").reset_index(drop=True)
    kept["front"] = front(kept["x"].to_numpy(), kept["y"].to_numpy() * (1 if plot.lower else -1))
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
    """Lines, error bars, and markers that are filled where a point is on the front."""
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
    for curve, line in curves.points.groupby("curve", sort=False):
        style = curves.looks[str(curve)]
        x, y = line["x"].to_numpy(float), line["y"].to_numpy(float)
        ax.plot(x, y, color=style.colour, linestyle=style.line, linewidth=1.3, zorder=3)
        spread_ = line["spread"].to_numpy(float)
        if np.isfinite(spread_).any():
            ax.errorbar(x, y, spread_, fmt="none", ecolor=style.colour, elinewidth=0.9, capsize=2, zorder=3)
        for mask, face in ((line["front"], style.colour), (~line["front"], "white")):
            mask = mask.to_numpy(bool)
            ax.plot(
                x[mask],
                y[mask],
                linestyle="none",
                marker=style.marker,
                markersize=5,
                markerfacecolor=face,
                markeredgecolor=style.colour,
                markeredgewidth=1.1,
                zorder=4,
            )


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
    for curve, x0, y0, y1 in zip(ends.index, x, y, placed, strict=True):
        style = curves.looks[str(curve)]
        ax.add_artist(
            Line2D(
                [x0, 1.0, 1 + 0.17 / WIDTH],
                [y0, y0, y1],
                transform=ax.transAxes,
                clip_on=False,
                color=style.colour,
                alpha=0.55,
                linewidth=0.6,
                zorder=2,
            )
        )
        ax.text(
            1 + 0.21 / WIDTH,
            y1,
            str(curve),
            transform=ax.transAxes,
            fontsize=LABEL_PT,
            color=style.text,
            va="center_baseline",
            gid="curve-label",
        )
