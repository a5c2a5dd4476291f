"""A site over studies: what it holds, what it says of itself, and what it leaves alone."""

import csv
import hashlib
import json

import pytest

from seedsbench.report.site import main
from tests.support.pages import Page
from tests.support.studies import make_row, repeated, write_study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two studies of one name, and one without rows that can be read beside them; the site's folder."""
    folder = tmp_path_factory.mktemp("archive")
    write_study(folder / "one" / "s t<u>dy", repeated("heun", 20, [1.0, 1.1]), sheets=True)
    two = write_study(folder / "two" / "s t<u>dy", [make_row("ddim", 20, regime="vp"), make_row("heun", 10)])
    (two / "rows" / "half.json").write_text('{"a')
    before = everything(folder)
    assert (
        main([str(folder / "one"), str(two), "--output", str(folder / "site"), "--title", "All & more"]) == 0
    )
    assert {path: data for path, data in everything(folder).items() if "site" not in path} == before
    return folder / "site"


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_index_holds_all_rows_and_leads_to_a_report_of_each_study(made):
    page = Page((made / "index.html").read_text())
    links = [element["href"] for element in page.of("a") if "report.html" in element.get("href", "")]
    assert links == ["s-t-u-dy/report.html", "s-t-u-dy-2/report.html"]
    assert all((made / link).is_file() for link in links)
    assert len(page.data["rowCurve"]) == 4
    assert "All & more" in page.text
    assert "half.json" in page.text
    assert {panel["regime"] for panel in page.data["panels"]} == {"edm", "vp"}


def test_the_rows_are_one_table_that_is_described(made):
    data = (made / "rows.csv").read_bytes()
    lines = list(csv.DictReader(data.decode().splitlines()))
    assert [line["study"] for line in lines].count("s-t-u-dy") == 2
    assert len(lines) == 4
    told = json.loads((made / "croissant.json").read_text())
    (file,), (record,) = told["distribution"], told["recordSet"]
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert [field["source"]["extract"]["column"] for field in record["field"]] == list(lines[0])
    types = {field["name"].removeprefix("rows/"): field["dataType"] for field in record["field"]}
    assert (types["fid"], types["seed"], types["solver"]) == ("sc:Float", "sc:Integer", "sc:Text")


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(made):
    before = everything(made)
    studies = [str(made.parent / name) for name in ("one", "two")]
    assert main([*studies, "--output", str(made), "--title", "All & more"]) == 0
    after = everything(made)
    assert {name for name in after if after[name] != before.get(name)} == set()


def test_where_there_is_no_study_it_says_so(tmp_path, capsys):
    assert main([str(tmp_path), "--output", str(tmp_path / "site")]) == 2
    assert "no study among" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
