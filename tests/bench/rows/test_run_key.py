"""What names a row: declared names, options and outside sources; never where a class lies."""

import json
import sys

from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.run_key import what_changes_numbers
from seedsbench.files.sources import source_id
from tests.support.cells import compose, config_dir, key_of, run
from tests.support.documents import files

AB2 = files()["mine/ab2.py"]
CELL = ["model=gaussian", "nfe=6", "samples=20", "device=cpu"]


def test_an_outside_solver_that_was_edited_gets_a_new_row(tmp_path, monkeypatch):
    mine = config_dir(monkeypatch, tmp_path, "solver", "ab2", AB2, {"ab2": "AB2"})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which is known by its second

    def row():
        """As of a process of its own."""
        monkeypatch.delitem(sys.modules, "ab2", raising=False)
        return run(tmp_path, "solver=ab2", *CELL, config_dirs=[mine])

    first = row()
    assert row() == first, "is already done"
    assert "0.5 * h" in AB2
    (mine / "ab2.py").write_text(AB2.replace("0.5 * h", "0.0 * h"))
    edited = row()
    assert edited["run_key"] != first["run_key"]
    assert edited["fid"] != first["fid"]
    assert edited["solver_params"]["source_id"] != first["solver_params"]["source_id"], "and another curve"


def test_a_source_is_the_file_and_what_it_imports_beside_it(tmp_path):
    (tmp_path / "solver.py").write_text("import math, helper\nfrom parts.rule import step\n")
    (tmp_path / "helper.py").write_text("import deeper\n")
    (tmp_path / "parts").mkdir()
    for name in ("deeper.py", "unrelated.py", "parts/__init__.py", "parts/rule.py"):
        (tmp_path / name).write_text("x = 1\n")
    ids = [source_id(tmp_path / "solver.py")]
    for name in ("unrelated.py", "helper.py", "deeper.py", "parts/rule.py", "solver.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# edited\n")
        ids.append(source_id(tmp_path / "solver.py"))
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5


def test_a_source_in_a_package_is_the_whole_package(tmp_path):
    (tmp_path / "mine" / "solvers").mkdir(parents=True)
    for name in ("__init__.py", "rule.py", "solvers/__init__.py"):
        (tmp_path / "mine" / name).write_text("")
    for line in ("from ..rule import step", "from mine.rule import step", "from mine import rule"):
        (file := tmp_path / "mine" / "solvers" / "ab2.py").write_text(f"{line}\n")
        before = source_id(file)
        (tmp_path / "mine" / "rule.py").write_text(f"# {line}\n")
        assert source_id(file) != before


def test_a_module_beside_a_file_counts_in_a_package_too(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "mynet.py").write_text("import helper\n")
    ids = set()
    for text in ("", "# edited\n"):
        (tmp_path / "helper.py").write_text(text)
        ids.add(source_id(tmp_path / "mynet.py"))
    assert len(ids) == 2


def test_no_key_is_made_of_a_module_path_or_of_the_packages_own_source():
    science = what_changes_numbers(cell := compose("solver=seeds3"), problem_of(cell, "cpu"))
    assert science["solver"]["class"] == "Seeds3"
    assert not any(word in json.dumps(science) for word in ("seedsbench.", "source_id"))


def test_a_training_is_known_by_its_network_and_said_in_its_row(tmp_path):
    keys = {training: key_of("model=glyphs", f"model.training={training}") for training in (0, 1)}
    assert keys[0] == key_of("model=glyphs") != keys[1]
    cell = ("model=glyphs", "solver=euler", "nfe=2", "samples=4", "metrics.floor_sets=1")
    rows = [run(tmp_path, *cell, f"model.training={training}") for training in (0, 1)]
    assert [row["training"] for row in rows] == [0, 1]
    assert rows[0]["model_id"] != rows[1]["model_id"]
    assert run(tmp_path, *CELL)["training"] is None
