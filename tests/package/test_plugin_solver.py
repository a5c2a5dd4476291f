"""A new solver is one Python file and one YAML, anywhere: the example of docs/add-a-solver.md, run."""

import pytest

import seedsbench
from seedsbench import registry
from seedsbench.certify.main import main as certify
from tests.support.cells import python, rows_of
from tests.support.documents import files
from tests.support.machine import ROOT

CONTRACT = "tests/solvers/test_solver_contract.py"
MODULE, CONFIG = (files()[f"mine/{name}"] for name in ("ab2.py", "solver/ab2.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "solver").mkdir()
    (folder / "solver" / "ab2.yaml").write_text(CONFIG)
    (folder / "ab2.py").write_text(MODULE)
    return folder


def test_the_command_line_lists_and_runs_it(folder, tmp_path):
    command = ("-m", "seedsbench", "--config-dir", folder)
    assert "ab2" in python(*command, "--help", folder=tmp_path)
    arguments = ["-m", "solver=ab2,euler", "model=gaussian_mixture", "nfe=10", "samples=20", "study=s"]
    python(*command, *arguments, folder=tmp_path)
    rows = {row["solver"]: row for row in rows_of(tmp_path / "results" / "s").values()}
    assert set(rows) == {"ab2", "euler"}
    row = rows["ab2"]
    assert (row["status"], row["nfe"], row["n_steps"], row["order"]) == ("done", 10.0, 9, 2)
    assert row["fid"] != rows["euler"]["fid"]
    assert f"--config-dir {folder}" in row["command"]
    assert "ab2" in (tmp_path / "results" / "s" / "table.md").read_text()


def test_the_python_interface_finds_it(folder, monkeypatch):
    monkeypatch.setenv("SEEDSBENCH_CONF", str(folder))
    monkeypatch.syspath_prepend(folder)
    assert "ab2" in seedsbench.solver_names()
    assert seedsbench.solver("ab2").steps_for(10) == 9
    assert {"euler", "seeds3"} < set(registry.names("solver"))


@pytest.mark.slow
def test_the_generic_tests_accept_it_and_reject_one_that_breaks_its_promise(folder):
    (folder / "solver" / "cheat.yaml").write_text("_target_: cheat.AB2\n")
    cheat = "\n    def nfe(self, n_steps):\n        return n_steps - 1\n"
    (folder / "cheat.py").write_text(MODULE + cheat)
    run = ("-m", "pytest", ROOT / CONTRACT, "--solver-dir", folder, "-p", "no:cacheprovider", "-rfp")
    told = python(*run, "-k", "ab2 or cheat", folder=folder, code=1)
    ends = [line.split() for line in told.splitlines() if line.startswith(("FAILED", "PASSED"))]
    assert len([end for end in ends if "[ab2" in end[1] or "-ab2" in end[1]]) > 5
    assert {"cheat" in end[1] for end in ends if end[0] == "FAILED"} == {True}


@pytest.mark.slow
def test_the_certificate_measures_it(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    options = ["--output", str(tmp_path), "--samples", "500", "--jobs", "1"]
    assert certify(["--config-dir", str(folder), *options, "ab2"]) == 0
    assert "1 of 1 are as declared" in capsys.readouterr().out
    assert "| ab2 " in (tmp_path / "certificate.md").read_text()
