"""The tables that judge, in table.md, table.tex and on the page."""

import itertools
import math
import re

import pandas as pd
import pytest

from seedsbench.report.compare import compare
from seedsbench.report.compare_files import write_comparison
from seedsbench.report.figures import prepare
from seedsbench.report.main import build_report
from seedsbench.report.pareto import panels, score_names
from seedsbench.report.ranking import ranking, winners
from seedsbench.report.rows import read_rows
from seedsbench.report.summary import features_note, fid, other_scores, page_tables
from seedsbench.report.texts import latex
from tests.report.test_html import Page
from tests.support.studies import frame, make_row, panels_of, repeated, report_of, write_study

WARNING = "samples may have diverged: largest |x| is 12, the data's is 1, and 40% of the values are beyond it"


def test_winners_are_judged_over_common_seeds(tmp_path):
    rows = repeated("heun", 20, [1.0, 1.01, 1.02]) + repeated("ddim", 20, [2.0, 2.02, 2.04])
    rows += [make_row("heun", 50, fid=0.5), make_row("ddim", 50, fid=0.4), make_row("ddim", 100, fid=0.3)]
    (panel,) = panels_of(tmp_path, rows)
    at20, at50 = winners(panel.points)  # at 100 nothing is there to beat
    assert (at20.budget, [point["curve"] for point in at20.points]) == (20, ["heun", "ddim"])
    (verdict,) = at20.verdicts.values()
    found = verdict.difference
    assert (verdict.word, found.paired, found.n, at20.near) == ("better", True, 3, [])
    assert (found.value, found.error) == (pytest.approx(1.01), pytest.approx(0.01 / 3**0.5))
    assert found.unpaired == pytest.approx(math.hypot(0.01, 0.02) / 3**0.5)
    assert [point["curve"] for point in at50.points] == ["ddim", "heun"]
    assert at50.verdicts[0, 1].why == "one run: its error is unknown"


def test_what_is_not_told_apart_from_the_best_is_marked(tmp_path):
    rows = repeated("heun", 20, [1.0, 1.1, 1.2]) + repeated("ddim", 20, [1.1, 1.0, 1.4])
    report = report_of(tmp_path, rows + repeated("euler", 20, [3.0, 3.11, 3.2]))
    assert re.search(r"heun +1\.10\*\n +euler +3\.10\n +ddim +1\.17~\n", report.summary)
    assert "~ not told apart" in report.summary
    assert "| ddim   | 20         | 20  | 1.17 ± 0.21 ~" in report.table_md.read_text()
    latex = report.html.with_name("table.tex").read_text()
    assert r"ddim & $\underline{1.17 \pm 0.2}$" in latex
    verdicts = pd.read_csv(report.html.with_name("verdicts.csv"))
    found = {(line["first"], line["second"]): line["verdict"] for line in verdicts.to_dict("records")}
    assert found == {
        ("heun", "ddim"): "inconclusive",
        ("heun", "euler"): "better",
        ("ddim", "euler"): "better",
    }
    assert set(verdicts["comparisons"]) == {3}


def test_trainings_are_runs_of_one_curve_and_their_spread_stands_apart(tmp_path):
    def trained(solver, level, ids=("m0", "m1", "m2")):
        return [
            make_row(solver, 20, seed=s, fid=level + t + s / 100, training=t, model_id=ids[t])
            for t in range(3)
            for s in range(3)
        ]

    (panel,) = panels_of(tmp_path, trained("heun", 1.0) + trained("ddim", 1.01))
    heun, _ = panel.points.to_dict("records")
    assert (heun["n"], heun["trainings"]) == (9, 3)
    assert (heun["fid"], heun["fid_std"]) == (pytest.approx(2.01), pytest.approx(0.01))
    assert heun["trainings_std"] == pytest.approx(1.0)
    assert fid(heun) == "2.010 ± 0.010 ± 1 (3 trainings)"
    (winner,) = panel.winners
    assert (winner.verdicts[0, 1].word, winner.verdicts[0, 1].difference.agree) == ("better", True)
    (panel,) = panels_of(tmp_path, trained("heun", 1.0) + trained("ddim", 1.01, ("m0", "m1", "other")))
    assert len(set(panel.points["curve"])) > 2  # two networks that both say they are training 2


def test_an_extrapolated_fid_is_told_with_its_error_and_the_bias_of_the_fid(tmp_path):
    rows = [make_row("heun", 20, fid=1.5, fid_infinity=1.2, fid_infinity_std=0.04), make_row("heun", 50)]
    header, lines = other_scores(panels_of(tmp_path, rows)[0])
    assert header == ["solver", "NFE budget", "FID-infinity", "FID less it"]
    assert lines == [["heun", "20", "1.2 ± 0.04", "0.300"]]


EXACT = {
    "fid": None,
    "fid_floor": None,
    "is_mean": None,
    "images_per_second": None,
    "extractor": "trajectory",
}


def exact_rows(scale=1.0):
    """Rows of metrics=trajectory: two solvers, two budgets, three seeds."""
    cells = itertools.product((("heun", 2.0), ("ddim", 5.0)), (10, 20), range(3))
    return [
        make_row(s, n, seed=k, trajectory_rms=scale * (c / n + k / 1000), trajectory_median=0.1, **EXACT)
        for (s, c), n, k in cells
    ]


def test_a_panel_without_fid_is_judged_by_the_distance_to_the_exact_path_under_its_own_name(tmp_path):
    report = report_of(tmp_path, exact_rows())
    told, page = report.table_md.read_text(), report.html.read_text()
    assert "| distance to the exact path |" in re.sub(" +", " ", told)
    assert "**0.2010 ± 0.0010**" in told
    assert "Geometric mean distance to the exact path" in told
    assert "median distance" in told
    assert report.summary.startswith("distance to the exact path, glyphs")
    assert re.search(r"heun +0\.201\* +0\.101\*", report.summary)
    assert "lowest distance to the exact path 0.101 by heun" in page
    texts = [told, report.summary, (tmp_path / "study" / "table.tex").read_text()]
    assert not any(re.search(r"(?<!with an )FID", text.replace("FID-infinity", "")) for text in texts)
    (curves,) = map(prepare, panels(read_rows(tmp_path / "study")[0]))
    assert curves.panel.axis == "distance to the exact path, RMS"
    assert curves.points["y"].min() == pytest.approx(0.101)


def test_rows_with_and_without_fid_are_panels_of_their_own(tmp_path):
    shown = panels_of(tmp_path, [*exact_rows(), make_row("heun", 10)])
    assert sorted(panel.score for panel in shown) == ["fid", "trajectory_rms"]
    assert [table.title for table in page_tables(shown)][1] == "Rank by area under the curve"
    assert score_names(shown) == "FID or distance to the exact path"


def test_distances_of_two_studies_are_compared_under_their_own_name(tmp_path):
    frames = [frame(tmp_path, exact_rows(scale)) for scale in (1.0, 2.0)]
    found = compare(*frames, ("a", "b"))
    assert [pair.verdict.difference.value for pair in found.both] == pytest.approx(
        [0.201, 0.101, 0.501, 0.251]
    )
    _, read, *_ = write_comparison(found, [], tmp_path)
    assert "distance to the exact path a" in read.read_text()
    assert "FID" not in read.read_text()


def test_ranking_is_the_geometric_mean_over_the_common_range(tmp_path):
    cells = itertools.product((("ddim", 100), ("heun", 50)), (10, 20, 50))
    rows = [make_row(s, n, nfe=float(n), fid=c / n) for (s, c), n in cells]
    (panel,) = panels_of(tmp_path, [*rows, make_row("euler", 20, nfe=20.0, fid=0.1)])
    low, high, ranked, left = ranking(panel.points)
    assert (low, high) == (10, 50)
    assert list(ranked) == ["heun", "ddim"]
    # FID = 100/n is a straight line on log axes: its mean is its value in the middle.
    assert ranked["ddim"] == pytest.approx(100 / (10 * 50) ** 0.5)
    assert left == ["euler"]


def test_latex_is_escaped_and_bolds_the_best(tmp_path):
    rows = [make_row("seeds3_asreleased", 20, fid=0.5), make_row("heun", 20, fid=0.25)]
    text = report_of(tmp_path, rows).html.with_name("table.tex").read_text()
    assert r"seeds3\_asreleased & $0.5$ \\" in text
    assert r"heun & $\mathbf{0.25}$ \\" in text
    assert text.count(r"\toprule") == 1
    escaped = r"a\_b\%\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert latex("a_b%&#{}~^\\") == escaped


def test_the_lowest_of_repeats_stands_beside_mean_and_spread(tmp_path):
    report = report_of(tmp_path, [*repeated("heun", 20, [1.0, 2.0, 4.5]), make_row("ddim", 20, fid=3.0)])
    table = re.findall(r"(?m)^\| solver .*|.*\| done.*", report.table_md.read_text())
    header, *cells = (re.split(r" *\| *", line) for line in table)
    lowest = header.index("lowest")
    assert {cell[1]: cell[lowest] for cell in cells} == {"heun": "1.0", "ddim": "-"}  # of one seed: no lowest
    latex = report.html.with_name("table.tex").read_text()
    assert latex.count(r"\toprule") == 2
    assert "lowest of 1--3 runs" in latex


def test_the_page_judges_solvers_by_budget_by_area_and_in_a_matrix(tmp_path):
    rows = [make_row("heun", 3, status="skipped", reason="too small")]
    rows += [make_row(s, 20, regime="vp") for s in ("heun", "ddim")]
    for b in (10, 20, 50):
        rows += repeated("heun", b, [9.0, 9.1]) + repeated("ddim", b, [5.0, 5.1])
    report = report_of(tmp_path, rows)
    tables = {table.title: table for table in page_tables(panels(report.rows))}
    best = tables["Best solver at each budget"]
    assert best.header[0] == "panel"
    found = [(panel, budget, solver, near) for panel, budget, solver, *_, near in best.lines]
    assert found == [("VP", "20", "heun", "-"), *(("EDM", b, "ddim", "none") for b in ("10", "20", "50"))]
    assert [line[2] for line in tables["Rank by area under the curve"].lines] == ["ddim", "heun"]
    matrix = tables["FID, solver by NFE budget"]
    assert matrix.header == ["panel", "solver", "NFE ≤ 3", "NFE ≤ 10", "NFE ≤ 20", "NFE ≤ 50"]
    (heun,) = (line for line in matrix.lines if line[:2] == ["EDM", "heun"])
    assert heun[2] == "skipped"
    assert re.fullmatch(r"9\.05\d* ± 0\.07\d* \(lowest 9\.00\d*\)", heun[3])
    assert all(len(line) == len(table.header) for table in tables.values() for line in table.lines)
    page = Page(report.html.read_text())
    assert all(title in page.text for title in tables)
    assert {"href": "#tables"} in page.of("a")


def test_scores_beside_fid_are_shown_where_rows_have_them(tmp_path):
    more = {"kid_mean": 0.00123, "kid_std": 0.0002, "precision": 0.75, "recall": 0.5}
    rows = [make_row("heun", 20, **more), make_row("ddim", 20, **more | {"precision": 0.25})]
    report = report_of(tmp_path, [*rows, make_row("rk4", 20)])
    (panel,) = panels(report.rows)
    assert set(panel.rows["curve"]) == {"heun", "ddim", "rk4"}  # a score is no setting
    (table,) = (table for table in page_tables([panel]) if table.title == "Other scores")
    assert table.header == ["solver", "NFE budget", "KID", "precision", "recall"]
    assert ["heun", "20", "0.00123 ± 0.0002", "0.750", "0.500"] in table.lines
    assert len(table.lines) == 2
    assert "0.00123 ± 0.0002" in report.table_md.read_text()
    bare = panels_of(tmp_path, [make_row("heun", 20)])
    assert "Other scores" not in {table.title for table in page_tables(bare)}


@pytest.mark.parametrize(("samples", "said"), [(500, True), (9_999, True), (10_000, False)])
@pytest.mark.parametrize("extractor", ["inception-v3", "glyphs-64d"])
def test_the_bias_of_few_samples_is_said(tmp_path, samples, said, extractor):
    shown = panels_of(tmp_path, [make_row("heun", 20, samples=samples, extractor=extractor)])
    assert ("biased upwards" in features_note(shown[0])) is said
    assert any("biased upwards" in table.note for table in page_tables(shown)) is said


@pytest.mark.slow
def test_a_large_study_of_every_fault_gets_a_report_that_lists_them(tmp_path):
    cells = itertools.product(("seeds1", "seeds3", "heun", "ddim"), (10, 20), range(5), ("vp", "edm"))
    rows = [make_row(s, b, seed=k, regime=r) for s, b, k, r in cells]
    for row in rows[::9]:
        row.update(status="failed", fid=None, reason="non-finite sample")
    for row in rows[4::13]:
        row.update(fid=float("nan"))  # no row
    study = write_study(tmp_path / "s", rows)
    for path in sorted((study / "rows").glob("*.json"))[::10]:
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    (study / "rows" / "half.json").write_text('{"status": "do')
    report = build_report(study)
    listed = {fault.file for fault in report.faults}
    assert "half.json" in listed
    assert {path.name for path in (study / "rows").glob("copy*")} <= listed
    table = report.table_md.read_text()
    page = Page(report.html.read_text()).text
    assert all(name in table and name in page for name in listed)
    failed = [row for row in rows if row["status"] == "failed"]
    none = [row for row in rows[4::13] if row not in failed]
    assert all(row["run_key"] in table for row in failed + none)
    assert {f"{row['run_key']}.json" for row in none} <= listed
    assert len(report.rows) == len(rows) - len(none)


def test_a_warned_row_is_shown_marked_listed_and_never_best(tmp_path):
    rows = [make_row("euler", 10, fid=2.0), make_row("euler", 20, fid=1.0)]
    rows += [make_row(s, b, fid=fid, warning=WARNING) for s, b, fid in (("heun", 10, 0.1), ("ddim", 20, 0.5))]
    report = report_of(tmp_path, rows)
    study = report.html.parent
    assert re.search(r"heun +0\.100! ", report.summary)
    assert re.search(r"euler +2\.00\* +1\.00\*", report.summary)
    assert "! 2 with a warning: see table.md." in report.summary
    table = report.table_md.read_text()
    assert "| 0.1 !" in table
    assert "| **2**" in table
    listed = table.split("## Warnings")[1]
    assert listed.count(WARNING.replace("|", "\\|")) == 2
    latex = (study / "table.tex").read_text()
    assert r"heun & $0.1\,!$ & --" in latex
    assert r"euler & $\mathbf{2}$ & $\mathbf{1}$" in latex
    assert "with a warning" in latex
    assert "!: with a warning" in (study / "figures" / "pareto.svg").read_text().replace("&#33;", "!")
    assert '<h3>Warnings <span class="count">2</span></h3>' in report.html.read_text()
    drawn = prepare(panels(report.rows)[0]).points
    assert drawn.loc[drawn["front"], "curve"].tolist() == ["euler", "euler"]


def test_a_warning_that_all_have_takes_no_star_from_the_best(tmp_path):
    """A reference whose size is not known is so for every row; a second warning is one's own."""
    common = "the reference does not say its size"
    rows = [make_row("euler", 10, fid=2.0, warning=common), make_row("ddim", 10, fid=3.0, warning=common)]
    rows.append(make_row("heun", 10, fid=0.1, warning=f"{common}; {WARNING}"))
    report = report_of(tmp_path, rows)
    assert re.search(r"heun +0\.100! ?", report.summary)
    assert re.search(r"euler +2\.00\*!", report.summary)
    assert "| **2 !** " in report.table_md.read_text()


def test_a_lone_solver_is_best_of_nothing_and_marks_are_explained_where_they_are(tmp_path):
    lone = report_of(tmp_path / "lone", [make_row("heun", 10), make_row("heun", 20)])
    assert "*" not in lone.summary
    assert "**" not in lone.table_md.read_text()
    assert r"\mathbf" not in lone.table_md.with_name("table.tex").read_text()
    one_budget = [make_row("heun", 10, fid=1.0), make_row("heun", 20, fid=0.5), make_row("ddim", 20, fid=0.6)]
    both = report_of(tmp_path / "both", one_budget)
    assert re.search(r"heun +1\.00 +0\.500\*\n", both.summary)
    assert "* best at its budget" in both.summary
    warned = [make_row("heun", 10), make_row("ddim", 10, warning=WARNING)]
    assert "* best at its budget, of those without a warning" in report_of(tmp_path / "w", warned).summary
