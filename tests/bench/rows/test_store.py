"""Rows on disk: whole or not at all, found again, never lost."""

import json
import logging
import math
import os

import pytest

from seedsbench.bench.rows.store import ResultStore
from seedsbench.diffusion.process import Process
from seedsbench.files.atomic import write_atomic
from tests.support.cells import rows_of, run

UNNAMED_A, UNNAMED_B = "2025-01-01_00-00-00", "2025-01-02_00-00-00"


@pytest.fixture
def evaluations(monkeypatch):
    """The number of denoiser calls so far, as the only entry of a list."""
    count, predict = [0], Process.predict

    def counted(self, x, sigma, *rows):
        count[0] += 1
        return predict(self, x, sigma, *rows)

    monkeypatch.setattr(Process, "predict", counted)
    return count


def row(**changes):
    return {"run_key": "k", "status": "done", "fid": 1.0, **changes}


def test_a_row_is_read_as_it_was_written(tmp_path):
    store = ResultStore(tmp_path)
    path = store.write(row(nested={"a": [1, 2.5]}, text="é"))
    assert path == tmp_path / "rows" / "k.json"
    assert store.read("k") == row(nested={"a": [1, 2.5]}, text="é")
    assert path.read_text().endswith("}\n")
    assert path.stat().st_mode & 0o777 == 0o644


def test_nan_and_infinity_become_null(tmp_path):
    path = ResultStore(tmp_path).write(row(fid=math.nan, deep={"x": [math.inf, 1.0, -math.inf]}))
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()
    assert json.loads(path.read_text()) == row(fid=None, deep={"x": [None, 1.0, None]})


@pytest.mark.parametrize("moment", ["replace", "fsync"])
def test_a_crash_while_writing_leaves_the_old_row_and_no_temporary_file(tmp_path, monkeypatch, moment):
    store = ResultStore(tmp_path)
    store.write(row())

    def crash(*_):
        raise OSError("disk gone")

    monkeypatch.setattr(os, moment, crash)
    with pytest.raises(OSError, match="disk gone"):
        store.write(row(fid=2.0))
    monkeypatch.undo()
    assert store.read("k") == row()
    assert os.listdir(tmp_path / "rows") == ["k.json"]


def test_a_crash_at_the_first_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "rows" / "k.json", b"{}")
    assert os.listdir(tmp_path / "rows") == []


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
        assert store.read("k") is None
    assert sorted(p.read_text() for p in path.parent.iterdir()) == ["first", "second"]


def test_a_finished_cell_is_not_computed_again(tmp_path, evaluations):
    first = run(tmp_path)
    path = tmp_path / "study" / "rows" / f"{first['run_key']}.json"
    before, written = evaluations[0], path.stat().st_mtime_ns
    assert before > 0
    again = run(tmp_path, invocation="another")
    assert evaluations[0] == before
    assert path.stat().st_mtime_ns == written
    assert {k: again[k] for k in first} == json.loads(json.dumps(first))


def test_force_computes_it_again_and_says_so_in_the_row(tmp_path, evaluations):
    first = run(tmp_path)
    before = evaluations[0]
    again = run(tmp_path, "force=true", invocation="another")
    assert evaluations[0] == 2 * before
    assert again["fid"] == first["fid"]
    assert rows_of(tmp_path / "study")[first["run_key"]]["invocation"] == "another"


def test_a_failed_cell_is_run_again(tmp_path, evaluations):
    first = run(tmp_path)
    before = evaluations[0]
    ResultStore(tmp_path / "study").write({**first, "status": "failed", "reason": "power cut", "fid": None})
    again = run(tmp_path)
    assert evaluations[0] == 2 * before
    assert (again["status"], again["reason"], again["fid"]) == ("done", None, first["fid"])


def test_unnamed_studies_share_finished_cells(tmp_path, evaluations):
    first = run(tmp_path, f"study={UNNAMED_A}")
    before = evaluations[0]
    assert run(tmp_path, f"study={UNNAMED_B}")["fid"] == first["fid"]
    assert evaluations[0] == before
    assert rows_of(tmp_path / UNNAMED_B) == rows_of(tmp_path / UNNAMED_A), "each folder is complete by itself"


def test_unnamed_studies_do_not_share_failed_cells(tmp_path, evaluations):
    first = run(tmp_path, f"study={UNNAMED_A}")
    before = evaluations[0]
    ResultStore(tmp_path / UNNAMED_A).write({**first, "status": "failed", "reason": "power cut"})
    assert run(tmp_path, f"study={UNNAMED_B}")["status"] == "done"
    assert evaluations[0] == 2 * before


@pytest.mark.parametrize(("first", "second"), [("mine", "yours"), ("mine", UNNAMED_A), (UNNAMED_A, "mine")])
def test_named_studies_stand_alone(tmp_path, evaluations, first, second):
    run(tmp_path, f"study={first}")
    before = evaluations[0]
    run(tmp_path, f"study={second}")
    assert evaluations[0] == 2 * before


def test_sample_images_go_along_with_an_adopted_row(tmp_path):
    for name in (UNNAMED_A, UNNAMED_B):
        ResultStore(tmp_path / name).prepare()
    ResultStore(tmp_path / UNNAMED_A).write(row())
    write_atomic(ResultStore(tmp_path / UNNAMED_A).sample_path("k"), b"png")
    store = ResultStore(tmp_path / UNNAMED_B)
    assert store.finished("k", adopt=False) == row()
    assert not store.path("k").exists()
    assert store.finished("k") == row()
    assert store.sample_path("k").read_bytes() == b"png"


def test_preparing_an_unwritable_folder_says_what_would_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*file/study.*results_dir="):
        ResultStore(tmp_path / "file" / "study").prepare()


def test_preparing_leaves_only_the_folder(tmp_path):
    ResultStore(tmp_path / "study").prepare()
    assert os.listdir(tmp_path / "study") == []
