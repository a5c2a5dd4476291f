"""Sample sheets: solvers down, NFE budgets across, the same latents in every cell.

Drawn with Pillow, pixel by pixel: small images are enlarged by a whole factor without smoothing, so that
what one sees is what was sampled.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from seedsbench.report.pareto import Panel, panels, title_parts
from seedsbench.report.points import newest
from seedsbench.report.rows import records, take
from seedsbench.report.style import GREY, INK, look, solver_rank

PER_ROW, MOST = 5, 10  # images beside each other in a cell, images a cell
SMALLEST, LARGEST = 48, 96  # edge of a shown image, pixels
GAP, PAD, MARGIN = 3, 16, 24  # between images, cells, and around the sheet
HEAD, CAPTION = 78, 24  # heights of the title with column heads, and of the line under a cell
PANEL_COLOUR, RULE = "#f3f3f3", "#dddddd"
TITLE, BODY, SMALL = 17, 14, 12


@dataclass(frozen=True)
class Sheet:
    """What one sheet shows: a row for each (curve, budget), and how large an image is drawn."""

    panel: Panel
    cells: dict[tuple[str, str], dict]
    curves: list[str]
    budgets: list[str]
    images: int
    edge: tuple[int, int]


def write_sheets(df: pd.DataFrame, study: Path, folder: Path) -> list[Path]:
    """Write samples_<panel>.png for every panel that has a strip of samples; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for panel in panels(df):
        sheet = lay_out(panel, study / "samples")
        if sheet is not None:
            path = folder / f"samples_{panel.slug}.png"
            draw(sheet, study / "samples").save(path, compress_level=3)
            written.append(path)
    return written


def lay_out(panel: Panel, samples: Path) -> Sheet | None:
    """Choose rows (first seed) and sizes; None where no cell has samples to show."""
    rows = take(panel.rows, panel.rows["seed"].isna() | (panel.rows["seed"] == panel.rows["seed"].min()))
    rows = newest(rows).sort_values(["nfe_budget", "nfe"], kind="stable")
    rows = rows.assign(_done=rows["status"] != "done").sort_values("_done", kind="stable")
    cells: dict[tuple[str, str], dict] = {}
    for row in records(rows):
        cells.setdefault((str(row["curve"]), _budget(row)), row)
    done = [row["run_key"] for row in cells.values() if row["status"] == "done"]
    sizes = [size for key in done if (size := _strip_size(samples / f"{key}.png"))]
    if not sizes:
        return None
    n, width, height = min(size[0] for size in sizes), *max(size[1:] for size in sizes)
    who = {str(r["curve"]): solver_rank(r["solver"], r["solver_family"]) for r in cells.values()}
    curves = sorted(who, key=lambda curve: (who[curve], curve))
    # A budget at which nothing finished has nothing to look at; table.md holds the reasons.
    finished = {budget for (_, budget), row in cells.items() if row["status"] == "done"}
    budgets = sorted(finished, key=lambda text: float(text) if text != "-" else 0)
    return Sheet(panel, cells, curves, budgets, min(n, MOST), _edge(width, height))


def _budget(row: dict) -> str:
    value = row["nfe_budget"] if not pd.isna(row["nfe_budget"]) else row["nfe"]
    return "-" if pd.isna(value) else f"{value:g}"


def _strip_size(path: Path) -> tuple[int, int, int] | None:
    """(images, width, height) of a strip of square images, or None where it cannot be read."""
    try:
        with Image.open(path) as strip:
            width, height = strip.size
    except (OSError, ValueError):
        return None
    return (width // height, height, height) if width >= height else None


def _edge(width: int, height: int) -> tuple[int, int]:
    """Shown size of an image: enlarged by a whole factor to SMALLEST, or reduced to LARGEST."""
    if max(width, height) > LARGEST:
        return round(width * LARGEST / max(width, height)), round(height * LARGEST / max(width, height))
    factor = -(-SMALLEST // width)
    return width * factor, height * factor


def draw(sheet: Sheet, samples: Path) -> Image.Image:
    """The sheet as one image."""
    down = -(-sheet.images // PER_ROW)
    cell_w = min(sheet.images, PER_ROW) * (sheet.edge[0] + GAP) - GAP
    cell_w = max(cell_w, 150)
    cell_h = down * (sheet.edge[1] + GAP) - GAP
    names = [_wrap(curve, 190, BODY) for curve in sheet.curves]
    left = MARGIN + max(_width(line, BODY, True) for lines in names for line in lines) + 28
    line_h = cell_h + CAPTION + PAD
    width = left + len(sheet.budgets) * (cell_w + PAD) - PAD + MARGIN
    title, subtitle = _titles(sheet)
    width = max(width, 2 * MARGIN + _width(title, TITLE, True), 2 * MARGIN + _width(subtitle, SMALL))
    canvas = Image.new("RGB", (width, HEAD + MARGIN + len(names) * line_h), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 16), title, INK, _font(TITLE, True))
    pen.text((MARGIN, 42), subtitle, GREY, _font(SMALL))
    for j, budget in enumerate(sheet.budgets):
        x = left + j * (cell_w + PAD)
        pen.text((x, HEAD), f"NFE ≤ {budget}", INK, _font(BODY, True))
        for i, curve in enumerate(sheet.curves):
            box = (x, HEAD + MARGIN + i * line_h, cell_w, cell_h)
            _draw_cell(canvas, box, sheet, sheet.cells.get((curve, budget)), samples)
    for i, lines in enumerate(names):
        _draw_name(pen, lines, HEAD + MARGIN + i * line_h, cell_h, _look_of(sheet, sheet.curves[i]))
    return canvas


def _titles(sheet: Sheet) -> tuple[str, str]:
    seeds = [row["seed"] for row in sheet.cells.values() if not pd.isna(row["seed"])]
    seed = f" (seed {min(seeds)})" if seeds else ""
    return " · ".join(title_parts(sheet.panel)), f"the same {sheet.images} latents in every cell{seed}"


def _look_of(sheet: Sheet, curve: str) -> tuple[str, str]:
    row = next(row for (name, _), row in sheet.cells.items() if name == curve)
    style = look(row["solver"], row["solver_family"])
    return style.colour, style.text


def _draw_name(
    pen: ImageDraw.ImageDraw, lines: list[str], y: int, cell_h: int, colours: tuple[str, str]
) -> None:
    """A solver's name beside its row, with a bar of its colour."""
    pen.rectangle((MARGIN, y, MARGIN + 3, y + cell_h - 1), fill=colours[0])
    top = y + cell_h / 2 - len(lines) * (BODY + 5) / 2
    for k, line in enumerate(lines):
        pen.text((MARGIN + 13, top + k * (BODY + 5)), line, colours[1], _font(BODY, k == 0))


def _draw_cell(
    canvas: Image.Image, box: tuple[int, int, int, int], sheet: Sheet, row: dict | None, samples: Path
) -> None:
    """Images with NFE and FID beneath, or a light panel that says why there are none."""
    x, y, width, height = box
    pen = ImageDraw.Draw(canvas)
    why = "not run"
    if row is not None and row["status"] != "done":
        why = f"{row['status']}: {row['reason'] or 'no reason recorded'}"
    elif row is not None:
        pen.text((x, y + height + 5), _caption(row), GREY, _font(SMALL))
        images = _images(samples / f"{row['run_key']}.png", sheet)
        if images is not None:
            for k, image in enumerate(images):
                place = (x + k % PER_ROW * (sheet.edge[0] + GAP), y + k // PER_ROW * (sheet.edge[1] + GAP))
                canvas.paste(image, place)
            return
        why = "samples not readable"
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=PANEL_COLOUR, outline=RULE)
    lines = _wrap(why, width - 20, SMALL)[: max(1, (height - 12) // (SMALL + 4))]
    for k, line in enumerate(lines):
        pen.text((x + 10, y + 8 + k * (SMALL + 4)), line, GREY, _font(SMALL))


def _caption(row: dict) -> str:
    fid = "no FID" if pd.isna(row["fid"]) else f"FID {row['fid']:#.3g}".rstrip(".")
    return fid if pd.isna(row["nfe"]) else f"NFE {row['nfe']:.4g}   {fid}"


def _images(path: Path, sheet: Sheet) -> list[Image.Image] | None:
    """The first images of a strip at their shown size, or None where it cannot be read."""
    try:
        with Image.open(path) as opened:
            strip = opened.convert("RGB")
    except (OSError, ValueError):
        return None
    size = strip.height
    how = Image.Resampling.NEAREST if size <= LARGEST else Image.Resampling.LANCZOS
    n = min(sheet.images, strip.width // size)
    return [strip.crop((k * size, 0, (k + 1) * size, size)).resize(sheet.edge, how) for k in range(n)]


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
