"""A new solver is one Python file and one YAML, anywhere: CONTRIBUTING's example, run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seedsbench
from seedsbench import registry
from tests.support.cells import rows_of

ROOT = Path(__file__).parents[2]
CONTRACT = "tests/solvers/test_solver_contract.py"
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
MODULE, CONFIG = (re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)[0] for kind in ("python", "yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "solver").mkdir()
    (folder / "solver" / "ab2.yaml").write_text(CONFIG)
    (folder / "ab2.py").write_text(MODULE)
    return folder


def run(*words, cwd):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEEDSBENCH_")}
    environment |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def contract(folder, *words):
    """The generic tests over the solvers of a folder."""
    return run("pytest", CONTRACT, "--solver-dir", folder, "-p", "no:cacheprovider", *words, cwd=ROOT)


def test_the_command_line_lists_and_runs_it(folder, tmp_path):
    assert "ab2" in run("seedsbench", "--config-dir", folder, "--help", cwd=tmp_path).stdout
    arguments = ["-m", "solver=ab2,euler", "model=gaussian_mixture", "nfe=10", "samples=20", "study=s"]
    result = run("seedsbench", "--config-dir", folder, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
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


def test_the_generic_tests_accept_it(folder):
    result = contract(folder, "-k", "ab2")
    assert result.returncode == 0, result.stdout[-3000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) > 5


def test_the_certificate_measures_it(folder, tmp_path):
    options = ["--output", tmp_path, "--samples", "500", "--jobs", "1"]
    result = run("seedsbench.certify.main", "--config-dir", folder, *options, "ab2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 of 1 are as declared" in result.stdout
    assert "| ab2 " in (tmp_path / "certificate.md").read_text()


def test_the_generic_tests_reject_a_solver_that_breaks_its_promise(tmp_path):
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "cheat.yaml").write_text("_target_: cheat.AB2\n")
    cheat = "\n    def nfe(self, n_steps):\n        return n_steps - 1\n"
    (tmp_path / "cheat.py").write_text(MODULE + cheat)
    result = contract(tmp_path, "-k", "cheat", "-x")
    assert result.returncode == 1
    assert " failed" in result.stdout
