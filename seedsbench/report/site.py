"""A static site over many studies: all their rows in one explorer, a page a study, and the rows as data.

It works from a folder or any web server's, and needs neither script from elsewhere nor network.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from seedsbench import __version__
from seedsbench.files.atomic import own_folder, write_atomic
from seedsbench.files.console import exit_code
from seedsbench.files.rows import COUNT, FLAG, KINDS, SEED
from seedsbench.report.html import text, write_html
from seedsbench.report.main import StudyError, report_into, say, study_rows
from seedsbench.report.pareto import panels
from seedsbench.report.rows import RowFault
from seedsbench.report.summary import number, page_tables
from seedsbench.report.texts import csv_bytes, printable, shown_name

_HELP = """\
Make a static web site over studies: an index with filters and the plot of all their cells, a page a study,
and the rows as one table. Needs no torch; put the folder on any web server, or open index.html.

reads   <study>/rows/*.json, samples/   of every study; a folder that holds studies stands for all of them
writes  <output>/index.html             every row of every study: plot, filters, paired differences, cells
        <output>/<study>/report.html    the study's own report, with its tables and figures
        <output>/rows.csv               every row, with the study it is of
        <output>/croissant.json         what rows.csv is, for machines (MLCommons Croissant 1.0)
"""
_EXAMPLE = """\
example:  seedsbench-site results/* --output site
"""


class Entry(NamedTuple):
    """A study of the site: its name, which is its folder's too, its rows, and what could not be read."""

    name: str
    folder: Path
    rows: pd.DataFrame
    faults: list[RowFault]


def build_site(
    studies: Sequence[Path], output: Path, *, title: str = "seedsbench", licence: str = ""
) -> list[Path]:
    """Write the site; the files to open first.

    licence: of the rows, as an address, for croissant.json. Raises StudyError where there is no study, or one
    without a readable row.
    """
    entries = [_read(path, name) for name, path in _named(studies).items()]
    for entry in entries:
        report_into(entry.folder, own_folder(output / entry.name))
    df = pd.concat([entry.rows.assign(study=entry.name) for entry in entries], ignore_index=True)
    faults = [fault._replace(file=f"{e.name}: {fault.file}") for e in entries for fault in e.faults]
    shown = panels(df)
    tables, studies_html = page_tables(shown), _list(entries)
    index = write_html(df, shown, faults, output / "index.html", title, tables=tables, studies=studies_html)
    df.insert(0, "study", df.pop("study"))
    table = csv_bytes(df)
    write_atomic(output / "rows.csv", table)
    described = json.dumps(_croissant(df, table, title, licence), indent=2, sort_keys=True, ensure_ascii=True)
    write_atomic(output / "croissant.json", f"{described}\n".encode())
    return [index, output / "rows.csv", output / "croissant.json"]


def _named(given: Sequence[Path]) -> dict[str, Path]:
    """The studies among the folders given and within them, by a name that no other has."""
    found: list[Path] = []
    for path in given:
        if (path / "rows").is_dir():
            found.append(path)
        elif path.is_dir():
            found += sorted(rows.parent for rows in path.glob("*/rows") if rows.is_dir())
    if not found:
        hint = "a study holds rows/<run_key>.json, which seedsbench writes"
        raise StudyError(f"no study among {', '.join(map(str, given))}: {hint}")
    named: dict[str, Path] = {}
    for path in dict.fromkeys(path.resolve() for path in found):
        name = re.sub(r"[^\w.-]+", "-", shown_name(path.name)).strip("-.") or "study"
        while name.lower() in {other.lower() for other in named}:  # some file systems know no case
            name += "-2"
        named[name] = path
    return named


def _read(path: Path, name: str) -> Entry:
    rows, _, faults = study_rows(path)
    return Entry(name, path, rows, faults)


def _list(entries: Sequence[Entry]) -> str:
    """The studies as a section of HTML: what each is of, and where its report is."""
    head = [
        "study",
        "cells",
        "done",
        "models",
        "regimes",
        "solvers",
        "NFE budgets",
        "samples",
        "computed (UTC)",
    ]
    lines = []
    for entry in entries:
        rows = entry.rows
        name = f'<a href="{text(quote(entry.name))}/report.html">{text(entry.name)}</a>'
        times = sorted(time[:10] for time in set(rows["time_utc"].dropna()))
        told = [
            *(str(len(rows)), str(int((rows["status"] == "done").sum()))),
            *(_values(rows["model"]), _values(rows["regime"]), str(rows["solver"].nunique())),
            *(_values(rows["nfe_budget"], ".0f"), _values(rows["samples"], ",.0f")),
            " to ".join(dict.fromkeys([*times[:1], *times[-1:]])),
        ]
        lines.append(f"<tr><td>{name}</td>{''.join(f'<td>{text(cell)}</td>' for cell in told)}</tr>")
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        '<section id="studies" class="static"><h2>Studies</h2><p class="note">All rows as a table: '
        '<a href="rows.csv">rows.csv</a>, described in <a href="croissant.json">croissant.json</a>.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Studies"><table><thead><tr>'
        f"{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></section>"
    )


def _values(column: pd.Series, spec: str = "") -> str:
    """The distinct values of a column, or how many there are."""
    found = sorted(set(column.dropna()))
    return ", ".join(number(value, spec) for value in found) if len(found) <= 6 else f"{len(found)}"


def _croissant(df: pd.DataFrame, table: bytes, title: str, licence: str) -> dict[str, Any]:
    """rows.csv as a Croissant 1.0 data set (MLCommons)."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"rows/{name}",
            "name": f"rows/{name}",
            "dataType": _data_type(str(name), df[name]),
            "source": {"fileObject": {"@id": "rows.csv"}, "extract": {"column": str(name)}},
        }
        for name in df
    ]
    file = {
        **{"@type": "cr:FileObject", "@id": "rows.csv", "name": "rows.csv", "contentUrl": "rows.csv"},
        **{"encodingFormat": "text/csv", "sha256": hashlib.sha256(table).hexdigest()},
    }
    return {
        "@context": {
            **{"@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/"},
            **{"cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/"},
            **{"conformsTo": "dct:conformsTo", "recordSet": "cr:recordSet", "field": "cr:field"},
            **{"dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "source": "cr:source"},
            **{"fileObject": "cr:fileObject", "extract": "cr:extract", "column": "cr:column"},
        },
        "@type": "sc:Dataset",
        "name": printable(title),
        "description": (
            f"{len(df)} cells of diffusion samplers: one solver at one budget of network evaluations each, "
            "with its scores. Made by seedsbench."
        ),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        **({"license": licence} if licence else {}),
        "version": __version__,
        "distribution": [file],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}],
    }


def _data_type(name: str, column: pd.Series) -> str:
    kind = KINDS.get(name)
    if kind is FLAG:
        return "sc:Boolean"
    if kind in (COUNT, SEED):
        return "sc:Integer"
    return "sc:Float" if pd.api.types.is_numeric_dtype(column) else "sc:Text"


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 when a site was written, 2 when there was no study."""
    return exit_code("seedsbench-site", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser("seedsbench-site", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description, parser.epilog = _HELP, _EXAMPLE
    parser.add_argument("study", type=Path, nargs="+", help="study folders, or folders of studies")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the site; made if it is not there"
    )
    parser.add_argument("--licence", default="", help="of the rows, as an address: for croissant.json")
    parser.add_argument("--title", default="seedsbench", help="heading of the index")
    given = parser.parse_args(argv)
    try:
        written = build_site(given.study, given.output, title=given.title, licence=given.licence)
    except BrokenPipeError:
        raise
    except (StudyError, OSError) as error:
        say(f"seedsbench-site: {error}", sys.stderr)
        return 2
    say("\n".join(map(str, written)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
