"""What report.html holds: as JSON every row, the points of every curve and how it looks; images as data URIs.

Rows travel by column, each distinct value once: a thousand rows of sixty fields fit in half a megabyte.
Text is data here and never markup; `embed` makes the JSON safe inside an HTML page.
"""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from seedsbench.files.regular import read_ordinary
from seedsbench.report.pareto import Panel, split_titles
from seedsbench.report.pictures import as_rgb, open_png, read_png
from seedsbench.report.published import matching
from seedsbench.report.style import Look
from seedsbench.report.table import latex_text
from seedsbench.report.texts import shown_name

# Of a panel's points, in the order in which assets/plot.js reads them.
POINT = (
    *("nfe_budget", "nfe", "fid", "fid_std", "n", "is_mean", "is_mean_std", "images_per_second", "seconds"),
    *("done", "skipped", "failed", "fid_min", "warnings", "doubted"),
)
# Of a verdict, in the order in which assets/pairs.js reads it.
VERDICT = (
    *("budget", "first", "second", "difference", "error", "low", "high", "runs", "paired", "unpaired"),
    *("correlation", "p", "word", "why"),
)
# Of a published score, in the order in which assets/plot.js reads them.
PUBLISHED_POINT = ("nfe", "fid", "solver", "source", "where")
MOST_VERDICTS = 5000  # of a panel; beyond them only those on the best of each budget
FIGURE_BYTES, SHEET_BYTES, STRIP_BYTES = 1_000_000, 1_300_000, 300_000  # of all of a kind, before base64
MAX_IMAGES = 12  # of a kind; beyond it pages name the file instead
_KINDS = {".svg": "svg+xml", ".png": "png", ".jpg": "jpeg"}
_REDUCTIONS = (1, 2, 3, 4, 6)  # whole factors: quick, and pixels that were squares stay squares
_LETTERS = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}  # matplotlib's path codes in SVG


def payload(
    df: pd.DataFrame, shown: list[Panel], strips: dict[str, str], *, overlay: bool = False
) -> dict[str, Any]:
    """Everything the page's script draws from.

    shown: the panels of df. strips: data URI of a cell's first samples, by run_key. overlay: whether
    published scores are shown at first.
    """
    looks = {curve: look for panel in shown for curve, look in panel.looks.items()}
    order = {curve: i for i, curve in enumerate(looks)}
    solvers = {
        curve: solver for panel in shown for curve, solver in panel.rows[["curve", "solver"]].to_numpy()
    }
    rows = pd.concat([panel.rows[["curve"]].assign(panel=i) for i, panel in enumerate(shown)]).sort_index()
    common, titles = split_titles([panel.parts for panel in shown])
    return {
        "columns": columns(df),
        "rowPanel": rows["panel"].tolist(),
        "rowCurve": rows["curve"].map(order).tolist(),
        "title": common,
        "panels": [_panel(panel, title, order) for panel, title in zip(shown, titles, strict=True)],
        "curves": [_curve(curve, solvers[curve], look) for curve, look in looks.items()],
        "markers": {m: marker_path(m) for m in sorted({look.family.marker for look in looks.values()})},
        "strips": strips,
        "latex": latex_text(shown),
        "overlay": overlay,
    }


def _panel(panel: Panel, title: str, order: dict[str, int]) -> dict[str, Any]:
    lines = []
    for curve, group in panel.points.sort_values("nfe", kind="stable").groupby("curve"):
        told = group[list(POINT)].to_numpy(object).tolist()
        lines.append({"curve": order[str(curve)], "points": [list(map(json_value, p)) for p in told]})
    printed = matching(panel)[list(PUBLISHED_POINT)].to_numpy(object).tolist()
    facts = {"title": title, "name": panel.full_title, "slug": panel.slug, "features": panel.features}
    facts |= {"score": panel.score_name, "axis": panel.axis}
    facts |= {"floor": panel.floor, "floorSpread": panel.floor_std}
    facts |= {name: shown_name(panel.key[name]) for name in ("model", "regime")}
    return facts | {
        "lines": sorted(lines, key=lambda line: line["curve"]),
        "verdicts": _verdicts(panel, order),
        "published": [list(map(json_value, line)) for line in printed],
    }


def _verdicts(panel: Panel, order: dict[str, int]) -> list[list[Any]]:
    """A line a verdict, as in VERDICT; numbers with the digits that a page shows."""
    every = sum(len(winner.verdicts) for winner in panel.winners) <= MOST_VERDICTS
    lines = []
    for winner in panel.winners:
        for (i, j), verdict in winner.verdicts.items():
            if i > 0 and not every:
                continue
            found, names = verdict.difference, [order[winner.points[k]["curve"]] for k in (i, j)]
            numbers = (found.value, found.error, *found.interval)
            told = (found.unpaired, found.correlation, verdict.p)
            difference, chance = ([_rounded(value) for value in values] for values in (numbers, told))
            unpaired, correlation, p = chance
            line = [winner.budget, *names, *difference, found.n, found.paired, unpaired, correlation, p]
            lines.append([*line, verdict.word, verdict.why])
    return lines


def _rounded(value: float) -> float | None:
    return json_value(float(f"{value:.4g}"))


def _curve(name: str, solver: str, look: Look) -> dict[str, Any]:
    dash = [] if isinstance(look.line, str) else [round(1.3 * part, 2) for part in look.line[1]]
    told = {"name": name, "solver": solver, "family": look.family.title, "dash": dash}
    return told | {"light": look.colour, "dark": look.dark, "marker": look.family.marker}


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
        places: dict[tuple[type, Any], int] = {}  # by type too: in Python 1, 1.0 and True are one
        values = [json_value(value, whole=True) for value in df[name].tolist()]
        index = [places.setdefault((type(value), value), len(places)) for value in values]
        made.append([str(name), [value for _, value in places], *([index] if len(places) != 1 else [])])
    return made


def json_value(value: Any, *, whole: bool = False) -> Any:
    """A value as JSON knows it: no NaN, no infinity, no number that a browser would round.

    >>> json_value(float("nan")), json_value(np.int64(3)), json_value(2.0, whole=True), json_value(2**60)
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


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure_uri(versions: list[Path], most: int) -> str | None:
    """The sharpest of one figure's files (.svg, .png) that fits in `most` bytes, else a smaller copy."""
    by_kind = {path.suffix: path for path in versions if path.suffix in _KINDS and path.is_file()}
    for kind in (".svg", ".png"):
        if kind in by_kind and by_kind[kind].stat().st_size <= most:
            return _data_uri(by_kind[kind].read_bytes(), _KINDS[kind])
    return _smaller(by_kind[".png"], most) if ".png" in by_kind else None


def _smaller(path: Path, most: int) -> str | None:
    image = as_rgb(read_png(path))
    if image is None:
        return None
    for factor in _REDUCTIONS:
        buffer = io.BytesIO()
        image.reduce(factor).save(buffer, format="JPEG", quality=82)
        if buffer.tell() <= most:
            return _data_uri(buffer.getvalue(), "jpeg")
    return None


def strip_uris(keys: list[str], samples: Path) -> dict[str, str]:
    """The cells' own strips of samples, in this order those that fit in STRIP_BYTES; sheets show more."""
    read: dict[str, str] = {}
    left = STRIP_BYTES
    for key in keys:
        try:
            data = read_ordinary(samples / f"{key}.png", max_bytes=left)
        except (OSError, ValueError):  # none, not readable, or too large
            continue
        if open_png(data):
            left -= len(data)
            read[key] = _data_uri(data, "png")
    return read
