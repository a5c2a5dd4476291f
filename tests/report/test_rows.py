"""Rows in, one table out, whatever a results folder holds."""

import csv
import json

from seedsbench.report.pareto import panels
from seedsbench.report.rows import canonical_params, read_rows
from tests.support.studies import frame, make_row, report_of, usual_rows, write_study


def test_unreadable_files_become_faults_and_the_rest_is_read(tmp_path):
    good = make_row("heun", 20, custom_column={"b": 1, "a": 2})
    study = write_study(tmp_path / "s", [good])
    broken = {
        "half.json": b'{"status": "do',
        "list.json": b"[1, 2]",
        "foreign.json": b'{"name": "package"}',
        "bytes.json": b"\xff\xfe\x00",
        "status.json": b'{"status": "finished", "solver": "heun"}',
        "copy of it.json": json.dumps(good).encode(),
    }
    for name, content in {**broken, ".hidden.json": b"x"}.items():
        (study / "rows" / name).write_bytes(content)
    df, faults = read_rows(study)
    assert df["run_key"].tolist() == [good["run_key"]]
    assert df["custom_column"][0] == '{"a":2,"b":1}'
    why = {fault.file: fault.why for fault in faults}
    assert set(why) == set(broken)
    assert f"the row of another key, '{good['run_key']}'" in why["copy of it.json"]


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
