"""What report.html holds as JSON: every row, the points of every curve, and how each curve looks.

Rows travel by column, each distinct value once: a thousand rows of sixty fields fit in half a megabyte.
Text is data here and never markup; `embed` makes the JSON safe inside an HTML page.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from seedsbench.report.pareto import Panel, split_titles, title_parts
from seedsbench.report.style import FAMILY_NAMES, Look, contrast, family_of, feature_name, look, shade

GROUND_DARK = "#14171c"  # the page's dark ground, as in assets/report.css
# Of a panel's points, in the order in which report.js reads them.
POINT = (
    *("nfe_budget", "nfe", "fid", "fid_std", "n", "is_mean", "is_mean_std", "images_per_second", "seconds"),
    *("done", "skipped", "failed", "fid_min", "warnings", "doubted"),
)
_LETTERS = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}  # matplotlib's path codes in SVG


def payload(df: pd.DataFrame, shown: list[Panel], strips: dict[str, str]) -> dict[str, Any]:
    """Everything the page's script draws from.

    shown: the panels of df. strips: data URI of a cell's first samples, by run_key.
    """
    row_panel, row_curve = [0] * len(df), [""] * len(df)
    for i, panel in enumerate(shown):
        for index, curve in panel.rows["curve"].items():
            row_panel[int(index)], row_curve[int(index)] = i, str(curve)  # type: ignore[call-overload]
    common, titles = split_titles([title_parts(panel) for panel in shown])
    looks: dict[str, tuple[str, Look]] = {}
    variants: dict[str, int] = {}
    drawn = [_panel(panel, title, looks, variants) for panel, title in zip(shown, titles, strict=True)]
    names = list(looks)
    markers = {style.marker for _, style in looks.values()}
    return {
        "columns": columns(df),
        "rowPanel": row_panel,
        "rowCurve": [names.index(curve) for curve in row_curve],
        "title": common,
        "panels": drawn,
        "curves": [_curve(name, family, style) for name, (family, style) in looks.items()],
        "markers": {marker: marker_path(marker) for marker in sorted(markers)},
        "strips": strips,
    }


def _panel(
    panel: Panel, title: str, looks: dict[str, tuple[str, Look]], variants: dict[str, int]
) -> dict[str, Any]:
    """One panel's points by curve; gives curves not met before their look."""
    found = panel.points
    first = found.drop_duplicates("curve")
    for curve, solver, family in first[["curve", "solver", "solver_family"]].to_numpy():
        if curve not in looks:
            looks[curve] = (family_of(solver, family), look(solver, family, variants.get(solver, 0)))
            variants[solver] = variants.get(solver, 0) + 1
    order = {name: i for i, name in enumerate(looks)}
    ordered = found.sort_values("nfe", kind="stable")
    lines = [
        {"curve": order[str(curve)], "points": [[plain(v) for v in row] for row in rows]}
        for curve, rows in sorted(_by_curve(ordered), key=lambda line: order[line[0]])
    ]
    floors = panel.rows["fid_floor"].to_numpy(float)
    floors = floors[floors > 0]
    return {
        "title": title,
        "name": " · ".join(title_parts(panel)),
        "features": feature_name(panel.key["extractor"]),
        "floor": float(floors.mean()) if len(floors) else None,
        "lines": lines,
    }


def _by_curve(found: pd.DataFrame) -> list[tuple[str, list[list[Any]]]]:
    groups: dict[str, list[list[Any]]] = {}
    seconds = 1 / found["images_per_second"].where(found["images_per_second"] > 0)
    found = found.assign(seconds=found.get("seconds", seconds)).reindex(columns=["curve", *POINT])
    for curve, *values in found[["curve", *POINT]].to_numpy(object).tolist():
        groups.setdefault(str(curve), []).append(values)
    return list(groups.items())


def _curve(name: str, family: str, style: Look) -> dict[str, Any]:
    dash = [] if isinstance(style.line, str) else [round(1.3 * part, 2) for part in style.line[1]]
    return {
        "name": name,
        "family": FAMILY_NAMES[family],
        "light": style.colour,
        "dark": on_dark(style.colour),
        "marker": style.marker,
        "dash": dash,
    }


def on_dark(colour: str) -> str:
    """The colour mixed with white until it has a contrast of 4.5 with the dark ground (WCAG AA).

    >>> on_dark("#d55e00"), on_dark("#333333")
    ('#d55e00', '#858585')
    """
    for step in range(20):
        lighter = shade(colour, 0.05 * step)
        if contrast(GROUND_DARK) / contrast(lighter) >= 4.5:
            return lighter
    return "#ffffff"


def marker_path(marker: str) -> str:
    """A matplotlib marker as SVG path data, upright, about one unit wide, so that both figures agree."""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    parts = []
    for vertices, code in path.iter_segments(curves=True, simplify=False):
        pairs = [] if code == 79 else [f"{x:.3g} {-y + 0:.3g}" for x, y in np.reshape(vertices, (-1, 2))]
        parts.append(_LETTERS[int(code)] + " ".join(pairs))
    return "".join(parts)


def columns(df: pd.DataFrame) -> list[list[Any]]:
    """[name, distinct values] or [name, distinct values, index of each row's value], in the rows' order."""
    made = []
    for name in df.columns:
        places: dict[tuple[type, Any], int] = {}
        values = [plain(value, whole=True) for value in df[name].tolist()]
        # The type is part of the key: in Python 1, 1.0 and True are one.
        index = [places.setdefault((type(value), value), len(places)) for value in values]
        distinct = [value for _, value in places]
        made.append([str(name), distinct] if len(distinct) == 1 else [str(name), distinct, index])
    return made


def plain(value: Any, *, whole: bool = False) -> Any:
    """A value as JSON knows it: no NaN, no infinity, no number that a browser would round.

    >>> plain(float("nan")), plain(np.int64(3)), plain(2.0, whole=True), plain(2**60)
    (None, 3, 2, '1152921504606846976')
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return int(value) if whole and value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    return None if value is pd.NaT or value is pd.NA else str(value)


def embed(value: Any) -> str:
    """JSON that can stand in a <script> element: ASCII, and no character that HTML could read as markup.

    >>> embed("</script>\\u2028")
    '"\\\\u003c/script\\\\u003e\\\\u2028"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def asset(name: str) -> str:
    """The text of a file of the page: its template, style or script."""
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")
