"""The Pareto figure: score against measured NFE, one line a solver, one panel a set of comparable rows.

Panels are laid out in inches rather than by a layout engine: the labels at the line ends need a gutter
as wide as the longest of them, and their places are solved for before anything is drawn.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from seedsbench.report.pareto import Panel, front, panels, points, split_titles, title_parts
from seedsbench.report.rows import take
from seedsbench.report.style import (
    GREY,
    INK,
    PALE,
    RC,
    Look,
    feature_name,
    log_ticks,
    look,
    padded,
    plain,
    spread,
    text_inches,
)

LABEL_PT, NOTE_PT = 8.0, 7.0
WIDTH, HEIGHT = 3.35, 2.55  # of one panel's axes, inches
LEFT, RIGHT, TOP, BOTTOM = 0.62, 0.12, 0.30, 0.50  # margins of one panel, inches
HEAD, FOOT = 0.36, 0.26  # the figure's title and notes, inches
LABEL_GAP = (LABEL_PT + 2.5) / 72  # from one label to the next, inches
MOST_LABELS = 60
# Dates and versions would make two runs differ.
METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None}}


@dataclass(frozen=True)
class Curves:
    """One panel ready to draw: its points, a look for each curve, and the points no log axis can show."""

    panel: Panel
    points: pd.DataFrame
    looks: dict[str, Look]
    hidden: int


def write_pareto(df: pd.DataFrame, folder: Path) -> list[Path]:
    """Write pareto.png, .svg and .pdf; the same rows give the same bytes."""
    with mpl.rc_context(RC):
        return save(pareto_figure(df), folder / "pareto", ("png", "svg", "pdf"))


def save(figure: Figure, path: Path, kinds: tuple[str, ...], *, dpi: int = 200) -> list[Path]:
    """Write path.png, path.svg ... without dates and versions; whole files or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=METADATA[kind])
        written.append(path.with_suffix(f".{kind}"))
        written[-1].write_bytes(buffer.getvalue())
    return written


def pareto_figure(df: pd.DataFrame) -> Figure:
    """FID against measured NFE for every panel that holds a finished cell."""
    with mpl.rc_context(RC):
        drawn = [curves for curves in map(prepare, panels(df)) if len(curves.points)]
        if not drawn:
            return _empty_figure(df)
        common, titles = split_titles([title_parts(curves.panel) for curves in drawn])
        figure, axes = _grid(drawn, common, any(titles))
        limits = _limits(drawn)
        for ax, curves, title, (x_limits, y_limits) in zip(axes, drawn, titles, limits, strict=True):
            _set_axes(ax, x_limits, y_limits)
            ax.set_xlabel("NFE per sample, measured")
            ax.set_ylabel(f"FID, {feature_name(curves.panel.key['extractor'])}")
            ax.set_title(title, loc="left", fontsize=9, pad=7)
            _draw_floor(ax, curves)
            _draw_curves(ax, curves)
            _draw_labels(ax, curves)
        _draw_notes(figure, df, drawn)
    return figure


def prepare(panel: Panel) -> Curves:
    """Aggregate a panel's rows and give each curve its look."""
    found = points(panel.rows)
    finite = np.isfinite(found["fid"].to_numpy(float)) & np.isfinite(found["nfe"].to_numpy(float))
    shown = finite & (found["fid"] > 0).to_numpy() & (found["nfe"] > 0).to_numpy()
    hidden = int(((found["done"] > 0).to_numpy() & ~shown).sum())
    kept = take(found, shown).sort_values("nfe", kind="stable").reset_index(drop=True)
    kept["front"] = front(kept["nfe"].to_numpy(), kept["fid"].to_numpy())
    looks: dict[str, Look] = {}
    variants: dict[str, int] = {}
    for curve, solver, family in found.drop_duplicates("curve")[
        ["curve", "solver", "solver_family"]
    ].to_numpy():
        looks[curve] = look(solver, family, variants.setdefault(solver, 0))
        variants[solver] += 1
    return Curves(panel, kept, looks, hidden)


def _grid(drawn: list[Curves], title: str, headed: bool) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a panel, each column with room for its own labels on the right."""
    columns = 1 if len(drawn) == 1 else 2 if len(drawn) <= 4 else 3
    rows = math.ceil(len(drawn) / columns)
    longest = [
        max(text_inches(text, LABEL_PT) for curves in drawn[c::columns] for text in _labelled(curves))
        for c in range(columns)
    ]
    widths = [LEFT + WIDTH + 0.24 + gutter + RIGHT for gutter in longest]
    most = max(len(_labelled(curves)) for curves in drawn)
    height = max(HEIGHT, most * LABEL_GAP)
    cell = (TOP if headed else 0.06) + height + BOTTOM
    w, h = sum(widths), rows * cell + HEAD + FOOT
    figure = Figure(figsize=(w, h))
    FigureCanvasAgg(figure)
    figure.text(LEFT / w, 1 - 0.12 / h, title, fontsize=9.5, va="top", weight="bold", gid="title")
    axes = []
    for i in range(len(drawn)):
        x = sum(widths[: i % columns]) + LEFT
        y = h - HEAD - (i // columns + 1) * cell + BOTTOM
        axes.append(figure.add_axes((x / w, y / h, WIDTH / w, height / h)))
    return figure, axes


def _labelled(curves: Curves) -> list[str]:
    """The curves that get a label: all, or the best where there are too many to read."""
    best = curves.points.sort_values("fid", kind="stable").drop_duplicates("curve")
    return list(best["curve"])[:MOST_LABELS]


def _limits(drawn: list[Curves]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Axis limits a panel: NFE shared by all, FID by the panels that use one feature extractor."""
    x = padded(np.concatenate([curves.points["nfe"].to_numpy(float) for curves in drawn]), 0.05, 2.5)
    by_extractor: dict[tuple[str, str], list[np.ndarray]] = {}
    keys = [(curves.panel.key["extractor"], curves.panel.key["extractor_id"]) for curves in drawn]
    for key, curves in zip(keys, drawn, strict=True):
        fid, std = curves.points["fid"].to_numpy(float), curves.points["fid_std"].fillna(0).to_numpy(float)
        values = np.concatenate([fid - std, fid + std, curves.points["fid_floor"].to_numpy(float)])
        # A bar that reaches below zero has no lower end on a log axis: it runs out of the frame.
        by_extractor.setdefault(key, []).append(np.concatenate([values[values > 0], fid / 1.1]))
    return [(x, padded(np.concatenate(by_extractor[key]), 0.06, 1.6)) for key in keys]


def _set_axes(ax: Axes, x_limits: tuple[float, float], y_limits: tuple[float, float]) -> None:
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


def _draw_floor(ax: Axes, curves: Curves) -> None:
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


def _draw_curves(ax: Axes, curves: Curves) -> None:
    """Lines, error bars, and markers that are filled where a point is on the front."""
    best = take(curves.points, curves.points["front"]).sort_values(["nfe", "fid"])
    ax.plot(
        best["nfe"],
        best["fid"],
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
        x, y = line["nfe"].to_numpy(float), line["fid"].to_numpy(float)
        ax.plot(x, y, color=style.colour, linestyle=style.line, linewidth=1.3, zorder=3)
        spread_ = line["fid_std"].to_numpy(float)
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


def _draw_labels(ax: Axes, curves: Curves) -> None:
    """Names in the gutter beside the line ends, moved apart, tied to their curve by a thin line."""
    names = set(_labelled(curves))
    ends = take(curves.points, curves.points["curve"].isin(names)).groupby("curve", sort=False).last()
    (x_low, x_high), (y_low, y_high) = np.log(ax.get_xlim()), np.log(ax.get_ylim())
    x = (np.log(ends["nfe"].to_numpy(float)) - x_low) / (x_high - x_low)
    y = (np.log(ends["fid"].to_numpy(float)) - y_low) / (y_high - y_low)
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


def _draw_notes(figure: Figure, df: pd.DataFrame, drawn: list[Curves]) -> None:
    """One small line beneath: what marks mean, and what is not shown."""
    repeats = [int(n) for curves in drawn for n in curves.points["n"] if n > 1]
    notes = ["Filled: on the Pareto front."]
    if repeats:
        low, high = min(repeats), max(repeats)
        notes.append(f"Bars: ±1 s.d. over {low if low == high else f'{low} to {high}'} seeds.")
    absent = [
        f"{count} {status}"
        for status in ("skipped", "failed")
        if (count := int((df["status"] == status).sum()))
    ]
    hidden = sum(curves.hidden for curves in drawn)
    if hidden:
        absent.append(f"{hidden} without a positive FID")
    unlabelled = sum(curves.points["curve"].nunique() - len(_labelled(curves)) for curves in drawn)
    if unlabelled:
        absent.append(f"{unlabelled} curves' names")
    if absent:
        notes.append("Not shown: " + ", ".join(absent) + ".")
    x = LEFT / figure.get_figwidth()
    figure.text(x, 0.10 / figure.get_figheight(), "  ".join(notes), fontsize=NOTE_PT, color=GREY)


def _empty_figure(df: pd.DataFrame) -> Figure:
    """A figure that says there is nothing to draw, and why."""
    figure = Figure(figsize=(5, 2))
    FigureCanvasAgg(figure)
    counts = ", ".join(f"{int((df['status'] == s).sum())} {s}" for s in ("done", "skipped", "failed"))
    figure.text(0.5, 0.56, "no finished cells", ha="center", fontsize=12, color=INK)
    figure.text(0.5, 0.36, f"{counts}; reasons are in table.md", ha="center", fontsize=8, color=GREY)
    return figure
