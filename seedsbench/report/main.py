"""Build a study's report from its rows: tables, figures, sample sheets, one page. Imports no torch."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import pandas as pd
from filelock import FileLock

from seedsbench.files.atomic import own_folder, set_aside
from seedsbench.files.console import exit_code
from seedsbench.report.compare import compare, names_of
from seedsbench.report.compare_files import differences_text, outcome_sentence, write_comparison
from seedsbench.report.figures import write_figures
from seedsbench.report.html import write_html
from seedsbench.report.html_data import strip_uris
from seedsbench.report.pareto import Panel, doubled, panels, quarantined
from seedsbench.report.rows import RowFault, of_newest_version, read_rows
from seedsbench.report.sheets import write_sheets
from seedsbench.report.summary import page_tables
from seedsbench.report.table import summary_text, write_csv, write_latex, write_markdown, write_verdicts
from seedsbench.report.texts import printable

_HELP = """\
Rebuild the report of a study from its rows. Needs no torch, GPU or weights: a study folder copied to a
laptop is enough. Every sweep does this at its end; run it again after deleting or copying rows.

reads   <study>/rows/*.json           a cell each (one solver, NFE budget, seed): done, skipped or failed
        <study>/samples/*.png         strips of the first images (optional)
writes  <study>/report.html           all of it on one page that needs no network
        <study>/table.csv, table.md   every row; the tables people read (best at each budget, ranks by FID)
        <study>/table.tex             solver x NFE for a paper (booktabs)
        <study>/verdicts.csv          each two solvers at each budget: difference, its error, better or worse
        <study>/figures/pareto.png    FID against measured NFE (and .svg, .pdf)
        <study>/figures/seconds.*     FID against sampling seconds; inception_score.*: IS against NFE
        <study>/figures/guidance.*    FID against the scale of guidance, if swept; tradeoff.*: against IS
        <study>/figures/samples_*.png the same latents under every solver and budget

Two studies are compared: what both hold and by how much it differs, in <second>/compare/<first>/ or --out.
"""
_EXAMPLE = """\
example:  seedsbench-report results/2025-01-31_12-00-00
          seedsbench-report results/before results/after
"""
LOCK_SECONDS = 60.0
"""How long a report waits for another one of the same study."""


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
    _check_folder(study)
    with _locked(study / ".report.lock") as unlocked:
        return report_into(study, study, published=published, faults=unlocked)


def report_into(
    study: Path, folder: Path, *, published: bool = False, faults: Sequence[RowFault] = ()
) -> Report:
    """`build_report` of a study, written into any folder. faults: further ones to be told of."""
    every, df, shown, found = study_rows(study)
    found += faults
    write_csv(every, folder / "table.csv")
    write_markdown(df, shown, found, study.resolve().name, folder / "table.md")
    write_latex(shown, folder / "table.tex")
    write_verdicts(shown, folder / "verdicts.csv")
    drawn = own_folder(folder / "figures")
    figures = write_figures(df, shown, drawn, overlay=published)
    sheets = write_sheets(shown, study, drawn)
    strips = strip_uris(list(df["run_key"][df["status"] == "done"]), study / "samples")
    page, title = folder / "report.html", study.resolve().name
    write_html(df, shown, found, page, title, figures, sheets, page_tables(shown), strips)
    return Report(folder / "table.md", figures[0], page, sheets, found, summary_text(df, shown), df)


@contextmanager
def _locked(path: Path) -> Iterator[list[RowFault]]:
    """Of two sweeps into one study, the last to end reports on both. What is not a lock file is set aside.

    Where no lock is to be had, what is wrong: files are written whole, so a report without one is sound.
    """
    lock = FileLock(path, timeout=LOCK_SECONDS)
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            set_aside(path)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # filelock's Timeout is an OSError
        said = "; written without it, another report of the study at the same moment may show fewer rows"
        yield [RowFault(path.name, f"no lock to be had ({type(error).__name__}: {error}){said}")]
        return
    try:
        yield []
    finally:
        lock.release()


def compare_studies(first: Path, second: Path, folder: Path | None = None) -> tuple[str, list[Path]]:
    """Write a comparison of two studies into a folder; the outcome in words, and the files.

    folder: `<second>/compare/<first>` where None. Raises StudyError where either holds no readable row.
    """
    for study in (first, second):
        _check_folder(study)
    if first.resolve() == second.resolve():
        raise StudyError(f"{first} and {second} are one study: give two to compare, or one to report on")
    names = names_of(first, second)
    (_, rows, _, faults), (_, others, _, other_faults) = study_rows(first), study_rows(second)
    named = zip(names, (faults, other_faults), strict=True)
    found = compare(rows, others, names)
    if folder is None:
        folder = own_folder(own_folder(second / "compare") / first.resolve().name)
    all_faults = [RowFault(f"{name}: {f.file}", f.why) for name, theirs in named for f in theirs]
    told = [f"{names[1]} compared with {names[0]}: {outcome_sentence(found)}", *found.notes]
    told += ["", text, ""] if (text := differences_text(found)) else []
    return "\n".join(told), write_comparison(found, all_faults, folder)


def study_rows(study: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[Panel], list[RowFault]]:
    """All rows of a study, those to report on, their panels, and what is wrong; StudyError for no rows."""
    _check_folder(study)
    every, faults = read_rows(study)
    df, left = of_newest_version(every)
    if df.empty:
        told = f": {faults[0].file} is {faults[0].why}" if faults else ""
        raise StudyError(f"no readable row among {len(faults)} files in {study / 'rows'}{told}")
    shown = panels(df)
    return every, df, shown, [*faults, *left, *quarantined(shown), *doubled(shown)]


def finish_sweep(study: Path, invocation: str, keys: Sequence[str], *, published: bool = False) -> int:
    """Report on a study whose sweep has ended, and print what became of it.

    invocation: the sweep's; keys: of the rows that it made or found. Returns 1 if a row that it made has
    failed, if none of its rows is done, and if one is gone. A report that cannot be made is said and costs no
    row; it can be made again with seedsbench-report.
    """
    try:
        report = build_report(study, published=published)
    except (StudyError, OSError) as error:
        say(f"seedsbench: no report: {error}", sys.stderr)
        return 1
    _show(report)
    df = report.rows
    ours = df["invocation"] == invocation if "invocation" in df else False
    failed = int(((df["status"] == "failed") & ours).sum())
    if failed:
        places = f"the reasons are in {report.table_md}, the tracebacks in {study / 'seedsbench.log'}"
        say(f"{failed} cell(s) failed: {places}; debug=true stops at the first", sys.stderr)
    known = df.set_index("run_key")["status"]
    gone = [key for key in keys if key not in known]
    if gone:
        print(f"{len(gone)} row(s) of this run are gone or damaged: {', '.join(gone[:5])}", file=sys.stderr)
    none_done = bool(keys) and not (known.reindex(keys) == "done").any()
    if none_done:
        print("no cell of this run is done", file=sys.stderr)
    return int(failed > 0 or bool(gone) or none_done)


def say(text: str, stream: TextIO) -> None:
    """Print what names of files and studies may be part of; what the stream has no character for is a '?'."""
    encoding = stream.encoding or "utf-8"
    print(printable(text).encode(encoding, "replace").decode(encoding), file=stream)


def _show(report: Report) -> None:
    say("\n".join([f"\n{report.summary}\n", *map(str, report.paths)]), sys.stdout)
    for fault in report.faults:
        say(f"problem: {fault.file}: {fault.why}", sys.stderr)


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
    return exit_code("seedsbench-report", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
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
            say("\n".join([told, *map(str, written)]), sys.stdout)
    except BrokenPipeError:
        raise
    except (StudyError, OSError) as error:
        say(f"seedsbench-report: {error}", sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
