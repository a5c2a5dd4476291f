"""How commands end when something goes wrong: one line, the right exit code, and nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from seedsbench.cli import main as cli
from tests.support.cells import rows_of, write_choices
from tests.support.machine import environment

CELL = ("model=gaussian_mixture", "samples=20", "device=cpu", "study=s")
STOPPED = "seedsbench: stopped; the same command goes on from what is done"
SOLVER = """
from dataclasses import dataclass

from seedsbench.solvers import Solver, StepResult


@dataclass(frozen=True)
class Mine(Solver):
    order = 1

    def step(self, process, x, t, t_next, state, noise):
        x = x + (t_next - t) * process.drift(x, t)
        return StepResult(x)
"""


def start(*words, folder, **more):
    """`python -m seedsbench` in a folder, in a process group of its own."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    command = [sys.executable, "-m", "seedsbench", *words]
    return subprocess.Popen(command, cwd=folder, env=environment(), **how | more)


@pytest.fixture
def ended(tmp_path, monkeypatch, capsys):
    """Runs a command in this process: exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_CONF", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(list(words))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return end.value.code, out, err

    return run


def plugin(folder, code, options=""):
    """A --config-dir with solver=mine: the words that choose it."""
    write_choices(folder / "own", "solver", "mine", code, {"mine": f"Mine\n{options}"})
    return "--config-dir", str(folder / "own"), "solver=mine"


BROKEN = {
    "an error": (
        "x = x + (t_next",
        "x = [][0] + (t_next",
        "IndexError: list index out of range (mine.py:12)",
    ),
    "an exit": (
        "x = x + (t_next",
        "raise SystemExit(0)\n        x = x + (t_next",
        "SystemExit: 0 (mine.py:12)",
    ),
    "a tensor": ("StepResult(x)", "x", "Mine (mine.py) returned Tensor, expected a StepResult"),
    "a loop": (
        "x = x + (t_next",
        "while True: process.drift(x, t)\n        x = x + (t_next",
        "Mine (mine.py) asks for evaluation 7 of a sample, and promises 6",
    ),
}


@pytest.mark.parametrize(("old", "new", "said"), BROKEN.values(), ids=BROKEN)
def test_a_solver_that_fails_says_where_in_its_row_and_its_log(tmp_path, ended, old, new, said):
    words = plugin(tmp_path, SOLVER.replace(old, new))
    code, _, err = ended(*words, *CELL, "nfe=6")
    assert code == 1
    assert "debug=true" in err
    (row,) = rows_of(tmp_path / "results" / "s").values()
    assert row["status"] == "failed"
    assert said in row["reason"]
    log = (tmp_path / "results" / "s" / "seedsbench.log").read_text()
    assert "Traceback (most recent call last)" in log


REFUSED = {
    "no order": ("    order = 1\n", "", "Mine (mine.py) has no order: write `order = 1`"),
    "a wrong order": ("order = 1", "order = '1'", "Mine (mine.py): order='1' must be of type int"),
    "free steps": (
        "order = 1",
        "order = 1\n\n    def nfe(self, n_steps):\n        return 3",
        "nfe(1), nfe(2) are [3, 3]: expected the evaluations",
    ),
    "no solver": ("(Solver)", "", "Mine (mine.py) is no solver: derive it from seedsbench.solvers.Solver"),
    "no such name": (
        "class Mine",
        "class Mean",
        "_target_ mine.Mine: unknown name in mine 'Mine'.",
    ),
    "an error at import": ("@dataclass(f", "1 / 0\n@dataclass(f", "division by zero (mine.py:7)"),
    "an exit at import": ("@dataclass(f", "raise SystemExit(0)\n@dataclass(f", "SystemExit: 0 (mine.py:7)"),
    "a syntax error": ("order = 1", "order = = 1", "SyntaxError: invalid syntax (mine.py, line 9)"),
}


@pytest.mark.parametrize(("old", "new", "said"), REFUSED.values(), ids=REFUSED)
def test_a_solver_that_is_none_is_refused_with_its_files(tmp_path, ended, old, new, said):
    assert old in SOLVER
    words = plugin(tmp_path, SOLVER.replace(old, new))
    code, out, err = ended(*words, *CELL)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert "own/solver/mine.yaml: " in err
    assert not (tmp_path / "results").exists()


YAMLS = {
    "no _target_": ("order: 1\n", "own/solver/mine.yaml: no _target_: write `_target_: module.Class`"),
    "no such module": ("_target_: theirs.Mine\n", "there is no module theirs; put it into"),
    "no such module of ours": (
        "_target_: seedsbench.solver.euler.Euler\n",
        "there is no module seedsbench.solver.euler",
    ),
    "no class": ("_target_: os.sep\n", "_target_ os.sep is no class or function but str"),
    "no YAML": ("_target_: [\n", "mine.yaml"),
    "no mapping": ("- 1\n", "solver/mine"),
    "nothing": ("", "mine.yaml"),
    "an undefined reference": ("_target_: mine.Mine\nx: ${undefined}\n", "undefined"),
}


@pytest.mark.parametrize(("text", "said"), YAMLS.values(), ids=YAMLS)
def test_a_yaml_that_chooses_nothing_is_refused_by_name(tmp_path, ended, text, said):
    words = plugin(tmp_path, SOLVER)
    (tmp_path / "own" / "solver" / "mine.yaml").write_text(text)
    code, out, err = ended(*words, *CELL)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize(
    "words",
    [
        ["model=file", "model.path=net.pkl", "metrics=inception", "metrics.weights=1e-3"],
        ["model=file", "model.path=1e-3"],
        ["published='???'"],
        ["-m", "hydra/sweeper=[[1],[2]]", "nfe=5,6"],
        ["repeats=1000000000"],
        ["repeats=1000000000", "plan=true"],
        ["-m", "seed=range(0,1000000000)", "plan=true"],
        ["-m", "seed=range(0,200)", "nfe=range(1,200)", "plan=true"],
        ["study=${undefined}"],
        ["results_dir=${oc.env:NO_SUCH_VARIABLE}"],
        ["solver.alpha=${solver.alpha}"],
        ["metrics.floor_sets=1e9"],
        ["metrics.floor_sets=1000000000"],
        ["--config-name", "x"],
        ["--config-dir", "not-there"],
        ["experiment=nope"],
        ["-m", "experiment=nope"],
        ["seed=1e400"],
        ["samples=[1]"],
        ["nfe={a:1}"],
        ["grid=explicit", "grid.sigmas=[[1],[2]]"],
        ["=3"],
        ["solver@x=heun"],
        ["+solver@x.y=heun"],
        ["~model"],
        ["results_dir=/proc/nowhere"],
        ["results_dir=/dev/null"],
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_run_is_refused_in_one_line(tmp_path, ended, words):
    began = time.monotonic()
    code, out, err = ended(*words)
    assert (code, out, err.count("\n")) == (2, "", 1), out + err
    assert err.startswith("seedsbench: ")
    assert not (tmp_path / "results").exists()
    assert time.monotonic() - began < 60


def test_code_in_the_current_folder_is_not_run(tmp_path, ended):
    planted = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
    for place in ("hydra_plugins/x.py", "mine.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(planted)
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "mine.yaml").write_text("_target_: mine.Mine\n")
    process = start("--help", folder=tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert ended(*CELL, "solver=mine")[0] == 2
    assert list(tmp_path.rglob("ran")) == []


def test_no_step_at_all_is_no_success(tmp_path, ended):
    code, _, err = ended(*CELL, "solver=seeds3", "nfe=1")
    assert code == 1
    assert "no cell of this run is done" in err


SLOW = SOLVER.replace("x = x +", "time.sleep(0.1)\n        x = x +").replace(
    "\nfrom data", "import time\nfrom data", 1
)


def running(process, study, rows=1):
    """Wait until a sweep has made some rows."""
    until = time.monotonic() + 100
    while len(list(study.glob("rows/*.json"))) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_rows_removed_while_a_sweep_runs_are_missed(tmp_path, ended):
    words = ("-m", *plugin(tmp_path, SLOW), *CELL, "nfe=6", "seed=0,1,2")
    process = start(*words, folder=tmp_path)
    study = tmp_path / "results" / "s"
    running(process, study)
    for path in study.glob("rows/*.json"):
        path.unlink()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "of this run are gone or damaged" in err
    assert ended(*words)[0] == 0
    assert len(rows_of(study)) == 3


@pytest.mark.slow
def test_ctrl_c_saves_what_is_done_and_says_one_line(tmp_path, ended):
    words = ("-m", *plugin(tmp_path, SLOW), *CELL, "nfe=6", "seed=0,1,2", "save_every=1000")
    process = start(*words, folder=tmp_path)
    running(process, tmp_path / "results" / "s")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == [STOPPED]
    assert ended(*words)[0] == 0


def test_sigterm_is_heard_within_a_step_and_said_in_one_line(tmp_path):
    many = SOLVER.replace(
        "        x = x +",
        "        open('begun', 'w').close()\n"
        "        for _ in range(10**6 - 1):\n            process.drift(x, t)\n        x = x +",
    )
    words = plugin(tmp_path, many.replace("order = 1", "order = 1\n    evaluations = 10**6"))
    process = start(*words, *CELL, "nfe=1000000", "final=stop", "tracker=jsonl", folder=tmp_path)
    until = time.monotonic() + 100
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert err.splitlines() == [STOPPED]


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(tmp_path, ended):
    words = ("-m", *plugin(tmp_path, SLOW), *CELL, "nfe=6", "seed=range(0,30)")
    process = start(*words, folder=tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=60)
    err = process.stderr.read()
    assert process.returncode == 141
    assert err.count("\n") <= 1, err
    plan = start("-m", *CELL, "seed=range(0,200)", "plan=true", folder=tmp_path)
    plan.stdout.close()
    assert plan.wait(timeout=60) == 141
    assert plan.stderr.read() == ""


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_command(tmp_path, ended):
    words = ("-m", *plugin(tmp_path, SLOW), *CELL, "nfe=6", "seed=range(0,40)", "hydra/launcher=joblib")
    process = start(*words, "hydra.launcher.n_jobs=2", folder=tmp_path)
    study = tmp_path / "results" / "s"
    running(process, study)
    process.kill()
    process.communicate()
    until = time.monotonic() + 45
    while time.monotonic() < until and _alive(process.pid):
        time.sleep(0.5)
    assert not _alive(process.pid)
    count = len(rows_of(study))
    time.sleep(1.5)
    assert len(rows_of(study)) == count < 40


ORPHAN = """
import time
from pathlib import Path
from seedsbench.bench.stopping import stop_requested
from seedsbench.cli.launchers import as_worker

def work():
    while not stop_requested():
        time.sleep(0.05)

as_worker(work, Path("nowhere"), 2**22 + 1)  # no Linux has a process of this number
time.sleep(100)
"""


@pytest.mark.slow
def test_a_worker_whose_parent_was_killed_while_it_started_ends(tmp_path):
    done = subprocess.run([sys.executable, "-c", ORPHAN], cwd=tmp_path, env=environment(), timeout=90)
    assert done.returncode == 143


def _alive(group):
    """Processes of a group that are neither gone nor zombies."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, of_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
            found += [process.name] if of_group == str(group) and state != "Z" else []
    return found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_loses_its_permission_costs_one_line(tmp_path, ended):
    words = ("-m", *plugin(tmp_path, SLOW), *CELL, "nfe=6", "seed=range(0,6)")
    process = start(*words, folder=tmp_path)
    study = tmp_path / "results" / "s"
    running(process, study)
    (study / "rows").chmod(0o500)
    _, err = process.communicate(timeout=60)
    (study / "rows").chmod(0o700)
    assert process.returncode == 1
    assert "Permission denied" in err


def test_a_file_where_a_folder_belongs_is_set_aside(tmp_path, ended):
    study = tmp_path / "results" / "s"
    study.mkdir(parents=True)
    for name in ("rows", "samples", "partial"):
        (study / name).write_text("in the way")
    assert ended(*CELL, "nfe=6", "solver=euler")[0] == 0
    assert {path.name for path in study.glob("*.unreadable")} == {
        f"{n}.unreadable" for n in ("rows", "samples", "partial")
    }


def test_a_plan_writes_nothing(tmp_path, ended):
    assert ended(*CELL, "nfe=6", "solver=euler")[0] == 0
    (path,) = (tmp_path / "results" / "s" / "rows").glob("*.json")
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"fid": None}))
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    code, out, _ = ended(*CELL, "nfe=6", "solver=euler", "plan=true")
    assert code == 0
    assert "evaluations to do" in out
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
    assert ended(*CELL, "nfe=6", "solver=euler")[0] == 0
    assert json.loads(path.read_text())["fid"] == row["fid"]
    assert path.with_name(f"{path.name}.unreadable").is_file()
