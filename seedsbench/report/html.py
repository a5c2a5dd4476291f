"""report.html: a study, or all studies of a site, on one page that needs no network, server or notebook.

Figures, sheets, rows, style and script are all inside the file; a content security policy forbids it to
load anything and to run any script but its own, whatever a row holds. The same rows give the same bytes.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from seedsbench.files.atomic import write_atomic
from seedsbench.report.html_data import (
    FIGURE_BYTES,
    MAX_IMAGES,
    SHEET_BYTES,
    asset,
    embed,
    figure_uri,
    payload,
)
from seedsbench.report.html_facts import environment, facts, text
from seedsbench.report.pareto import Panel, score_names
from seedsbench.report.rows import RowFault, status_counts, take, without_fid
from seedsbench.report.summary import JUDGED, TitledTable, number

_TITLES = {
    "pareto": "{} against measured NFE",
    "seconds": "{} against seconds",
    "inception_score": "IS against measured NFE",
    "guidance": "{} against the scale of guidance",
    "tradeoff": "{} against IS as the scale of guidance rises",
}
_ELSEWHERE = "<p>They are on the pages of the studies.</p>"


# In this order: each knows of those before it; the last starts everything.
SCRIPTS = ("page.js", "axes.js", "plot.js", "zoom.js", "legend.js", "pairs.js", "cells.js", "download.js")
SCRIPTS += ("state.js",)


def write_html(
    df: pd.DataFrame,
    shown: list[Panel],
    faults: Sequence[RowFault],
    path: Path,
    title: str,
    figures: Sequence[Path] = (),
    sheets: Sequence[Path] = (),
    tables: Sequence[TitledTable] = (),
    strips: Mapping[str, str] | None = None,
    studies: str = "",
    overlay: bool = False,
) -> Path:
    """Write a page of rows, and of figures and sheets already drawn; return its path.

    shown: the panels of df. figures: files of any kind; those of one stem are one figure, of which the page
    holds one version. strips: data URI of a cell's first samples, by run_key. studies: a section of HTML to
    come first. overlay: whether published scores, where there are any, are shown at first.
    """
    script = "".join(map(asset, SCRIPTS))
    style = asset("report.css")
    counts = [f'<span class="status {s}">{n} {s}</span>' for s, n in status_counts(df).items() if n]
    parts = {
        "study": text(title),
        "facts": facts(df),
        "counts": f"{len(df)} cell{'s' * (len(df) != 1)}: {' '.join(counts)}",
        "script": script,
        "style": style,
        "script_hash": policy_hash(script),
        "style_hash": policy_hash(style),
        "data": embed(payload(df, shown, dict(strips or {}), overlay=overlay)),
        "judged": text(JUDGED),
        "studies": studies,
        "studies_link": '<a href="#studies">Studies</a>' if studies else "",
        "tables": "".join(map(table_html, tables)),
        "tables_link": '<a href="#tables">Tables</a>' if tables else "",
        "trouble": _trouble(df, faults),
        "sheets": _ELSEWHERE if studies else _sheets(sheets, shown, path.parent),
        "figures": _ELSEWHERE if studies else _figures(figures, shown, path.parent),
        "environment": environment(df),
    }
    write_atomic(path, fill(asset("report.html"), parts).encode())
    return path


def fill(template: str, parts: dict[str, str]) -> str:
    """A template with its {{names}} replaced, in one pass: what stands in a part stays as it is."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def policy_hash(content: str) -> str:
    """The hash by which a content security policy admits an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def table_html(table: TitledTable) -> str:
    """A table as a section with a heading."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in table.header)
    note = f'<p class="note">{text(table.note)}</p>'
    body = "".join("<tr>" + "".join(f"<td>{text(c)}</td>" for c in line) + "</tr>" for line in table.lines)
    return (
        f'<section class="static"><h2>{text(table.title)}</h2>'
        f"{note if table.note else ''}"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _trouble(df: pd.DataFrame, faults: Sequence[RowFault]) -> str:
    groups = [
        ("Failed", take(df, df["status"] == "failed"), "reason"),
        ("Skipped", take(df, df["status"] == "skipped"), "reason"),
        ("Warnings", take(df, df["warning"].notna()), "warning"),
        ("Finished with an FID of 0", without_fid(df).assign(reason="in no figure"), "reason"),
    ]
    parts = [_by_reason(title, chosen, column) for title, chosen, column in groups if len(chosen)]
    if faults:
        lines = "".join(f"<li><code>{text(file)}</code> {text(why)}</li>" for file, why in faults)
        parts.append(f'<h3>Problems with files <span class="count">{len(faults)}</span></h3><ul>{lines}</ul>')
    return "".join(parts) or "<p>Every cell finished with a score, and every file of the study was read.</p>"


def _by_reason(title: str, chosen: pd.DataFrame, column: str) -> str:
    """One heading, one entry a reason, one button a cell (which opens its details)."""
    reasons: dict[str, list[str]] = {}
    for i, row in zip(chosen.index, chosen.to_dict("records"), strict=True):
        budget, seed = number(row["nfe_budget"], ".0f"), number(row["seed"], "d")
        label = f"{row['model']} {row['regime']} {row['solver']}, NFE {budget}, seed {seed}"
        button = f'<li><button type="button" class="link" data-cell="{i}">{text(label)}</button></li>'
        reasons.setdefault(row[column] or f"no {column} recorded", []).append(button)
    entries = [
        f'<details{" open" if len(cells) <= 5 else ""}><summary><span class="reason">{text(reason)}</span> '
        f'<span class="count">{len(cells)}</span></summary><ul class="cells">{"".join(cells)}</ul></details>'
        for reason, cells in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    return f'<h3>{title} <span class="count">{len(chosen)}</span></h3>' + "".join(entries)


def _sheets(sheets: Sequence[Path], shown: list[Panel], study: Path) -> str:
    named = {f"samples_{panel.slug}": panel for panel in shown}
    options, pictures = [], []
    for i, path in enumerate(sheets):
        panel = named.get(path.stem)
        title = panel.full_title if panel else path.stem
        uri = figure_uri([path], SHEET_BYTES // min(len(sheets), MAX_IMAGES)) if i < MAX_IMAGES else None
        solvers = ", ".join(dict.fromkeys(map(str, panel.rows["curve"]))) if panel else ""
        alt = f"Samples of {title}: the same latents in every cell, solvers down ({solvers}), budgets across"
        options.append(f'<option value="{i}">{text(title)}</option>')
        pictures.append(_picture(uri, alt, title, [path], study, hidden=i > 0))
    if not pictures:
        return "<p>No cell of this study has samples to show.</p>"
    chooser = f'<label>Sheet <select id="sheet-choice">{"".join(options)}</select></label>'
    return (
        f'<div class="controls">{chooser if len(options) > 1 else ""}'
        '<label><input type="checkbox" id="sheet-full"> full size</label></div>'
        f'<div id="sheet-viewer">{"".join(pictures)}</div>'
    )


def _figures(figures: Sequence[Path], shown: list[Panel], study: Path) -> str:
    stems: dict[str, list[Path]] = {}
    told, score = _best_in_words(shown), score_names(shown)
    for path in figures:
        stems.setdefault(path.stem, []).append(path)
    parts = []
    for i, (stem, versions) in enumerate(stems.items()):
        title = _TITLES.get(stem, stem.replace("_", " ")).format(score)
        uri = figure_uri(versions, FIGURE_BYTES // min(len(stems), MAX_IMAGES)) if i < MAX_IMAGES else None
        parts.append(_picture(uri, f"{title}. {told}", title, versions, study))
    return "".join(parts)


def _best_in_words(shown: list[Panel]) -> str:
    told = []
    for panel in shown[:6]:
        found = panel.points
        found = take(found, (found["fid"] > 0) & ~found["doubted"])
        if len(found):
            best = found.loc[found["fid"].idxmin()]
            by = f"{best['fid']:.3g} by {best['curve']} at NFE {best['nfe']:.4g}."
            lowest = f"lowest {panel.score_name} {by}"
            told.append(f"{panel.full_title}: {found['curve'].nunique()} curves, {lowest}")
    return " ".join(told) or "Nothing finished with a score."


def _picture(
    uri: str | None, alt: str, title: str, files: list[Path], study: Path, *, hidden: bool = False
) -> str:
    links = []
    for path in files:
        beside = path.relative_to(study).as_posix() if path.is_relative_to(study) else path.name
        links.append(f'<a href="{text(quote(beside))}">{text(path.name)}</a>')
    image = f'<img src="{uri}" alt="{text(alt)}">'
    image = image if uri else "<p>Too large for this page: open the file.</p>"
    return (
        f"<figure{' hidden' if hidden else ''}>"
        f'<div class="scroll paper" tabindex="0" role="region" aria-label="{text(title)}">{image}</div>'
        f"<figcaption>{text(title)}. Files: {', '.join(links)}</figcaption></figure>"
    )
