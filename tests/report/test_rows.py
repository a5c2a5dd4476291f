"""Rows in, one table out, whatever a results folder holds."""

import csv
import json
import math

import pytest

from seedsbench.report.pareto import panels
from seedsbench.report.rows import canonical_params, read_rows
from tests.support.studies import frame, make_row, report_of, usual_rows, write_study

HUGE = pytest.param(10**400, id="10**400")


def test_unreadable_files_become_faults_and_the_rest_is_read(tmp_path):
    good = make_row("heun", 20, custom_column={"b": 1, "a": 2}, fid="much")
    study = write_study(tmp_path / "s", [good])
    broken = {
        "half.json": b'{"status": "do',
        "list.json": b"[1, 2]",
        "foreign.json": b'{"name": "package"}',
        "bytes.json": b"\xff\xfe\x00",
        "deep.json": b"[" * 100_000,
        "status.json": b'{"status": "finished", "solver": "heun"}',
    }
    copies = {"copy of it.json": json.dumps(good).encode(), ".hidden.json": b"x"}
    for name, content in {**broken, **copies}.items():
        (study / "rows" / name).write_bytes(content)
    (study / "rows" / "folder.json").mkdir()
    df, faults = read_rows(study)
    assert len(df) == 1
    assert math.isnan(df["fid"][0])
    assert df["custom_column"][0] == '{"a":2,"b":1}'
    why = {fault.file: fault.why for fault in faults}
    assert set(why) == {*broken, "folder.json", "copy of it.json", f"{good['run_key']}.json"}
    assert "not a number" in why[f"{good['run_key']}.json"]
    assert "repeats run_key" in why["copy of it.json"]


def test_of_copies_the_newest_counts(tmp_path):
    study = write_study(tmp_path / "s", [])
    for name, fid, time in (("a", 1.0, "2026"), ("b", 2.0, "2025"), ("c", 3.0, "2025")):
        row = make_row("heun", 20, fid=fid, time_utc=time) | {"run_key": "key"}
        (study / "rows" / f"{name}.json").write_text(json.dumps(row))
    df, faults = read_rows(study)
    assert df["fid"].tolist() == [1.0]
    assert [fault.file for fault in faults] == ["b.json", "c.json"]


def test_parameters_are_canonical_whether_dict_or_json_text():
    want = '{"c2":0.4,"eta":1}'
    given = {"eta": 1, "_target_": "seedsbench.x", "c2": 0.4}
    assert canonical_params(given) == canonical_params(json.dumps(given)) == want
    assert canonical_params("eta=1") == '{"params":"eta=1"}'


def test_order_does_not_depend_on_file_names(tmp_path):
    rows = usual_rows()
    one = frame(tmp_path, rows)
    two = frame(tmp_path, [{**row, "run_key": row["run_key"][::-1]} for row in rows])
    assert one.drop(columns="run_key").equals(two.drop(columns="run_key"))


def test_seeds_are_exact_however_large(tmp_path):
    """As floats, two seeds above 2^53 are one, and one above 2^63 ended the report."""
    seeds = [0, 2**53, 2**53 + 1, 2**60, 2**64 - 1]
    rows = [make_row("heun", 10, seed=seed, repeat=None) for seed in seeds]
    rows.append(make_row("euler", 10, seed=2**60 + 1, repeat=None, status="failed", reason="killed"))
    report = report_of(tmp_path, rows)
    assert report.faults == []
    assert panels(report.rows)[0].points.set_index("curve")["n"].to_dict() == {"heun": 5, "euler": 0}
    with open(report.html.with_name("table.csv")) as file:
        assert sorted(int(row["seed"]) for row in csv.DictReader(file)) == sorted([*seeds, 2**60 + 1])
    assert f"| {2**60 + 1} " in report.table_md.read_text()
    page = report.html.read_text()
    assert all(str(seed) in page for seed in (*seeds, 2**60 + 1))


@pytest.mark.parametrize("seed", [HUGE, -1, 2**64, 1.5, math.inf, "words", [1]])
def test_a_seed_that_is_none_is_a_fault_and_no_end(tmp_path, seed):
    rows = [make_row("heun", 10), make_row("euler", 10, seed=7, status="failed", reason="killed")]
    rows[1]["seed"] = seed
    report = report_of(tmp_path, rows)
    assert len(report.rows) == 2
    (fault,) = report.faults
    assert fault.why.startswith("seed is ")
    assert len(fault.why) < 120


@pytest.mark.parametrize("name", ["samples", "nfe_budget", "batch_size", "n_steps"])
@pytest.mark.parametrize("value", [HUGE, 1e300, 2**60])
def test_whole_numbers_no_float_holds_are_a_fault(tmp_path, name, value):
    rows = [make_row("heun", 10), make_row("euler", 20, **{name: value})]
    df, faults = read_rows(write_study(tmp_path / "s", rows))
    assert len(df) == 2
    assert [fault.why.split(" is ")[0] for fault in faults] == [name]
