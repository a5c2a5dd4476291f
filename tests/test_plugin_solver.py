"""A new solver is one Python file and one YAML, anywhere: the command line and the generic tests take it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cells import rows_of

import seedsbench
from seedsbench import registry

ROOT = Path(__file__).parents[1]

MODULE = '''
"""Two-step Adams-Bashforth in the schedule's time (Hairer et al., Solving ODEs I, III.1). Order 2."""

from dataclasses import dataclass
from typing import ClassVar

from seedsbench.solvers.base import Solver, StepResult


@dataclass(frozen=True)
class AB2(Solver):
    """Deterministic, one evaluation a step. The first step is Euler's."""

    order: ClassVar[int] = 2

    def nfe(self, n_steps):
        return n_steps

    def step(self, process, x, t, t_next, state, noise):
        d, h = process.drift(x, t), t_next - t
        if state is None:
            return StepResult(x + h * d, (d, h))
        d_previous, h_previous = state
        r = h / (2 * h_previous)
        return StepResult(x + h * ((1 + r) * d - r * d_previous), (d, h))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "solver").mkdir()
    (folder / "solver" / "ab2.yaml").write_text("# Adams-Bashforth 2.\n_target_: mine.AB2\n")
    (folder / "mine.py").write_text(MODULE)
    return folder


def run(*command, cwd):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEEDSBENCH_")}
    environment |= {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_the_command_line_runs_it(folder, tmp_path):
    console = Path(sys.executable).with_name("seedsbench")
    arguments = ["-m", "solver=ab2,euler", "model=gaussian_mixture", "nfe=10", "samples=20", "study=s"]
    result = run(console, "--config-dir", folder, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {row["solver"]: row for row in rows_of(tmp_path / "results" / "s").values()}
    assert set(rows) == {"ab2", "euler"}
    row = rows["ab2"]
    assert (row["status"], row["nfe"], row["n_steps"], row["order"]) == ("done", 10.0, 9, 2)
    assert row["fid"] != rows["euler"]["fid"]
    assert f"--config-dir {folder}" in row["command"]
    assert "ab2" in (tmp_path / "results" / "s" / "table.md").read_text()


def test_the_help_lists_it(folder, tmp_path):
    result = run(sys.executable, "-m", "seedsbench", "--config-dir", folder, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "ab2" in result.stdout


def test_the_python_interface_finds_it(folder, monkeypatch):
    monkeypatch.setenv("SEEDSBENCH_CONF", str(folder))
    monkeypatch.syspath_prepend(folder)
    assert "ab2" in seedsbench.solver_names()
    assert seedsbench.solver("ab2").steps_for(10) == 9
    assert {"euler", "seeds3"} < set(registry.names("solver"))


def test_the_generic_tests_accept_it(folder):
    command = [sys.executable, "-m", "pytest", "tests/test_solver_contract.py", "--solver-dir", folder]
    result = run(*command, "-k", "ab2", "-p", "no:cacheprovider", cwd=ROOT)
    assert result.returncode == 0, result.stdout[-3000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) > 5


def test_the_generic_tests_reject_a_solver_that_breaks_its_promise(tmp_path):
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "cheat.yaml").write_text("_target_: cheat.AB2\n")
    (tmp_path / "cheat.py").write_text(MODULE.replace("return n_steps", "return n_steps - 1"))
    command = [sys.executable, "-m", "pytest", "tests/test_solver_contract.py", "--solver-dir", tmp_path]
    result = run(*command, "-k", "cheat", "-p", "no:cacheprovider", "-x", cwd=ROOT)
    assert result.returncode == 1
    assert " failed" in result.stdout
