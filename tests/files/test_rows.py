"""What is a row and what is none, and the JSON files they lie in."""

import json
import os
import threading

import pytest

from seedsbench.files.json_files import MOST_BYTES, MOST_DIGITS, MOST_LEVELS, parse_json, read_json
from seedsbench.files.regular import read_ordinary
from seedsbench.files.rows import COLUMNS, COUNT, FLAG, KINDS, NUMBER, SCORE, SEED, TEXT, check_row, read_row
from tests.support.studies import make_row

GOOD = make_row("heun", 20)
NOT_OF = {
    TEXT: [1, True, [], {}],
    FLAG: [1, 0, "true", 0.0],
    SEED: [-1, 2**64, 1.5, 1.0, True, "1", [1]],
    COUNT: [-1, 2**53, 1.0, True, "1"],
    SCORE: [-1e-9, -1, 1e16, 1e308, float("nan"), float("inf"), True, "1", [], {}],
    NUMBER: [-1e16, 1e308, float("nan"), float("-inf"), True, "1"],
}


@pytest.mark.parametrize("name", KINDS)
def test_a_value_of_another_kind_makes_it_no_row_and_is_said_in_a_line(name):
    for value in NOT_OF.get(KINDS[name], [1, True, []]):
        with pytest.raises(ValueError, match=name) as said:
            check_row(GOOD | {name: value})
        assert len(str(said.value)) < 130
        assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", KINDS)
def test_null_or_nothing_is_no_value_but_in_the_columns_that_a_row_needs(name):
    rest = {key: value for key, value in GOOD.items() if key != name}
    for row in (rest, rest | {name: None}):
        if name in ("run_key", "status", "solver", "fid", "nfe"):
            with pytest.raises(ValueError, match=name):
                check_row(row)
        else:
            check_row(row)
    if name in ("fid", "nfe"):
        check_row(rest | {"status": "failed"})
        check_row(rest | {"status": "skipped"})


def test_the_ends_of_every_range_are_in_it_and_unknown_columns_are_free():
    check_row(GOOD | {"seed": 2**64 - 1, "fid": 0, "is_mean": 1e15, "order": -1e15, "n_steps": 2**53 - 1})
    check_row(GOOD | {"solver_params": "text", "grid_params": {"rho": None}, "mine": [{}], "": 10**39})
    assert set(GOOD) - {"versions_torch"} <= set(COLUMNS)


@pytest.mark.parametrize(
    "row", [None, 3, "row", [], {}, {"status": "done"}, {"status": [], "solver": "heun"}]
)
def test_what_is_no_row_at_all_is_said(row):
    with pytest.raises(ValueError, match="not a row"):
        check_row(row)


def test_a_row_is_read_from_the_file_of_its_key_only(tmp_path):
    path = tmp_path / f"{GOOD['run_key']}.json"
    path.write_text(json.dumps(GOOD))
    assert read_row(path) == GOOD
    other = path.rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match=f"the row of another key, '{GOOD['run_key']}'"):
        read_row(other)
    with pytest.raises(FileNotFoundError):
        read_row(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *[
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("1e999", "1e999"),
            ("[1", "not JSON"),
            ("", "not JSON"),
        ],
        ("9" * (MOST_DIGITS + 1), f"a number of {MOST_DIGITS + 1} digits"),
        ("-" + "9" * 5_000, "a number of 5000 digits"),
        ("[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1), f"nested more than {MOST_LEVELS} deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, f"nested more than {MOST_LEVELS} deep"),
    ],
    ids=range(9),
)
def test_json_beyond_a_bound_is_refused_in_a_line(tmp_path, text, why):
    path = tmp_path / "x.json"
    path.write_text(text)
    for read in (lambda: parse_json(text), lambda: read_json(path)):
        with pytest.raises(ValueError, match=why) as said:
            read()
        assert "\n" not in str(said.value)
        assert len(str(said.value)) < 130


def test_json_within_the_bounds_is_read_exactly():
    within = "[" * MOST_LEVELS + "]" * MOST_LEVELS
    assert json.dumps(parse_json(within)) == within
    assert parse_json(f"[{10**39}, {-(10**39)}, 1e308, 5e-324]") == [10**39, -(10**39), 1e308, 5e-324]


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="not UTF-8"):
        read_json(tmp_path / "x")


def test_a_file_of_the_bound_is_read_and_one_byte_more_is_not(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b" " * (MOST_BYTES - 1) + b"1")
    assert read_json(path) == 1
    path.write_bytes(b" " * MOST_BYTES + b"1")
    with pytest.raises(ValueError, match="longer than 1,048,576 bytes"):
        read_json(path)


def test_what_is_no_ordinary_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "none").symlink_to("nowhere")
    for name, why in (
        ("fifo", "not an ord"),
        ("folder", "not an ord"),
        ("zero", "not an ord"),
        ("circle", "links"),
    ):
        with pytest.raises(ValueError, match=why):
            read_ordinary(tmp_path / name, max_bytes=10)
    with pytest.raises(FileNotFoundError):
        read_ordinary(tmp_path / "none", max_bytes=10)


def test_a_pipe_that_comes_in_a_files_place_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(type(tmp_path), "is_file", lambda path: True)
    reader = threading.Thread(
        target=read_ordinary, args=[tmp_path / "fifo"], kwargs={"max_bytes": 9}, daemon=True
    )
    reader.start()
    reader.join(5)
    assert not reader.is_alive()
