"""Build a study's report from its rows: tables, figures, sample sheets, one page. Imports no torch."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from seedsbench.report.compare import compare, names_of
from seedsbench.report.compare_files import outcome_sentence, write_comparison
from seedsbench.report.figures import write_figures
from seedsbench.report.html import write_html
from seedsbench.report.pareto import Panel, doubled, panels
from seedsbench.report.rows import RowFault, read_rows
from seedsbench.report.sheets import write_sheets
from seedsbench.report.summary import page_tables
from seedsbench.report.table import summary_text, write_csv, write_latex, write_markdown

_HELP = """\
Rebuild the report of a study from its rows. Needs no torch, GPU or weights: a study folder copied to a
laptop is enough. Every sweep does this at its end; run it again after deleting or copying rows.

reads   <study>/rows/*.json           a cell each (one solver, NFE budget, seed): done, skipped or failed
        <study>/samples/*.png         strips of the first images (optional)
writes  <study>/report.html           all of it on one page that needs no network
        <study>/table.csv, table.md   every row; the tables people read (best at each budget, ranks by FID)
        <study>/table.tex             solver x NFE for a paper (booktabs)
        <study>/figures/pareto.png    FID against measured NFE (and .svg, .pdf)
        <study>/figures/seconds.*     FID against sampling seconds; inception_score.*: IS against NFE
        <study>/figures/samples_*.png the same latents under every solver and budget

Two studies are compared: what both hold and by how much it differs, in <second>/compare/<first>/ or --out.
"""
_EXAMPLE = """\
example:  seedsbench-report results/2025-01-31_12-00-00
          seedsbench-report results/before results/after
"""


class StudyError(ValueError):
    """A folder that holds no study; the message says what would work."""


@dataclass(frozen=True)
class Report:
    """What was written, what could not be read, and a short table for the terminal."""

    table_md: Path
    pareto: Path
    html: Path
    sheets: list[Path]
    faults: list[RowFault]
    summary: str
    rows: pd.DataFrame

    @property
    def paths(self) -> list[Path]:
        """The files a person opens first, best first."""
        return [self.html, self.pareto, self.table_md, *self.sheets]


def build_report(study: Path, *, published: bool = False) -> Report:
    """Read `<study>/rows` and write tables, figures and sheets into the study folder.

    published: overlay published numbers on the Pareto figure (models with Inception features only).
    Raises StudyError where there is no readable row at all; every lesser fault is in `faults`.
    """
    study = Path(study)
    _check_folder(study)
    with FileLock(study / ".report.lock"):  # of two sweeps into one study, the last to end reports on both
        df, shown, faults = _rows_of(study)
        write_csv(df, study / "table.csv")
        write_markdown(df, shown, faults, study / "table.md")
        write_latex(shown, study / "table.tex")
        figures = write_figures(df, shown, study / "figures", overlay=published)
        sheets = write_sheets(shown, study, study / "figures")
        page = write_html(df, shown, faults, study, figures, sheets, page_tables(shown))
    return Report(study / "table.md", figures[0], page, sheets, faults, summary_text(df, shown), df)


def compare_studies(first: Path, second: Path, folder: Path | None = None) -> tuple[str, list[Path]]:
    """Write a comparison of two studies into a folder; the outcome in a sentence, and the files.

    folder: `<second>/compare/<first>` where None. Raises StudyError where either holds no readable row.
    """
    if first.resolve() == second.resolve():
        raise StudyError(f"{first} and {second} are one study: give two to compare, or one to report on")
    names = names_of(first, second)
    (rows, _, faults), (others, _, other_faults) = _rows_of(first), _rows_of(second)
    named = zip(names, (faults, other_faults), strict=True)
    found = compare(rows, others, names)
    folder = second / "compare" / first.resolve().name if folder is None else folder
    all_faults = [RowFault(f"{name}: {f.file}", f.why) for name, theirs in named for f in theirs]
    told = [f"{names[1]} compared with {names[0]}: {outcome_sentence(found)}", *found.notes]
    return "\n".join(told), write_comparison(found, all_faults, folder)


def _rows_of(study: Path) -> tuple[pd.DataFrame, list[Panel], list[RowFault]]:
    """The rows of a study, their panels and what is wrong with them; StudyError where there are none."""
    _check_folder(study)
    df, faults = read_rows(study)
    if df.empty:
        told = f": {faults[0].file} is {faults[0].why}" if faults else ""
        raise StudyError(f"no readable row among {len(faults)} files in {study / 'rows'}{told}")
    shown = panels(df)
    return df, shown, [*faults, *doubled(shown)]


def finish_sweep(study: Path, invocation: str, keys: Sequence[str], *, published: bool = False) -> int:
    """Report on a study whose sweep has ended, and print what became of it.

    invocation: the sweep's; keys: of the rows that it made or found. Returns 1 if a row that it made has
    failed, if none of its rows is done, and if one is gone. A report that cannot be made is said and costs no
    row; it can be made again with seedsbench-report.
    """
    try:
        report = build_report(study, published=published)
    except (StudyError, OSError) as error:
        print(f"seedsbench: no report: {error}", file=sys.stderr)
        return 1
    _show(report)
    df = report.rows
    ours = df["invocation"] == invocation if "invocation" in df else False
    failed = int(((df["status"] == "failed") & ours).sum())
    if failed:
        print(
            f"{failed} cell(s) failed: the reasons are in {report.table_md}, the tracebacks in "
            f"{study / 'seedsbench.log'}; debug=true stops at the first",
            file=sys.stderr,
        )
    known = df.set_index("run_key")["status"]
    gone = [key for key in keys if key not in known]
    if gone:
        print(f"{len(gone)} row(s) of this run are gone or damaged: {', '.join(gone[:5])}", file=sys.stderr)
    none_done = bool(keys) and not (known.reindex(keys) == "done").any()
    if none_done:
        print("no cell of this run is done", file=sys.stderr)
    return int(failed > 0 or bool(gone) or none_done)


def _show(report: Report) -> None:
    print(f"\n{report.summary}\n")
    for path in report.paths:
        print(path)
    for fault in report.faults:
        print(f"problem: {fault.file}: {fault.why}", file=sys.stderr)


def _check_folder(study: Path) -> None:
    """Refuse what is not a study, naming the nearest thing that is."""
    if not study.is_dir():
        raise StudyError(f"no such folder: {study}. Give a study folder, as <results_dir>/<study>")
    if (study / "rows").is_dir():
        if not any((study / "rows").glob("*.json")):
            raise StudyError(f"{study / 'rows'} holds no *.json rows: no cell of this study has finished yet")
        return
    hint = "a study holds rows/<run_key>.json, which seedsbench writes"
    if inside := sorted(str(rows.parent) for rows in study.glob("*/rows")):
        hint = f"studies in it: {', '.join(inside[:5])}"
    if study.resolve().name == "rows":
        hint = f"give the folder above it: {study.resolve().parent}"
    raise StudyError(f"{study} is not a study folder (it has no rows/); {hint}")


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 when a report was written, 2 when there was nothing to report on."""
    parser = argparse.ArgumentParser(
        "seedsbench-report", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.description, parser.epilog = _HELP, _EXAMPLE
    parser.add_argument("study", type=Path, nargs="+", help="folder, <results_dir>/<study>; two: compare")
    parser.add_argument("--out", type=Path, help="folder for the comparison of two studies")
    parser.add_argument("--published", action="store_true", help="overlay published FIDs on the figure")
    given = parser.parse_args(argv)
    n = len(given.study)
    try:
        if n > 2:
            raise StudyError(f"{n} studies: give one to report on it, or two to compare them")
        if n == 2 and given.published:
            raise StudyError("--published is for the report of one study, not for two compared")
        if n == 1 and given.out is not None:
            raise StudyError("--out is for two studies compared; a report lies in its study's folder")
        if n == 1:
            _show(build_report(given.study[0], published=given.published))
        else:
            first, second = given.study
            told, written = compare_studies(first, second, given.out)
            print("\n".join([told, *map(str, written)]))
    except (StudyError, OSError) as error:
        print(f"seedsbench-report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
