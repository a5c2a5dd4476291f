"""The command line: what it accepts, what it refuses and how, and sweeps that are interrupted."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seedsbench.cli import main as cli
from seedsbench.cli.command import parse
from seedsbench.diffusion.process import Process
from seedsbench.solvers.integrate import NonFiniteError
from tests.support.cells import check, python, rows_of, run, same, write_broken_model
from tests.support.machine import environment

QUICK = ["model=gaussian_mixture", "samples=20", "device=cpu"]


@pytest.fixture
def isolated(tmp_path, monkeypatch):
    """A working directory and process-wide settings that the command line may change freely."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_CONF", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def seedsbench(isolated, capsys):
    """Runs a command in process: arguments -> (exit code, stdout, stderr)."""

    def run(*arguments):
        capsys.readouterr()
        code = 0
        try:
            cli.main(list(arguments))
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return run


def console(*arguments, folder, code=0):
    return python("-m", "seedsbench", *arguments, folder=folder, code=code)


def test_flags_may_stand_anywhere():
    expected = parse(["-m", "--config-dir", "there", "solver=euler,heun", "nfe=5"])
    assert expected.multirun
    assert parse(["solver=euler,heun", "-m", "nfe=5", "--config-dir", "there"]) == expected
    assert parse(["solver=euler,heun", "nfe=5", "--config-dir=there", "--multirun"]) == expected
    assert expected.overrides == ("solver=euler,heun", "nfe=5")
    assert expected.config_dirs == ("there",)


def test_a_refusal_writes_and_evaluates_nothing(seedsbench, tmp_path, monkeypatch):
    monkeypatch.setattr(Process, "predict", None)
    code, out, err = seedsbench(*QUICK, "-m", "solver=euler,heun", "nfe=5,6", "final=nowhere")
    assert (code, out) == (2, "")
    assert err.startswith("seedsbench: final='nowhere'")
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_command_that_can_run_is_accepted_with_its_study_folder(isolated):
    composed, text = check(parse([*QUICK, "solver=seeds3", "results_dir=out", "study=mine", "-m", "nfe=5,6"]))
    assert (composed[0].cell.study_folder, text) == (Path("out/mine"), None)
    assert [one.cell.nfe for one in composed] == [5, 6]
    assert os.listdir(isolated / "out" / "mine") == []


@pytest.mark.slow
def test_published_is_a_key_of_the_report_and_of_no_cell(seedsbench, tmp_path):
    cell = ("model=gaussian_mixture", "solver=euler", "nfe=5", "samples=20")
    keys = []
    for extra in ((), ("published=true",)):
        study = tmp_path / str(len(extra))
        seedsbench(*cell, f"results_dir={tmp_path}", f"study={study.name}", *extra)
        (row,) = (study / "rows").glob("*.json")
        keys.append(row.stem)
        assert "published" not in json.loads(row.read_text())["command"]
        # Its figures say that nothing published may be compared with these features.
        assert (study / "figures" / "published.csv").exists() is bool(extra)
    assert keys[0] == keys[1]


def test_a_sweep_leaves_rows_table_and_figure_and_prints_the_report(seedsbench, tmp_path):
    code, out, err = seedsbench(*QUICK, "solver=euler,heun", "-m", "nfe=5,7", "study=s", "tracker=jsonl")
    study = tmp_path / "results" / "s"
    rows = rows_of(study)
    assert (code, err) == (0, "")
    assert {(row["solver"], row["nfe"]) for row in rows.values()} == {
        *(("euler", 5.0), ("euler", 7.0), ("heun", 5.0), ("heun", 7.0)),
    }
    assert all(row["status"] == "done" for row in rows.values())
    for name in ("table.csv", "table.md", "figures/pareto.png", "figures/pareto.svg"):
        assert (study / name).stat().st_size > 0, name
    assert "4 cells: 4 done, 0 skipped, 0 failed." in out
    assert str(Path("results/s/figures/pareto.png")) in out
    assert "Glyph" not in out, "other libraries keep quiet"
    tracked = [json.loads(line) for line in (study / "track.jsonl").read_text().splitlines()]
    assert len(tracked) == 4
    assert {row["run_key"]: row for row in tracked} == rows

    (study / "rows" / "notes.json").write_text('{"not": "a row"}')
    written = {path: path.stat().st_mtime_ns for path in (study / "rows").iterdir()}
    code, out, err = seedsbench(*QUICK, "solver=euler,heun", "-m", "nfe=5,7", "study=s", "tracker=jsonl")
    assert code == 0
    assert "notes.json" in err, "the report names what it left out"
    assert out.count("is already done") == 4
    assert {path: path.stat().st_mtime_ns for path in (study / "rows").iterdir()} == written


def test_repeats_are_rows_with_consecutive_seeds(seedsbench, tmp_path):
    assert seedsbench(*QUICK, "solver=seeds1", "nfe=5", "seed=7", "repeats=3")[0] == 0
    (study,) = (tmp_path / "results").glob("20*")  # named by the time
    rows = rows_of(study).values()
    assert sorted(row["seed"] for row in rows) == [7, 8, 9]
    assert len({row["fid"] for row in rows}) == 3


def test_the_command_in_a_row_gives_the_row_again(seedsbench, tmp_path):
    command = ["grid=explicit", "grid.sigmas=[50,5,0.5]", "solver=euler", "repeats=2", "study=a"]
    assert seedsbench(*QUICK, *command)[0] == 0
    row = max(rows_of(tmp_path / "results" / "a").values(), key=lambda row: row["seed"])
    words = shlex.split(row["command"])
    assert words[0] == "seedsbench"
    assert seedsbench(*words[1:], "study=b")[0] == 0
    again = rows_of(tmp_path / "results" / "b")
    assert list(again) == [row["run_key"]]
    assert same(again[row["run_key"]]) == same(row)


def test_a_budget_too_small_is_a_skipped_row_and_no_failure(seedsbench, tmp_path):
    code, out, _ = seedsbench(*QUICK, "-m", "solver=heun", "nfe=1,2,5", "study=s")
    rows = {row["nfe_budget"]: row for row in rows_of(tmp_path / "results" / "s").values()}
    assert code == 0
    assert {nfe: row["status"] for nfe, row in rows.items()} == {1: "skipped", 2: "skipped", 5: "done"}
    assert all("smallest budget that works is 3" in rows[nfe]["reason"] for nfe in (1, 2))
    assert "3 cells: 1 done, 2 skipped, 0 failed." in out


@pytest.mark.slow
def test_a_home_in_results_dir_is_the_users(seedsbench, tmp_path, monkeypatch):
    """For the rows as for Hydra's own log, and for what plan=true finds done."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, out, _ = seedsbench(*QUICK, "nfe=5", "results_dir=~/r", "study=s")
    assert code == 0
    study = tmp_path / "home" / "r" / "s"
    assert len(rows_of(study)) == 1
    assert (study / "seedsbench.log").is_file()
    assert str(study / "table.md") in out
    assert "done, FID" in seedsbench(*QUICK, "nfe=5", "results_dir=~/r", "study=s", "plan=true")[1]
    seedsbench(*QUICK, "-m", "nfe=6,7", "results_dir=~/r", "study=s")
    assert len(rows_of(study)) == 3
    assert not (tmp_path / "~").exists()


def test_a_failing_cell_never_stops_the_sweep(seedsbench, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDSBENCH_CONF", str(write_broken_model(tmp_path / "mine")))
    code, _, err = seedsbench(*QUICK[1:], "-m", "model=broken,gaussian", "solver=euler", "nfe=6,7", "study=s")
    study = tmp_path / "results" / "s"
    rows = [(row["model"], row["status"], row["reason"]) for row in rows_of(study).values()]
    assert code == 1
    assert [status for model, status, _ in rows if model == "gaussian"] == ["done", "done"]
    failed = [reason for model, status, reason in rows if (model, status) == ("broken", "failed")]
    assert len(failed) == 2
    assert all("non-finite in step" in reason and "sigma=" in reason for reason in failed)
    assert (study / "figures" / "pareto.png").is_file()
    assert "2 cell(s) failed" in err
    assert "Traceback" not in err


def test_debug_raises_at_the_first_failing_cell(seedsbench, tmp_path):
    folder = write_broken_model(tmp_path / "mine")
    command = ["--config-dir", str(folder), "model=broken", "samples=20", "solver=euler", "debug=true"]
    with pytest.raises(NonFiniteError, match="non-finite in step"):
        seedsbench(*command, "-m", "nfe=6,7", "study=s")
    assert rows_of(tmp_path / "results" / "s") == {}


def test_plan_lists_the_cells_and_writes_nothing(seedsbench, tmp_path):
    code, out, err = seedsbench(*QUICK, "-m", "solver=euler,heun", "nfe=1,9", "repeats=2", "plan=true")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "8 cells"
    assert len(out.splitlines()) == 11
    assert "gaussian_mixture/edm heun nfe=9 seed=1: 4 steps, NFE 9, 180 evaluations to do" in out
    assert out.count("will be skipped") == 4
    assert os.listdir(tmp_path) == []


def test_help_teaches_and_the_version_is_told(tmp_path, seedsbench):
    said = console("--help", folder=tmp_path)
    example = "seedsbench -m solver=seeds1,seeds3,heun nfe=10,20,50"
    assert all(word in said for word in (example, "gaussian_mixture", "--config-dir", "iddpm"))
    assert seedsbench("--version")[1].startswith("seedsbench ")


@pytest.mark.parametrize("words", [("--help",), ("--cfg", "job"), ("--help", "solver=heun")])
def test_a_reader_that_is_gone_is_no_error(tmp_path, words):
    read, write = os.pipe()
    os.close(read)
    command, streams = (
        [sys.executable, "-m", "seedsbench", *words],
        {"stdout": write, "stderr": subprocess.PIPE},
    )
    said = subprocess.run(command, cwd=tmp_path, env=environment(), **streams)
    os.close(write)
    assert (said.returncode, said.stderr) == (141, b"")


def test_the_newest_study_is_found_under_one_name(seedsbench, tmp_path, monkeypatch):
    latest = tmp_path / "results" / "latest"
    for study in ("first", "second"):
        assert seedsbench(*QUICK, "solver=euler", "nfe=5", f"study={study}")[0] == 0
        assert os.readlink(latest) == study
    assert rows_of(latest) == rows_of(tmp_path / "results" / "second")
    assert seedsbench(*QUICK, "nfe=5", "plan=true", "study=third")[0] == 0
    assert os.readlink(latest) == "second", "a plan makes no study"
    latest.unlink()

    def no_links(*_, **__):
        raise OSError("links are not for this user")

    monkeypatch.setattr(os, "symlink", no_links)
    for study in ("first", "second"):
        assert seedsbench(*QUICK, "solver=euler", "nfe=5", f"study={study}")[0] == 0
        assert latest.read_text() == f"{study}\n"


def test_a_study_of_ones_own_may_be_called_latest(seedsbench, tmp_path):
    for study in ("latest", "other"):
        assert seedsbench(*QUICK, "solver=euler", "nfe=5", f"study={study}")[0] == 0
        assert len(rows_of(tmp_path / "results" / study)) == 1
    assert not (tmp_path / "results" / "latest").is_symlink()


def test_cfg_shows_a_cell(tmp_path):
    folder = write_broken_model(tmp_path / "mine")
    given = ("--cfg", "job", "--config-dir", str(folder), "model=broken", "solver=seeds3", "solver.c2=0.4")
    said = console(*given, folder=tmp_path)
    assert "c2: 0.4" in said
    assert "broken_network" in said


@pytest.mark.slow
def test_kill_9_and_resume_give_the_rows_of_an_uninterrupted_run(seedsbench, tmp_path):
    command = [*QUICK, "-m", "solver=euler,seeds2", "nfe=8", "repeats=20"]
    study, program = tmp_path / "results" / "killed", Path(sys.executable).with_name("seedsbench")
    with open(tmp_path / "log", "w") as log:
        words = [program, *command, "study=killed"]
        process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=log)
        deadline = time.monotonic() + 60
        while len(list(study.glob("rows/*.json"))) < 3:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {path: path.stat().st_mtime_ns for path in study.glob("rows/*.json")}
    assert 3 <= len(before) < 40

    assert seedsbench(*command, "study=killed")[0] == 0
    assert seedsbench(*command, "study=whole", "batch_size=7")[0] == 0
    killed, whole = rows_of(study), rows_of(tmp_path / "results" / "whole")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(whole) == 40
    assert {key: same(row) for key, row in killed.items()} == {key: same(row) for key, row in whole.items()}


@pytest.mark.slow
def test_two_sweeps_into_one_study_end_well_and_the_last_report_is_of_all(tmp_path):
    def sweep(nfe):  # both compute and write two of the rows
        return console(
            *QUICK, "-m", "solver=euler", nfe, "force=true", "save_every=0", "study=s", folder=tmp_path
        )

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(sweep, ("nfe=5,6,8", "nfe=5,6,9")))
    assert all("0 failed." in said and "Traceback" not in said and "problem" not in said for said in told)
    assert any("4 cells: 4 done, 0 skipped, 0 failed." in said for said in told)

    study = tmp_path / "results" / "s"
    rows = rows_of(study).values()
    assert sorted((row["nfe_budget"], row["status"]) for row in rows) == [(n, "done") for n in (5, 6, 8, 9)]
    for row in rows:
        assert same(row) == same(run(tmp_path, *QUICK, "solver=euler", f"nfe={row['nfe_budget']}"))
    with (study / "table.csv").open() as file:
        assert sorted(int(line["nfe_budget"]) for line in csv.DictReader(file)) == [5, 6, 8, 9]
    assert (study / "report.html").read_text().rstrip().endswith("</html>")
    assert not [path for path in study.rglob("*") if path.suffix == ".tmp" or "unreadable" in path.name]
    assert not (study / "partial").exists()
