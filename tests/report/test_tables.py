"""The tables that judge, in table.md, table.tex and on the page; what keeps rows from sharing a curve."""

import re

import numpy as np
import pytest

from seedsbench.report.draw import prepare
from seedsbench.report.main import build_report
from seedsbench.report.pareto import panels
from seedsbench.report.points import points
from seedsbench.report.summary import page_tables
from tests.report.test_html import Page
from tests.report.test_report import make_row, read, write_study


def repeated(solver, budget, fids, **changes):
    return [make_row(solver, budget, seed=k, fid=fid, **changes) for k, fid in enumerate(fids)]


def panels_of(tmp_path, rows):
    return panels(read(write_study(tmp_path / "study", rows, sheets=False))[0])


def test_repeats_keep_their_lowest_beside_mean_and_spread(tmp_path):
    rows = [*repeated("heun", 20, [1.0, 2.0, 4.5]), make_row("ddim", 20, fid=3.0)]
    found = points(panels_of(tmp_path, rows)[0].rows).set_index("curve")
    assert found["fid_min"].to_dict() == {"heun": 1.0, "ddim": 3.0}
    study = tmp_path / "study"
    build_report(study)
    table = (study / "table.md").read_text()
    cells = {line.split("|")[1].strip(): line.split("|") for line in table.splitlines() if "| done" in line}
    header = next(line for line in table.splitlines() if line.startswith("| solver ")).split("|")
    lowest = [name.strip() for name in header].index("lowest")
    assert cells["heun"][lowest].strip() == "1.0"
    assert cells["ddim"][lowest].strip() == "-"  # one seed has no lowest of its own
    latex = (study / "table.tex").read_text()
    assert latex.count(r"\toprule") == 2
    assert "lowest of 1--3 runs" in latex
    assert len(list((study / "rows").glob("*.json"))) == 4


def test_the_page_judges_solvers_by_budget_by_area_and_in_a_matrix(tmp_path):
    rows = [
        row
        for b in (10, 20, 50)
        for s, f in (("heun", 9.0), ("ddim", 5.0))
        for row in repeated(s, b, [f, f + 0.1])
    ]
    rows.append(make_row("heun", 3, status="skipped", reason="too small"))
    shown = panels_of(tmp_path, [*rows, *(make_row(s, 20, regime="vp") for s in ("heun", "ddim"))])
    tables = {table.title: table for table in page_tables(shown)}
    best = tables["Best solver at each budget"]
    assert best.header[0] == "panel"
    assert [line[1:3] for line in best.lines if line[0] == "EDM"] == [[b, "ddim"] for b in ("10", "20", "50")]
    assert {line[-1] for line in best.lines if line[0] == "EDM"} == {"yes"}
    assert {line[-1] for line in best.lines if line[0] == "VP"} == {"one seed: cannot be said"}
    assert [line[2] for line in tables["Rank by area under the curve"].lines] == ["ddim", "heun"]
    matrix = tables["FID, solver by NFE budget"]
    assert matrix.header == ["panel", "solver", "NFE ≤ 3", "NFE ≤ 10", "NFE ≤ 20", "NFE ≤ 50"]
    (heun,) = (line for line in matrix.lines if line[:2] == ["EDM", "heun"])
    assert heun[2] == "skipped"
    assert re.fullmatch(r"9\.05\d* ± 0\.07\d* \(lowest 9\.00\d*\)", heun[3])
    assert all(len(line) == len(table.header) for table in tables.values() for line in table.lines)
    report = build_report(tmp_path / "study")
    page = Page(report.html.read_text())
    assert all(title in page.text for title in tables)
    assert {"href": "#tables"} in page.of("a")


def test_scores_beside_fid_are_shown_where_rows_have_them(tmp_path):
    more = {"kid_mean": 0.00123, "kid_std": 0.0002, "precision": 0.75, "recall": 0.5}
    rows = [
        make_row("heun", 20, **more),
        make_row("ddim", 20, **more | {"precision": 0.25}),
        make_row("rk4", 20),
    ]
    (panel,) = panels_of(tmp_path, rows)
    assert set(panel.rows["curve"]) == {"heun", "ddim", "rk4"}  # a score is no setting
    (table,) = (table for table in page_tables([panel]) if table.title == "Other scores")
    assert table.header == ["solver", "NFE budget", "KID", "precision", "recall"]
    assert ["heun", "20", "0.00123 ± 0.0002", "0.750", "0.500"] in table.lines
    assert len(table.lines) == 2
    build_report(tmp_path / "study")
    assert "0.00123 ± 0.0002" in (tmp_path / "study" / "table.md").read_text()
    bare = panels_of(tmp_path / "bare", [make_row("heun", 20)])
    assert "Other scores" not in {table.title for table in page_tables(bare)}


@pytest.mark.parametrize(("samples", "said"), [(500, True), (9_999, True), (10_000, False)])
@pytest.mark.parametrize("extractor", ["inception-v3", "glyphs-64d"])
def test_the_bias_of_few_samples_is_said(tmp_path, samples, said, extractor):
    study = write_study(
        tmp_path / "s", [make_row("heun", 20, samples=samples, extractor=extractor)], sheets=False
    )
    shown = panels(read(study)[0])
    from seedsbench.report.summary import features_note

    assert ("biased upwards" in features_note(shown[0])) is said
    assert any("biased upwards" in table.note for table in page_tables(shown)) is said


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"network_precision": "bf16"}, "precision=bf16"),
        ({"compile": True}, "compile=True"),
        ({"afs": True}, "afs=True"),
        ({"seeding": "edm"}, "seeding=edm"),
    ],
)
def test_rows_of_another_arithmetic_have_curves_of_their_own(tmp_path, change, label):
    (panel,) = panels_of(
        tmp_path, [make_row("heun", 20), make_row("heun", 50), make_row("heun", 20, **change)]
    )
    assert sum(label in curve for curve in panel.rows["curve"]) == 1
    assert panel.rows["curve"].nunique() == 2
    # Said or left unsaid, a default is one.
    name = next(iter(change))
    default = {"network_precision": "fp32", "seeding": "philox"}.get(name, False)
    (panel,) = panels_of(tmp_path / "same", [make_row("heun", 20), make_row("heun", 50, **{name: default})])
    assert set(panel.rows["curve"]) == {"heun"}


def test_a_large_study_of_every_fault_gets_a_report_that_lists_them(tmp_path):
    solvers = ("seeds1", "seeds3", "heun", "ddim")
    rows = [
        make_row(s, b, seed=k, regime=r)
        for s in solvers
        for b in (10, 20)
        for k in range(5)
        for r in ("vp", "edm")
    ]
    for row in rows[::9]:
        row.update(status="failed", fid=None, reason="non-finite sample")
    for row in rows[4::13]:
        row.update(fid=float("nan"), unknown={"column": [1]})
    study = write_study(tmp_path / "s", rows, sheets=False)
    for path in sorted((study / "rows").glob("*.json"))[::10]:
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    (study / "rows" / "half.json").write_text('{"status": "do')
    report = build_report(study)
    listed = {problem.file for problem in report.faults}
    assert "half.json" in listed
    assert {path.name for path in (study / "rows").glob("copy*")} <= listed
    table = report.table_md.read_text()
    page = Page(report.html.read_text()).text
    assert all(name in table and name in page for name in listed)
    failed = [row["run_key"] for row in rows if row["status"] == "failed"]
    assert all(key in table for key in failed)
    unscored = [r["run_key"] for r in rows if r["status"] == "done" and np.isnan(r["fid"])]
    assert all(key in table for key in unscored)
    assert len(report.rows) == len(rows)


WARNING = "samples may have diverged: largest |x| is 12, the data's is 1, and 40% of the values are beyond it"


def warned(*rows):
    """Rows of (solver, budget, FID, warning)."""
    return [make_row(solver, budget, fid=fid, warning=warning) for solver, budget, fid, warning in rows]


def test_a_warned_row_is_shown_marked_listed_and_never_best(tmp_path):
    rows = warned(
        *(("heun", 10, 0.1, WARNING), ("euler", 10, 2.0, None)),
        *(("ddim", 20, 0.5, WARNING), ("euler", 20, 1.0, None)),
    )
    study = write_study(tmp_path / "study", rows, sheets=False)
    report = build_report(study)
    assert re.search(r"heun +0\.100! ", report.summary)
    assert re.search(r"euler +2\.00\* +1\.00\*", report.summary)
    assert "! 2 with a warning: see table.md." in report.summary
    table = (study / "table.md").read_text()
    assert "| 0.1 !" in table
    assert "| **2**" in table
    listed = table.split("## Warnings")[1]
    assert listed.count(WARNING.replace("|", "\\|")) == 2
    latex = (study / "table.tex").read_text()
    assert r"heun & $0.1\,!$ & --" in latex
    assert r"euler & $\mathbf{2}$ & $\mathbf{1}$" in latex
    assert "with a warning" in latex
    assert "!: with a warning" in (study / "figures" / "pareto.svg").read_text().replace("&#33;", "!")
    page = (study / "report.html").read_text()
    assert '<h3>Warnings <span class="count">2</span></h3>' in page
    drawn = prepare(panels(report.rows)[0]).points
    assert drawn.loc[drawn["front"], "curve"].tolist() == ["euler", "euler"]


def test_a_warning_that_all_have_takes_no_star_from_the_best(tmp_path):
    """A reference whose size is not known is so for every row; a second warning is one's own."""
    common = "the reference does not say its size"
    rows = warned(
        ("heun", 10, 0.1, f"{common}; {WARNING}"), ("euler", 10, 2.0, common), ("ddim", 10, 3.0, common)
    )
    report = build_report(write_study(tmp_path / "study", rows, sheets=False))
    assert re.search(r"heun +0\.100! ?", report.summary)
    assert re.search(r"euler +2\.00\*!", report.summary)
    assert "| **2 !** " in (tmp_path / "study" / "table.md").read_text()


def test_rows_of_before_have_no_warning(tmp_path):
    rows = [make_row("heun", 10), make_row("euler", 10)]
    report = build_report(write_study(tmp_path / "study", rows, sheets=False))
    assert "!" not in report.summary
    assert "Warnings" not in (tmp_path / "study" / "table.md").read_text()
    assert "Warnings <" not in (tmp_path / "study" / "report.html").read_text()
