"""Rows on disk: whole or not at all, found again, never lost."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from seedsbench.bench.rows.store import ResultStore
from seedsbench.files.atomic import temporary_prefix, write_atomic
from tests.support.cells import rows_of, run

UNNAMED_A, UNNAMED_B = "2025-01-01_00-00-00", "2025-01-02_00-00-00"
POWER_CUT = {"status": "failed", "reason": "power cut", "fid": None}


def row(**changes):
    return {"run_key": "k", "status": "done", "solver": "euler", "nfe": 5.0, "fid": 1.0, **changes}


def test_a_row_is_read_as_it_was_written(tmp_path):
    store = ResultStore(tmp_path)
    path = store.write(row(nested={"a": [1, 2.5]}, text="é"))
    assert path == tmp_path / "rows" / "k.json"
    assert store.finished("k") == row(nested={"a": [1, 2.5]}, text="é")
    assert path.read_text().endswith("}\n")
    assert path.stat().st_mode & 0o777 == 0o644


def test_nan_and_infinity_become_null(tmp_path):
    path = ResultStore(tmp_path).write(row(is_mean=math.nan, deep={"x": [math.inf, 1.0, -math.inf]}))
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()
    assert json.loads(path.read_text()) == row(is_mean=None, deep={"x": [None, 1.0, None]})


@pytest.mark.parametrize("before", [[], ["k.json"]])
@pytest.mark.parametrize(("moment", "error"), [("replace", KeyboardInterrupt), ("fsync", OSError)])
def test_a_crash_while_writing_leaves_what_was_and_no_temporary_file(
    tmp_path, monkeypatch, before, moment, error
):
    store = ResultStore(tmp_path)
    if before:
        store.write(row())

    for owner in (os, Path):  # whichever of the two is asked
        monkeypatch.setattr(owner, moment, Mock(side_effect=error), raising=False)
    with pytest.raises((KeyboardInterrupt, OSError)):
        store.write(row(fid=2.0))
    monkeypatch.undo()
    assert os.listdir(tmp_path / "rows") == before
    assert store.finished("k") == (row() if before else None)


FOREIGN = {
    "half-written": b'{"run_key": "KEY", "status": "do',
    "empty": b"",
    "binary": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "of another key": b'{"run_key": "other", "status": "done", "fid": 1}',
    "of unknown status": b'{"run_key": "KEY", "status": "finished", "fid": 1}',
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_row_is_kept_aside_with_a_warning_and_the_cell_computed(tmp_path, caplog, content):
    first = run(tmp_path)
    path = tmp_path / "study" / "rows" / f"{first['run_key']}.json"
    content = content.replace(b"KEY", first["run_key"].encode())
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = run(tmp_path)
    assert again["fid"] == first["fid"]
    assert json.loads(path.read_text())["fid"] == first["fid"]
    aside = path.with_name(f"{path.name}.unreadable")
    assert aside.read_bytes() == content
    assert aside.name in caplog.text


def test_two_unreadable_files_of_one_key_are_both_kept(tmp_path):
    store = ResultStore(tmp_path)
    path = store.write(row())
    for content in ("first", "second"):
        path.write_text(content)
        assert store.finished("k") is None
    assert sorted(p.read_text() for p in path.parent.iterdir()) == ["first", "second"]


@pytest.mark.parametrize(
    ("first", "second", "changes", "overrides", "times"),
    [
        ("mine", "mine", {}, [], 1),
        ("mine", "mine", {}, ["force=true"], 2),
        ("mine", "mine", POWER_CUT, [], 2),
        (UNNAMED_A, UNNAMED_B, {}, [], 1),
        (UNNAMED_A, UNNAMED_B, POWER_CUT, [], 2),
        ("mine", "yours", {}, [], 2),
        ("mine", UNNAMED_A, {}, [], 2),
        (UNNAMED_A, "mine", {}, [], 2),
    ],
)
def test_a_cell_finished_in_this_or_between_unnamed_studies_is_computed_once_unless_forced(
    tmp_path, evaluations, first, second, changes, overrides, times
):
    made = run(tmp_path, f"study={first}")
    before = evaluations.samples
    path = ResultStore(tmp_path / first).write({**made, **changes})
    written = path.stat().st_mtime_ns
    found = run(tmp_path, f"study={second}", *overrides, invocation="another")
    assert evaluations.samples == times * before > 0
    assert (found["status"], found["reason"], found["fid"]) == ("done", None, made["fid"])
    stored = rows_of(tmp_path / second)  # each folder is complete by itself
    assert stored[made["run_key"]]["invocation"] == ("test" if times == 1 else "another")
    if times == 1:
        assert stored == {made["run_key"]: json.loads(json.dumps(made))}
        assert path.stat().st_mtime_ns == written


def test_sample_images_go_along_with_an_adopted_row(tmp_path):
    for name in (UNNAMED_A, UNNAMED_B):
        ResultStore(tmp_path / name).prepare()
    ResultStore(tmp_path / UNNAMED_A).write(row())
    write_atomic(ResultStore(tmp_path / UNNAMED_A).sample_path("k"), b"png")
    store = ResultStore(tmp_path / UNNAMED_B)
    assert store.finished("k", look_only=True) == row()
    assert not store.path("k").exists()
    assert store.finished("k") == row()
    assert store.sample_path("k").read_bytes() == b"png"


def test_preparing_an_unwritable_folder_says_what_would_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*file/study.*results_dir="):
        ResultStore(tmp_path / "file" / "study").prepare()


def test_preparing_deletes_what_killed_writers_left_and_nothing_of_living_ones(tmp_path):
    store = ResultStore(tmp_path)
    store.write(row())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine, dead = temporary_prefix(), temporary_prefix().replace(f".{os.getpid()}.", f".{ended.pid}.")
    for name in (f"{mine}a.tmp", f"{dead}b.tmp", ".somebody.tmp"):
        (tmp_path / "rows" / name).touch()
    store.prepare()
    assert sorted(os.listdir(tmp_path / "rows")) == sorted([f"{mine}a.tmp", ".somebody.tmp", "k.json"])


def test_preparing_leaves_only_the_folder(tmp_path):
    ResultStore(tmp_path / "study").prepare()
    assert os.listdir(tmp_path / "study") == []


def test_temporary_files_of_dead_writers_are_swept_wherever_they_are(tmp_path):
    """A number of a process that no Linux has; the host is this one's."""
    gone = temporary_prefix().rsplit(".", 2)[0] + f".{2**22 + 1}.x.tmp"
    for place in (".", "rows", "figures", "partial/k"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / gone).touch()
        (tmp_path / place / "kept.tmp").touch()
    ResultStore(tmp_path).prepare()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"kept.tmp"}
