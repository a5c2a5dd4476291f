"""The report of a study: what it leaves, of odd studies too, and its command."""

import pytest

from seedsbench.report.main import build_report, main
from tests.support.studies import make_row, report_of, usual_rows, write_study


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    report = report_of(tmp_path_factory.mktemp("usual"), usual_rows(), sheets=True)
    return report.html.parent, report


def test_a_study_leaves_everything_it_promises(usual):
    study, report = usual
    assert [path.name for path in report.sheets] == ["samples_glyphs_edm.png"]
    assert report.paths[0] == study / "report.html"
    table = report.table_md.read_text()
    assert "fits no step of seeds3: use 4 or more" in table
    assert "non-finite sample at step 3" in table
    assert "done x 3" in table
    assert " ± " in table
    lines = report.summary.splitlines()
    columns = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert columns["karras_sde"][1] == "failed"
    assert columns["dpmpp_2m"][1].endswith("*")
    assert "!" not in report.summary
    assert "Warnings" not in table
    assert "Warnings <" not in report.html.read_text()


def test_two_builds_give_the_same_bytes(usual):
    study, _ = usual
    files = [path for path in study.rglob("*.*") if path.parent.name not in ("rows", "samples")]
    before = {path: path.read_bytes() for path in files}
    wanted = {"report.html", "table.csv", "table.md", "table.tex", "samples_glyphs_edm.png"}
    wanted |= {"pareto.png", "pareto.svg", "pareto.pdf"}
    assert wanted <= {path.name for path in files if before[path]}
    for path in files:
        path.unlink()
    build_report(study)
    assert [path.name for path in files if path.read_bytes() != before[path]] == []


def test_cells_with_an_fid_of_zero_are_listed_not_drawn(tmp_path):
    report = report_of(tmp_path, [make_row("heun", 10, fid=0.0), make_row("heun", 20)])
    assert "Finished with an FID of 0" in report.table_md.read_text()
    assert "Finished with an FID of 0" in report.html.read_text()
    assert "Not shown: 1 without a positive FID" in report.pareto.with_suffix(".svg").read_text()


BARE = {"run_key": "a", "status": "done", "solver": "heun"}
ODD = {
    "nothing finished": [make_row("heun", 9, status=status) for status in ("skipped", "failed")],
    "one row": [make_row("heun", 20)],
    "nothing but zero": [make_row("heun", 20, fid=0), make_row("heun", 40, fid=0.0)],
    "one budget": [make_row("euler", 20), make_row("heun", 20)],
    "few columns": [BARE | {"fid": 1.0, "nfe": 19}],
    "only a status": [BARE | {"status": "failed"}],
}


@pytest.mark.parametrize("rows", ODD.values(), ids=ODD)
def test_odd_studies_get_a_report(tmp_path, rows):
    report = report_of(tmp_path, rows)
    assert report.pareto.stat().st_size > 0
    assert report.table_md.read_text().startswith("# study\n")
    assert "<h1>study</h1>" in report.html.read_text()


def test_the_command_prints_paths_and_errors_that_help(usual, tmp_path, capsys):
    study, _ = usual
    assert main([str(study)]) == 0
    out = capsys.readouterr().out
    assert str(study / "figures" / "pareto.png") in out
    assert str(study / "table.md") in out
    (tmp_path / "empty" / "rows").mkdir(parents=True)
    other = write_study(tmp_path / "other", [make_row("heun", 20)])
    wrong = {
        (tmp_path / "none",): "no such folder",
        (tmp_path / "empty",): "no cell of this study",
        (study / "rows",): str(study),
        (study.parent,): f"studies in it: {study}",
        (study, other, study): "3 studies: give one to report on it, or two to compare them",
        (study, study): "are one study",
        (study, tmp_path / "none"): "no such folder",
        (study, other, "--published"): "one study",
        (study, "--out", "x"): "two studies",
    }
    for arguments, says in wrong.items():
        assert main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "rows/*.json" in capsys.readouterr().out
