"""Rows that compare with no others are kept apart in reports, named and counted."""

from seedsbench.report.main import build_report, compare_studies
from seedsbench.report.pareto import panels, quarantined
from seedsbench.report.rows import of_newest_version
from tests.support.studies import frame, make_row, write_study

NEW = [make_row("heun", budget, numerics_version=2) for budget in (10, 20, 50)]


def test_rows_of_an_older_version_are_left_out_but_for_the_table_of_all(tmp_path):
    old = [make_row("heun", budget, seed=1, fid=0.001, numerics_version=1) for budget in (10, 20)]
    unsaid = make_row("ddim", 20)
    report = build_report(write_study(tmp_path / "s", [*NEW, *old, unsaid]))
    assert set(report.rows["run_key"]) == {row["run_key"] for row in [*NEW, unsaid]}
    (fault,) = report.faults
    assert fault.file == "2 row(s) of numerics_version 1"
    assert all(row["run_key"] in fault.why for row in old)
    assert "0.001" not in report.summary
    table = (tmp_path / "s" / "table.csv").read_text()
    assert all(row["run_key"] in table for row in [*NEW, *old, unsaid])
    assert fault.file in (tmp_path / "s" / "report.html").read_text()
    assert fault.file in report.table_md.read_text()


def test_studies_of_one_version_each_are_still_compared(tmp_path):
    old = [make_row("heun", budget, numerics_version=1) for budget in (10, 20, 50)]
    studies = [write_study(tmp_path / name, rows) for name, rows in (("a", old), ("b", NEW))]
    told, _ = compare_studies(*studies)
    assert "3 cells in both.\nThe studies differ in numerics_version: 1 in a, 2 in b." in told


def test_many_rows_are_counted_and_some_named(tmp_path):
    old = [make_row("heun", budget, numerics_version=1) for budget in range(60, 72)]
    _, (fault,) = of_newest_version(frame(tmp_path, [*NEW, *old]))
    assert fault.file.startswith("12 row(s)")
    assert " and 7 more: " in fault.why


def test_rows_of_another_evaluator_have_a_panel_of_their_own_and_are_counted(tmp_path):
    other = make_row("heun", 10, seed=1, reference_id="r2")
    elsewhere = make_row("heun", 10, seed=1, extractor="values", extractor_id="v1", reference_id="r3")
    named = [
        make_row("heun", 10, seed=s, reference=f"{s}.npz", reference_id=f"own{s}", samples=9) for s in (2, 3)
    ]
    shown = panels(frame(tmp_path, [*NEW, other, elsewhere, *named]))
    (fault,) = quarantined(shown)
    assert fault._asdict() == {
        "file": "1 row(s) of another evaluator",
        "why": f"{other['run_key']}: reference_id r2, not r1 as most; in a panel of their own",
    }
    assert len(shown) == 5
