"""Whatever stands in a study's folder, the report is written: rows, names, files, and what is in its way."""

import csv
import itertools
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from filelock import FileLock
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from seedsbench.files.rows import KINDS
from seedsbench.report import main as report_main
from seedsbench.report.compare import compare
from seedsbench.report.figures import draw_figure
from seedsbench.report.html import write_html
from seedsbench.report.main import build_report, compare_studies, main
from seedsbench.report.pareto import panels
from seedsbench.report.rows import MOST_COLUMNS, read_rows
from seedsbench.report.sheets import write_sheets
from seedsbench.report.summary import page_tables
from seedsbench.report.table import write_csv, write_latex, write_markdown
from seedsbench.report.texts import latex, markdown
from tests.report.test_html import EVIL
from tests.support.machine import environment
from tests.support.pages import Page
from tests.support.studies import make_row, report_of, write_study

OUTPUTS = ("table.csv", "table.md", "table.tex", "report.html", "figures/pareto.png", "figures/pareto.svg")
MATH = ("$$x$$", r"$\frac{$", "$x^{", r"\$", "_x_", r"$\input{/etc/passwd}$")
LONG = "a" * 200_000
ODD = (
    *MATH,
    " ",
    "\u200b",
    "\x1b[31mred",
    "\ud800\0\uffff",
    "🎲" * 50,
    LONG,
    f" {LONG}b",
    "../../x",
    "-",
    "?",
)


@pytest.fixture
def bounded():
    """It takes less than 30 s of the processor, and at most 1 GB more than was needed before it."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def assert_whole(report):
    study = report.html.parent
    for name in OUTPUTS:
        assert (study / name).stat().st_size > 0
        assert (study / name).is_file()
        assert not (study / name).is_symlink()
    Image.open(report.pareto).verify()
    ElementTree.parse(report.pareto.with_suffix(".svg"))
    Page(report.html.read_text(encoding="utf-8"))


def png(width, height):
    """A picture of one bit a pixel that says it is so large; its data are zeros."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x01\0\0\0\0"
    packer, line = zlib.compressobj(), bytes((width + 7) // 8 + 1)
    data = b"".join([packer.compress(line) for _ in range(height)] + [packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


WRONG = {
    "fid null": ("fid", "null", "done without fid"),
    "fid text": ("fid", '"1.5"', "fid is '1.5', not a number"),
    "fid missing": ("fid", None, "done without fid"),
    "fid NaN": ("fid", "NaN", "NaN"),
    "fid Infinity": ("fid", "Infinity", "Infinity"),
    "fid 1e999": ("fid", "1e999", "1e999"),
    "fid true": ("fid", "true", "fid is True, not a number"),
    "fid -1": ("fid", "-1", "fid is -1, not a number from 0"),
    "fid 1e308": ("fid", "1e308", "fid is 1e+308"),
    "nfe text": ("nfe", '"20"', "nfe is '20'"),
    "is_mean text": ("is_mean", '"9"', "is_mean is '9'"),
    "seed -1": ("seed", "-1", "seed is -1, not a seed"),
    "seed 1.5": ("seed", "1.5", "seed is 1.5, not a seed"),
    "samples 2**60": ("samples", str(2**60), "not a whole number below 2**53"),
    "warning number": ("warning", "3", "warning is 3, not a text"),
    "another run_key": ("run_key", '"other"', "the row of another key, 'other'"),
    "deep": ("more", "[" * 100_000 + "]" * 100_000, "nested more than 50 deep"),
    "digits": ("more", "1" * 5_000, "a number of 5000 digits"),
}


def test_a_row_with_a_value_that_its_column_cannot_have_is_one_fault_and_never_best(tmp_path):
    good = [make_row("heun", 20, fid=1.0), make_row("ddim", 20, fid=2.0)]
    study = write_study(tmp_path / "study", good)
    for name, (field, value, _) in WRONG.items():
        row = {**make_row(f"wrong {name}", 20, fid=0.001), "run_key": name}
        row.pop(field, None)
        text = json.dumps(row)[1:-1] + (f', "{field}": {value}' if value else "")
        (study / "rows" / f"{name}.json").write_text(f"{{{text}}}")
    report = build_report(study)
    assert_whole(report)
    faults = {fault.file: fault.why for fault in report.faults}
    assert list(faults) == sorted(f"{name}.json" for name in WRONG)
    for name, (_, _, why) in WRONG.items():
        assert why in faults[f"{name}.json"], name
        assert len(faults[f"{name}.json"]) < 160
    assert sorted(report.rows["solver"]) == ["ddim", "heun"]
    assert re.search(r"heun +1\.00\*", report.summary)
    assert "wrong" not in report.summary
    assert "| **1**" in report.table_md.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("names", [("solver", "reason"), ("solver_params",), ("model", "labels")])
def test_a_text_is_never_a_formula_a_name_of_a_file_or_a_limit(tmp_path, bounded, names):
    texts = ODD if "model" not in names else (MATH[0], "\n", " ", *ODD[9:14])  # a panel each
    rows = []
    for i, (status, text) in enumerate(itertools.product(("done", "failed"), texts)):
        changed = dict.fromkeys(names, text)
        rows.append(make_row("heun", 10, seed=0, status=status) | changed | {"run_key": str(i)})
    report = report_of(tmp_path, rows, sheets=True)
    assert_whole(report)
    assert len(report.rows) == len(rows)
    shown = panels(report.rows)
    curves = [curve for panel in shown for curve in panel.rows["curve"]]
    assert 0 < min(map(len, curves)) <= max(map(len, curves)) < 120
    assert len({panel.slug for panel in shown}) == len(shown) == len(report.sheets)


def test_numbers_at_the_ends_of_their_ranges_are_drawn_or_listed(tmp_path, bounded):
    ends = (0, 5e-324, 1e-300, 1e-20, 1, 1e15)
    rows = [
        make_row(solver, 10, seed=i, fid=fid, nfe=nfe, images_per_second=fid, is_mean=nfe, fid_floor=nfe)
        for solver in ("heun", "ddim")
        for i, (fid, nfe) in enumerate(itertools.product(ends, ends))
    ]
    for i, row in enumerate(rows):
        row |= {
            "run_key": str(i),
            "nfe_budget": (10, 2**53 - 1, 0, None)[i % 4],
            "order": (-1e15, 1e15)[i % 2],
        }
    report = report_of(tmp_path, rows)
    assert_whole(report)
    assert len(report.rows) == len(rows)


@pytest.mark.slow
def test_columns_that_nobody_knows_reach_the_tables_up_to_a_limit(tmp_path, bounded):
    more = {"huge": 10**39, "small": -(10**39), "\ud800=x": "\ud800", "curve": [1], "done": "x", "_time": {}}
    rows = [make_row("heun", 10, **more), make_row("ddim", 10, seed=1, **more)]
    rows += [make_row("euler", 10, **{f"column {i}": i for i in range(2 * MOST_COLUMNS)})]
    options = {f"option {i}": i for i in range(3000)}
    rows += [
        make_row("heun", 20, params=options, grid_params=options, schedule_params=options, seed=i)
        for i in (1, 2)
    ]
    rows += [make_row("heun", 20, grid_params={**options, "option 1": 7}, seed=3)]
    report = report_of(tmp_path, rows)
    assert_whole(report)
    (fault,) = report.faults
    assert fault.file == "rows"
    assert f"the {MOST_COLUMNS} that most of them have" in fault.why
    with open(report.html.with_name("table.csv"), newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["huge"] for line in lines} == {"", str(10**39)}
    assert str(10**39) in report.html.read_text()
    assert len(panels(report.rows)[0].rows["curve"].unique()) == 5


def put_devices(folder, end):
    """One of each kind of thing that is no ordinary file."""
    os.mkfifo(folder / f"fifo{end}")
    (folder / f"folder{end}").mkdir()
    targets = {"zero": "/dev/zero", "tty": "/dev/tty", "none": "nowhere", "circle": f"circle{end}"}
    targets |= {"kernel": "/proc/kmsg", "up": ".."}
    for name, target in targets.items():
        (folder / f"{name}{end}").symlink_to(target)
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(folder, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{here}/socket{end}")
        os.close(here)
    with open(folder / f"sparse{end}", "wb") as file:
        file.truncate(10 * 2**30)
    (folder / f"text{end}").write_text("no picture and no row")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe" + end.encode()))).write_bytes(b"\xff")


def test_devices_links_and_bombs_cost_neither_time_nor_memory(tmp_path, bounded):
    rows = [make_row("heun", 10, seed=i) for i in range(3)] + [make_row("ddim", 10), make_row("rk4", 10)]
    study = write_study(tmp_path / "study", rows, sheets=True)
    put_devices(study / "rows", ".json")
    put_devices(study / "samples", ".png")
    (study / "figures").mkdir()
    put_devices(study / "figures", ".svg")
    put_devices(study, ".tmp")
    pictures = [study / "samples" / f"{row['run_key']}.png" for row in rows]
    pictures[0].write_bytes(png(30_000, 30_000))
    pictures[1].write_bytes(png(12_000, 8_000))
    pictures[2].unlink()
    os.mkfifo(pictures[2])
    pictures[3].write_bytes(pictures[4].read_bytes()[:-40])
    report = build_report(study)
    assert_whole(report)
    assert len(report.faults) == 12
    assert {fault.file for fault in report.faults if "not an ordinary file" in fault.why} >= {
        *("fifo.json", "folder.json", "zero.json", "socket.json", "up.json")
    }
    assert [path.name for path in report.sheets] == ["samples_glyphs_edm.png"]


@pytest.mark.parametrize(
    "kind",
    ["link", "folder", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("link to nowhere", "pipe"))],
)
def test_what_stands_in_the_way_is_replaced_or_set_aside_and_no_link_is_followed(tmp_path, kind):
    study = write_study(tmp_path / "study", [make_row("heun", 10)], sheets=True)
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (study / "figures").mkdir()
    names = [
        *OUTPUTS,
        "figures/pareto.pdf",
        "figures/samples_glyphs_edm.png",
        "figures/published.csv",
        ".report.lock",
    ]
    for name in names:
        put(study / name, kind, outside)
    report = build_report(study, published=True)
    assert_whole(report)
    assert report.faults == []
    assert outside.read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "study"]
    assert [name for name in names if not (study / name).is_file() or (study / name).is_symlink()] == []


def put(path, kind, outside):
    if kind == "folder":
        path.mkdir()
        (path / "kept").write_text("kept")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if kind == "link" else outside.with_name("nothing here"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["link", "file", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("link to nowhere", "pipe"))],
)
def test_a_folder_of_outputs_that_is_none_is_set_aside(tmp_path, kind):
    studies = [write_study(tmp_path / name, [make_row("heun", 10)]) for name in ("before", "after")]
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("figures", "compare"):
        place = studies[1] / name
        place.write_text("kept") if kind == "file" else put(place, kind, outside)
    assert_whole(build_report(studies[1]))
    _, written = compare_studies(*studies)
    assert {path.parent for path in written} == {studies[1] / "compare" / "before"}
    assert all(path.is_file() and path.stat().st_size for path in written)
    assert list(outside.iterdir()) == []
    assert (studies[1] / "figures.unreadable").lstat()
    assert (studies[1] / "compare.unreadable").lstat()


@pytest.mark.slow
def test_a_lock_that_cannot_be_had_is_one_line_and_the_report_is_written(tmp_path, monkeypatch):
    study = write_study(tmp_path / "study", [make_row("heun", 10)])
    monkeypatch.setattr(report_main, "LOCK_SECONDS", 0.1)
    with FileLock(study / ".report.lock"):
        report = build_report(study)
    (fault,) = report.faults
    assert fault.file == ".report.lock"
    assert "no lock to be had" in fault.why
    assert "\n" not in fault.why
    assert build_report(study).faults == []


@pytest.mark.slow
def test_an_undecodable_study_is_reported_on_compared_and_printed(tmp_path):
    studies = [Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/\xff$x$|", b"/\xfe_[a](b)")]
    for study in studies:
        write_study(study, [make_row("heun", 10)], sheets=True)
        odd = Path(os.fsdecode(os.fsencode(study) + b"/rows/\xff<b>|\n`.json"))
        odd.write_bytes(b"{")
    code = "import sys; from seedsbench.report.main import main; "
    code += "sys.exit(main(sys.argv[1:2]) + main(sys.argv[1:]))"
    line = [sys.executable, "-c", code, *map(os.fsencode, studies)]
    told = subprocess.run(line, capture_output=True, env=environment(PYTHONIOENCODING="ascii"))
    assert told.returncode == 0, told.stderr
    assert told.stderr.count(b"\n") == 1
    assert b"problem: ?<b>| `.json: not JSON" in told.stderr
    folder = studies[1] / "compare" / studies[0].name
    for path in (studies[0] / "report.html", folder / "compare.html"):
        assert Page(path.read_text(encoding="utf-8")).of("b") == []
    assert (folder / "compare.md").read_text(encoding="utf-8").startswith("# ")


def test_hostile_text_is_data_in_every_kind_of_file(tmp_path):
    evil = f"{EVIL} | `x` [a](javascript:1) **b** _c_ $d$ \\input{{e}}\n# f"
    row = make_row("heun", 10)
    rows = [make_row(evil, 10), make_row("heun", 20, model=evil), make_row("heun", 20, extractor=evil)]
    rows += [make_row("euler", 10, status=status, reason=evil, seed=2) for status in ("failed", "skipped")]
    rows += [make_row("euler", 10, warning=evil, seed=3), make_row("euler", 30, params={evil: 1}, seed=3)]
    rows += [make_row("euler", 30, params={evil: 2}, seed=3)]
    studies = [
        write_study(tmp_path / name, made) for name, made in (("a", [row]), ("b|`<b>[*", [row, *rows]))
    ]
    report = build_report(studies[1])
    assert_whole(report)
    _, (page, compared, *_) = compare_studies(*studies)
    for text in (report.table_md.read_text(), compared.read_text()):
        assert not re.search(r"<(?!=)[a-z/!]", text)
        assert not re.search(r"(?<!\\)(`|\]\()", text)
        assert not re.search(r"(?<!\\)[$]", text)
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert all(line.endswith("|") for line in tables)
        counts = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
        rules = [n for n, line in zip(counts, tables, strict=True) if set(line) == set("|-")]
        assert set(counts) == set(rules)
    assert r"\input" not in report.html.with_name("table.tex").read_text()
    for content in (report.html, page):
        assert not [a for _, a in Page(content.read_text()).elements if any(n.startswith("on") for n in a)]


def test_markdown_and_latex_show_the_text_that_they_are_given():
    assert markdown("a|b`c<d>[e]*f*_g_ h_i &lt; &x\n\u2028j\\") == (
        r"a\|b\`c&lt;d&gt;\[e\]\*f\*\_g\_ h_i &amp;lt; &x  j\\"
    )
    assert markdown("# x") == r"\# x"
    assert latex("*[2cm] a\n\nb <|>") == r"{*}{[}2cm] a b \textless{}\textbar{}\textgreater{}"


def test_cells_of_csv_that_a_spreadsheet_would_run_begin_with_an_apostrophe(tmp_path):
    formulas = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "x=1", "1-1", "'=1"]
    rows = [make_row("heun", 10, reason=text, seed=i, kid_mean=-0.5) for i, text in enumerate(formulas)]
    rows += [make_row("heun", 20, **{"=1+1": "=1+1", "-number": -2})]
    study = write_study(tmp_path / "study", rows)
    build_report(study)
    with open(study / "table.csv", newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    found = {line[header.index("reason")] for line in lines}
    assert found == {"", *("'" + text for text in formulas[:5]), *formulas[5:]}
    assert {line[header.index("kid_mean")] for line in lines} == {"", "-0.5"}
    assert {line[header.index("'=1+1")] for line in lines} == {"", "'=1+1"}
    assert {line[header.index("'-number")] for line in lines} == {"", "-2"}


@pytest.mark.slow
def test_a_closed_pipe_ends_the_command_without_a_word(tmp_path):
    study = write_study(tmp_path / "study", [make_row("heun", 10)])
    code = "import sys; from seedsbench.report.main import main; sys.exit(main())"
    read, write = os.pipe()
    os.close(read)
    line, streams = [sys.executable, "-c", code, str(study)], {"stdout": write, "stderr": subprocess.PIPE}
    told = subprocess.run(line, **streams, env=environment())
    os.close(write)
    assert (told.returncode, told.stderr) == (141, b"")


def test_a_study_that_is_a_link_in_a_circle_is_one_line(tmp_path, capsys):
    (tmp_path / "circle").symlink_to("circle")
    study = write_study(tmp_path / "study", [make_row("heun", 10)])
    for paths in ([tmp_path / "circle"], [tmp_path / "circle", study], [study, tmp_path / "circle"]):
        assert main(list(map(str, paths))) == 2
        assert capsys.readouterr().err.count("\n") == 1


# Without figures' files, whose rendering takes seconds, so that there is time for many.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(ODD[:11]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([*KINDS, "curve", "warnings", "index", "=x", "\ud800", ""])
CHANGED_FIELDS = st.lists(st.dictionaries(FIELDS, VALUES, max_size=2), min_size=8, max_size=8)
CHANGED_BYTES = st.lists(
    st.tuples(st.integers(0, 900), st.binary(max_size=3), st.integers(0, 3)), min_size=8, max_size=8
)


def test_any_value_in_any_field_gives_a_report(tmp_path):
    numbers = itertools.count()

    @seed(14)
    @settings(max_examples=5)
    @given(CHANGED_FIELDS)
    def check(changes):
        rows = {}
        for i, more in enumerate(changes):
            rows[str(i)] = json.dumps(make_row("ddim", 10 * (i % 2 + 1), seed=i) | {"run_key": str(i)} | more)
        assert_reported(tmp_path / str(next(numbers)), {key: row.encode() for key, row in rows.items()})

    check()


def test_any_change_of_bytes_gives_a_report(tmp_path):
    numbers = itertools.count()

    @seed(14)
    @settings(max_examples=5)
    @given(CHANGED_BYTES)
    def check(changes):
        rows = {}
        for i, (place, new, cut) in enumerate(changes):
            data = json.dumps(make_row("ddim", 10, seed=i) | {"run_key": str(i)}).encode()
            rows[str(i)] = data[:place] + new + data[place + cut :]
        assert_reported(tmp_path / str(next(numbers)), rows)

    check()


def assert_reported(study, rows):
    write_study(study, [])
    for key, data in rows.items():
        (study / "rows" / f"{key}.json").write_bytes(data)
    df, faults = read_rows(study)
    assert len(df) + len(faults) == len(rows)
    shown = panels(df)
    write_csv(df, study / "table.csv")
    write_markdown(df, shown, faults, "s", study / "table.md")
    write_latex(shown, study / "table.tex")
    if len(df):
        draw_figure(df, shown)
        sheets = write_sheets(shown, study, study / "figures")
        write_html(df, shown, faults, study / "report.html", "s", [], sheets, page_tables(shown))
        compare(df, df, ("a", "b"))
