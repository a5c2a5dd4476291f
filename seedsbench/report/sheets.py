"""Sample sheets: solvers down, NFE budgets across, the same latents in every cell.

Drawn with Pillow, pixel by pixel: small images are enlarged by a whole factor without smoothing, so that
what one sees is what was sampled.
"""

import io
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from seedsbench.files.atomic import write_atomic
from seedsbench.report.figures import MOST_PANELS
from seedsbench.report.pareto import Panel
from seedsbench.report.pictures import as_rgb, read_png
from seedsbench.report.points import newest
from seedsbench.report.rows import take
from seedsbench.report.style import GREY, INK
from seedsbench.report.summary import number
from seedsbench.report.texts import shown_name

_PER_ROW, _MOST = 5, 10  # images beside each other in a cell, images a cell
_SMALLEST, _LARGEST = 48, 96  # edge of a shown image, pixels
_MOST_CURVES, _MOST_BUDGETS = 60, 16  # in a sheet
_MOST_PIXELS = 500_000_000  # of all strips of a sheet: some ten seconds to decode
_GAP, _PAD, _MARGIN = 3, 16, 24  # between images, cells, and around the sheet
_HEAD, _CAPTION = 78, 24  # heights of the title with column heads, and of the line under a cell
_BLANK, _RULE = "#f3f3f3", "#dddddd"  # a cell without images, and its edge
_TITLE, _BODY, _SMALL = 17, 14, 12  # text, pixels


class Sheet(NamedTuple):
    """What one sheet shows: a row for each (curve, budget), the strips by run_key, and how large an image is
    drawn."""

    panel: Panel
    cells: dict[tuple[str, str], dict]
    strips: dict[str, Path]
    curves: list[str]
    budgets: list[str]
    images: int
    edge: int


def write_sheets(shown: list[Panel], study: Path, folder: Path) -> list[Path]:
    """Write samples_<panel>.png for every panel that has a strip of samples; return the paths."""
    written = []
    for panel in shown[:MOST_PANELS]:
        if (sheet := _lay_out(panel, study / "samples")) is not None:
            written.append(folder / f"samples_{panel.slug}.png")
            drawn = io.BytesIO()
            _draw_sheet(sheet).save(drawn, format="PNG", compress_level=3)
            write_atomic(written[-1], drawn.getvalue())
    return written


def _lay_out(panel: Panel, samples: Path) -> Sheet | None:
    """Choose rows (first seed) and sizes; None where no cell has samples to show."""
    rows = take(panel.rows, panel.rows["seed"].isna() | (panel.rows["seed"] == panel.rows["seed"].min()))
    rows = newest(rows).sort_values(["nfe_budget", "nfe"], kind="stable")
    rows = rows.sort_values("status", key=lambda status: status != "done", kind="stable")
    cells: dict[tuple[str, str], dict] = {}
    for row in rows.to_dict("records"):
        budget = number(row["nfe"] if pd.isna(row["nfe_budget"]) else row["nfe_budget"], "g")
        cells.setdefault((str(row["curve"]), budget), row)
    done = {place: row["run_key"] for place, row in cells.items() if row["status"] == "done"}
    present = {curve for curve, _ in cells}
    curves = [curve for curve in panel.looks if curve in present][:_MOST_CURVES]
    # A budget at which nothing finished has nothing to look at; table.md holds the reasons.
    budgets = sorted({budget for _, budget in done}, key=float)[:_MOST_BUDGETS]
    sizes, pixels = {}, 0
    for key in (key for (curve, budget), key in done.items() if curve in curves and budget in budgets):
        strip = read_png(samples / f"{key}.png")
        if strip is None or strip.width < strip.height or pixels + strip.width * strip.height > _MOST_PIXELS:
            continue
        sizes[key], pixels = strip.size, pixels + strip.width * strip.height
    if not sizes:
        return None
    images = min(_MOST, *(width // height for width, height in sizes.values()))
    edge = max(height for _, height in sizes.values())
    shown = _LARGEST if edge > _LARGEST else edge * math.ceil(_SMALLEST / edge)
    strips = {key: samples / f"{key}.png" for key in sizes}
    return Sheet(panel, cells, strips, curves, budgets, images, shown)


def _draw_sheet(sheet: Sheet) -> Image.Image:
    down = math.ceil(sheet.images / _PER_ROW)
    cell_w = max(min(sheet.images, _PER_ROW) * (sheet.edge + _GAP) - _GAP, 150)
    cell_h = down * (sheet.edge + _GAP) - _GAP
    names = [_name_lines(curve) for curve in sheet.curves]
    left = _MARGIN + max(_width(line, _BODY, True) for lines in names for line in lines) + 28
    line_h = cell_h + _CAPTION + _PAD
    title = sheet.panel.full_title
    seeds = [row["seed"] for row in sheet.cells.values() if not pd.isna(row["seed"])]
    subtitle = f"the same {sheet.images} latents in every cell" + (f" (seed {min(seeds)})" if seeds else "")
    width = left + len(sheet.budgets) * (cell_w + _PAD) - _PAD + _MARGIN
    width = max(width, 2 * _MARGIN + max(_width(title, _TITLE, True), _width(subtitle, _SMALL)))
    canvas = Image.new("RGB", (width, _HEAD + _MARGIN + len(names) * line_h), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, 16), title, INK, _font(_TITLE, True))
    pen.text((_MARGIN, 42), subtitle, GREY, _font(_SMALL))
    for j, budget in enumerate(sheet.budgets):
        x = left + j * (cell_w + _PAD)
        pen.text((x, _HEAD), f"NFE ≤ {budget}", INK, _font(_BODY, True))
        for i, curve in enumerate(sheet.curves):
            box = (x, _HEAD + _MARGIN + i * line_h, cell_w, cell_h)
            _draw_cell(canvas, box, sheet, sheet.cells.get((curve, budget)))
    for i, (curve, lines) in enumerate(zip(sheet.curves, names, strict=True)):
        look, y = sheet.panel.looks[curve], _HEAD + _MARGIN + i * line_h
        pen.rectangle((_MARGIN, y, _MARGIN + 3, y + cell_h - 1), fill=look.colour)
        top = y + cell_h / 2 - len(lines) * (_BODY + 5) / 2
        for k, line in enumerate(lines):
            pen.text((_MARGIN + 13, top + k * (_BODY + 5)), line, look.colour, _font(_BODY, k == 0))
    return canvas


def _name_lines(curve: str) -> list[str]:
    """The solver, then its options."""
    solver, _, options = curve.partition(" ")
    return [*_wrap(solver, 190, _BODY), *(_wrap(options, 190, _BODY) if options else [])]


def _draw_cell(canvas: Image.Image, box: tuple[int, int, int, int], sheet: Sheet, row: dict | None) -> None:
    """Images with NFE and FID beneath, or a light panel that says why there are none."""
    x, y, width, height = box
    pen = ImageDraw.Draw(canvas)
    why = "not run"
    if row is not None and row["status"] != "done":
        why = f"{row['status']}: {shown_name(row['reason'] or 'no reason recorded')}"
    elif row is not None:
        caption = f"NFE {row['nfe']:.4g}   FID {row['fid']:#.3g}".rstrip(".")
        pen.text((x, y + height + 5), caption, GREY, _font(_SMALL))
        path = sheet.strips.get(row["run_key"])
        if path and (strip := as_rgb(read_png(path))):
            size, step = strip.height, sheet.edge + _GAP
            how = Image.Resampling.NEAREST if size <= _LARGEST else Image.Resampling.LANCZOS
            for k in range(sheet.images):
                image = strip.crop((k * size, 0, (k + 1) * size, size)).resize((sheet.edge, sheet.edge), how)
                down, across = divmod(k, _PER_ROW)
                canvas.paste(image, (x + across * step, y + down * step))
            return
        why = "samples not readable, or too large"
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=_BLANK, outline=_RULE)
    lines = _wrap(why, width - 20, _SMALL)[: max(1, (height - 12) // (_SMALL + 4))]
    for k, line in enumerate(lines):
        pen.text((x + 10, y + 8 + k * (_SMALL + 4)), line, GREY, _font(_SMALL))


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def _width(text: str, size: int, bold: bool = False) -> int:
    return round(_font(size, bold).getlength(text))


def _wrap(text: str, width: int, size: int) -> list[str]:
    """Break a text at spaces into lines of at most `width` pixels; a longer word stays whole."""
    lines = [""]
    for word in text.split():
        wider = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _width(wider, size, True) <= width:
            lines[-1] = wider
        else:
            lines.append(word)
    return lines
