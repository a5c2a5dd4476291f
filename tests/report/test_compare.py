"""Two studies compared: what meets what, what is said of the rest, and what the command leaves."""

import math

import numpy as np
import pandas as pd
import pytest

from seedsbench.report.compare import compare, names_of
from seedsbench.report.compare_files import MOST_LINES, _curves, _figure, differences_text
from seedsbench.report.main import compare_studies, main
from seedsbench.report.rows import read_rows
from seedsbench.report.style import SOLVER_FAMILIES
from tests.support.studies import frame, make_row, repeated, write_study

NAMES = ("before", "after")


def compared(folder, first, second):
    return compare(frame(folder, first), frame(folder, second), NAMES)


def test_differences_are_paired_over_the_seeds_of_both(tmp_path):
    first = [*repeated("heun", 20, [1.0, 1.2, 1.1]), make_row("ddim", 20, fid=2.0)]
    second = [*repeated("heun", 20, [2.0, 2.22]), make_row("ddim", 20, fid=1.0)]
    heun, ddim = sorted(compared(tmp_path, first, second).both, key=lambda pair: pair.curve, reverse=True)
    change = heun.verdict.difference
    assert (change.paired, change.n, heun.verdict.word) == (True, 2, "better")
    assert (change.value, change.error) == (pytest.approx(1.01), pytest.approx(0.01))
    stds = np.std([1.0, 1.2, 1.1], ddof=1), np.std([2.0, 2.22], ddof=1)
    assert change.unpaired == pytest.approx(math.sqrt(stds[0] ** 2 / 3 + stds[1] ** 2 / 2))
    assert ddim.verdict.difference.value == pytest.approx(-1.0)
    assert ddim.verdict.why == "one run: its error is unknown"


def test_studies_of_other_latents_are_not_paired(tmp_path):
    first = repeated("heun", 20, [1.0, 1.2, 1.1])
    for change in ({"seeding": "edm"}, {"numerics_version": 1}):
        (pair,) = compared(tmp_path, first, repeated("heun", 20, [2.0, 2.2, 2.1], **change)).both
        assert pair.verdict.difference.paired is False


def test_a_study_equals_itself_and_changed_rows_of_a_key_are_told(tmp_path):
    rows = [*repeated("heun", 20, [1.0, 1.2]), make_row("ddim", 10)]
    same = compared(tmp_path, rows, rows)
    assert {pair.keys for pair in same.both} == {"identical"}
    assert {pair.verdict.difference.value for pair in same.both} == {0.0}
    assert same.notes == []
    changed = compared(tmp_path, rows, [{**row, "fid": row["fid"] * 2} for row in rows])
    told = {pair.keys for pair in changed.both}
    assert told == {"2 shared with another score", "1 shared with another score"}


@pytest.mark.parametrize(
    ("first", "second", "differ_in"),
    [
        ({}, {"network_precision": "bf16"}, "precision: fp32 in before, bf16"),
        ({"grid_params": {"rho": 7.0}}, {"grid_params": {"rho": 5.0}}, "grid.rho: 7.0 in before, 5.0"),
        # The options of two grids are not told beside the grids.
        ({"grid_params": {"low": 0.1}}, {"grid": "vp", "grid_params": {"low": 1}}, "grid: edm in before, vp"),
    ],
)
def test_a_setting_that_is_one_in_each_study_is_said_and_bridged(tmp_path, first, second, differ_in):
    found = compared(tmp_path, *([make_row("heun", 20, **settings)] for settings in (first, second)))
    assert [pair.curve for pair in found.both] == ["heun"]
    assert found.notes == [f"The studies differ in {differ_in} in after."]


def test_a_setting_that_varies_within_a_study_keeps_cells_apart(tmp_path):
    first = [make_row("heun", 20, dtype=dtype) for dtype in ("float64", "float32")]
    found = compared(tmp_path, first, [make_row("heun", 20, dtype="float32")])
    assert [pair.curve for pair in found.both] == ["heun dtype=float32"]
    assert {pair.curve for pair in found.pairs} == {"heun dtype=float32", "heun dtype=float64"}


def test_parameters_tell_cells_apart_across_two_studies(tmp_path):
    one, two = (make_row("seeds3", 20, params={"c2": c}) for c in (0.3, 0.4))
    found = compared(tmp_path, [one], [two, {**one, "run_key": "other"}])
    assert [(pair.curve, pair.keys) for pair in found.both] == [("seeds3 c2=0.3", "none shared")]
    assert {pair.curve for pair in found.pairs if pair.first is None} == {"seeds3 c2=0.4"}


def two_studies(tmp_path):
    first = [row for s in ("heun", "ddim") for b in (10, 20) for row in repeated(s, b, [1.0, 1.1, 1.3])]
    second = [{**row, "fid": row["fid"] * 0.5, "run_key": row["run_key"][::-1]} for row in first[:9]]
    second.append(make_row("heun", 50, status="failed", reason="a | b </script>"))
    second.append(make_row("rk4", 20, samples=500))
    before, after = write_study(tmp_path / "before", first), write_study(tmp_path / "after", second)
    (after / "rows" / "half.json").write_text('{"a')
    return before, after


def test_the_command_writes_page_tables_and_figure(tmp_path, capsys):
    before, after = two_studies(tmp_path)
    assert main([str(before), str(after)]) == 0
    out = capsys.readouterr().out
    assert "3 cells in both" in out
    assert "3 better in after" in out
    assert "N = 500 against N = 2,000" in out
    folder = after / "compare" / "before"
    names = {"compare.html", "compare.md", "compare.csv", "pareto.png", "pareto.svg", "pareto.pdf"}
    assert {path.name for path in folder.iterdir()} == names
    assert all(str(folder / name) in out for name in names)
    table = (folder / "compare.md").read_text()
    assert "half.json" in table
    assert table.count("none shared") == 3
    page = (folder / "compare.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    csv = pd.read_csv(folder / "compare.csv")
    both = csv[csv["run_keys"].notna()]
    assert both["fid_second"].tolist() == pytest.approx((both["fid_first"] / 2).tolist())
    assert set(csv["samples"]) == {2000, 500}


@pytest.mark.slow
def test_the_second_writing_gives_the_same_bytes_in_a_folder_of_choice(tmp_path):
    before, after = two_studies(tmp_path)
    out = tmp_path / "out"
    once, twice = ({p: p.read_bytes() for p in compare_studies(before, after, out)[1]} for _ in "12")
    assert [path.name for path in once if once[path] != twice[path]] == []
    assert {path.parent for path in once} == {out}
    assert not (after / "compare").exists()


def test_the_figure_tells_the_studies_apart_and_keeps_each_solvers_look(tmp_path):
    found = compare(*(read_rows(study)[0] for study in two_studies(tmp_path)), NAMES)
    drawn = [_curves(panel) for panel in found.panels]
    assert drawn[0].panel.looks["heun"].family is SOLVER_FAMILIES["edm"]
    points = drawn[0].points
    assert set(points.loc[points["filled"], "strand"]).isdisjoint(points.loc[~points["filled"], "strand"])
    figure = _figure(found, drawn)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(NAMES)


def test_names_tell_two_folders_apart(tmp_path):
    one, two = tmp_path / "x" / "study", tmp_path / "y" / "study"
    assert names_of(one, two) == ("x/study", "y/study")
    assert names_of(tmp_path / "a", tmp_path / "b") == ("a", "b")


def test_what_differs_is_told_on_the_terminal_the_largest_change_first(tmp_path):
    names = [f"mine{i}" for i in range(MOST_LINES + 3)]
    first = [make_row(name, 10, fid=1.0) for name in [*names, "same"]]
    second = [make_row(name, 10, fid=1.1 + i / 100) for i, name in enumerate(names)]
    told = differences_text(compared(tmp_path, first, [*second, make_row("same", 10, fid=1.0)])).splitlines()
    assert told[0] == "FID by cell:"
    assert told[1].split() == ["solver", "NFE", "budget", *NAMES, "difference", "in", "%", "after", "is"]
    assert told[2].split()[:6] == [names[-1], "10", "1", "1.52", "+0.52", "+52.0"]
    assert len(told) == 2 + MOST_LINES + 1
    assert told[-1] == "  and 3 more: compare.md"
    assert differences_text(compared(tmp_path, first, first)) == "No FID differs."
    assert differences_text(compared(tmp_path, first[:1], first[1:2])) == ""
