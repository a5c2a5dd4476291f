"""Error against NFE on the mixture, log-log: one panel a family, all the other solvers in grey behind it."""

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seedsbench.certify.table import curve
from seedsbench.report.draw import set_axes
from seedsbench.report.figures import save
from seedsbench.report.style import GREY, INK, RC, Look, family_of, looks_of, padded, spread, text_inches

_LABEL_PT = 7.5
_WIDTH, _HEIGHT = 2.5, 2.3  # of one panel's axes, inches
_LEFT, _TOP, _BOTTOM, _HEAD, _FOOT = 0.55, 0.28, 0.42, 0.5, 0.12
_COLUMNS = 3
_HIGHEST = 5.0  # of the distances drawn; the mixture is about 1 wide


def write_error_figure(df: pd.DataFrame, exact: float, folder: Path) -> list[Path]:
    """Write certificate.png and .svg of rows as `ordered`; exact: the distance of exact samples."""
    with mpl.rc_context(RC):
        return save(_error_figure(df, exact), folder / "certificate", ("png", "svg"), dpi=160)


def _error_figure(df: pd.DataFrame, exact: float) -> Figure:
    rows = df.to_dict("records")
    curves = {row["solver"]: np.array(curve(row)).T for row in rows if curve(row)}
    families: dict[str, list[str]] = {}
    for row in rows:
        if row["solver"] in curves and " " not in row["solver"]:
            families.setdefault(family_of(row["family"]).title, []).append(row["solver"])
    looks = looks_of(df.set_index("solver").rename(columns={"family": "solver_family"}))
    figure, axes = _panels(families)
    everything = np.concatenate(list(curves.values()), axis=1)
    # What starts above the frame comes into it from there: a few solvers need no scale of their own.
    shown = everything[0], np.append(everything[1].clip(max=_HIGHEST), exact)
    limits = [padded(values, 0.04, 1.0) for values in shown]
    for ax, (family, members) in zip(axes, families.items(), strict=True):
        set_axes(ax, *limits)
        ax.set_title(family, loc="left", fontsize=9, pad=6)
        ax.axhline(exact, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        for name, line in curves.items():
            if name not in members:
                ax.plot(*line, color="#dddddd", linewidth=0.6, zorder=0.8)
        for name in members:
            style = looks[name]
            look = {"color": style.colour, "linestyle": style.line, "marker": style.family.marker}
            ax.plot(*curves[name], **look, markersize=3.5, linewidth=1.2, zorder=3)
        _label(ax, members, curves, looks)
    return figure


def _panels(families: dict[str, list[str]]) -> tuple[Figure, list[Axes]]:
    rows = math.ceil(len(families) / _COLUMNS)
    groups = list(families.values())
    lengths = [max(text_inches(name, _LABEL_PT) for name in group) for group in groups]
    gutters = [max(lengths[column::_COLUMNS]) for column in range(min(_COLUMNS, len(groups)))]
    widths = [_LEFT + _WIDTH + 0.3 + gutter + 0.1 for gutter in gutters]
    cell = _TOP + _HEIGHT + _BOTTOM
    w, h = sum(widths), rows * cell + _HEAD + _FOOT
    figure = Figure(figsize=(w, h))
    title = "Error against NFE on the mixture, exact denoiser"
    figure.text(_LEFT / w, 1 - 0.1 / h, title, fontsize=10.5, va="top", weight="bold", color=INK)
    note = "Sliced Wasserstein-2 distance to the exact distribution, up to 5. Dashed: as many exact samples."
    figure.text(_LEFT / w, 1 - 0.3 / h, note, fontsize=7.5, va="top", color=GREY)
    axes = []
    for i in range(len(groups)):
        x = sum(widths[: i % _COLUMNS]) + _LEFT
        y = h - _HEAD - (i // _COLUMNS + 1) * cell + _BOTTOM
        axes.append(figure.add_axes((x / w, y / h, _WIDTH / w, _HEIGHT / h)))
    for ax in axes[-_COLUMNS:]:
        ax.set_xlabel("NFE per sample, measured", fontsize=8)
    return figure, axes


def _label(ax: Axes, members: list[str], curves: dict[str, np.ndarray], looks: dict[str, Look]) -> None:
    """Names beside the line ends, moved apart, tied to their curves."""
    (x_low, x_high), (y_low, y_high) = np.log(ax.get_xlim()), np.log(ax.get_ylim())
    x = np.array([(np.log(curves[name][0, -1]) - x_low) / (x_high - x_low) for name in members])
    y = np.array([(np.log(curves[name][1, -1]) - y_low) / (y_high - y_low) for name in members])
    gap = min((_LABEL_PT + 1.5) / 72 / _HEIGHT, 1 / max(len(members) - 1, 1))
    for name, x0, y0, y1 in zip(members, x, y, spread(y, gap, 0.0, 1.0), strict=True):
        style = looks[name]
        tie = Line2D([x0, 1.0, 1.07], [y0, y0, y1], transform=ax.transAxes, clip_on=False, zorder=2)
        tie.set(color=style.colour, alpha=0.55, linewidth=0.6)
        ax.add_artist(tie)
        label = ax.text(1.085, y1, name, transform=ax.transAxes, fontsize=_LABEL_PT, color=style.colour)
        label.set_verticalalignment("center_baseline")
