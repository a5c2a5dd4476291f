"""`seedsbench-check`: planted faults are found by name, sound studies pass, no row's own code is run."""

import json
import shutil
import sys

import numpy as np
import pytest

from seedsbench.audit import main as command
from seedsbench.audit.row_checks import ALWAYS, ROW_CHECKS, SCORE_RANGES
from seedsbench.audit.studies import STUDY_CHECKS, examined, studies_in
from seedsbench.bench.cell import NUMERICS_VERSION
from seedsbench.bench.progress import SweepLine
from seedsbench.cli.compose import Bases, compose_each, composing
from seedsbench.cli.sweep import run_seeds
from tests.support.cells import config_dir
from tests.support.documents import files
from tests.support.machine import ROOT

MIXTURE = ["model=gaussian_mixture", "samples=40"]
GUIDED = ["guidance=cfg", "guidance.interval=[0.3,5]", "solver=heun", "nfe=14"]
CELLS = [
    [*MIXTURE, "solver=euler", "nfe=6", "keep_statistics=true"],
    [*MIXTURE, "solver=dopri5", "nfe=30"],
    [*MIXTURE, "solver=seeds3", "nfe=2"],
    ["model=glyphs", "samples=40", "solver=euler", "nfe=8", "keep_statistics=true"],
    ["model=glyphs", "samples=40", "solver=euler", "nfe=6", "seed=1"],
    ["model=glyphs", "samples=40", *GUIDED],
]
AB2 = files()["mine/ab2.py"]
BASES = Bases()


def make(folder, cells):
    """A study with these cells, made as the command makes them."""
    for words in cells:
        own = (f"results_dir='{folder}'", "study=study", "device=cpu")
        with composing():
            (found,) = compose_each([(*words, *own)], "study", BASES)
        list(run_seeds(found.cell, found.words, "test", SweepLine([1])))
    return folder / "study"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make(tmp_path_factory.mktemp("sound"), CELLS)


@pytest.fixture
def study(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "study")


def found_in(study):
    with composing():
        return examined(study, BASES)


def row_of(study, model="glyphs", solver="euler"):
    """The path of a row of the study, and what it holds."""
    rows = [(path, json.loads(path.read_text())) for path in sorted((study / "rows").iterdir())]
    wanted = (model, solver, 0)
    return next((p, row) for p, row in rows if (row["model"], row["solver"], row["seed"]) == wanted)


def alone(study, key):
    """Of the rows leave that of one key."""
    for path in (study / "rows").iterdir():
        if path.stem != key:
            path.unlink()


def edited(change=None, **values):
    """Damage: these values of a row, or change(row), which may give others."""

    def damage(study):
        path, row = row_of(study)
        path.write_text(json.dumps({**row, **values, **(change(row) if change else {})}))
        return path.stem

    return damage


def of_row(solver, **values):
    """The same of another row."""

    def damage(study):
        path, row = row_of(study, "gaussian_mixture", solver)
        path.write_text(json.dumps({**row, **values}))
        return path.stem

    return damage


def on_statistics(harm):
    def damage(study):
        path, row = row_of(study)
        harm(study / "statistics" / f"{row['run_key']}.npz")
        return path.stem

    return damage


def resaved(path):
    """With other logits, as a whole file."""
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "logits": arrays["logits"][::-1]})


def truncated(study):
    path, _ = row_of(study)
    path.write_bytes(path.read_bytes()[:-20])
    return path.stem


def doubled(study):
    path, row = row_of(study)
    path.with_name("0123456789abcdef.json").write_text(json.dumps({**row, "run_key": "0123456789abcdef"}))
    return "0123456789abcdef"


def without_row(study):
    path, _ = row_of(study)
    path.unlink()
    return path.stem


FAULTS = {
    "truncated": ("row", truncated),
    "another key": (
        "run_key",
        edited(command="seedsbench model=glyphs solver=euler nfe=9 samples=40 seed=0"),
    ),
    "no command": ("run_key", edited(command=None)),
    "another program": ("run_key", edited(command="rm -rf results")),
    "half a command": ("run_key", edited(command="seedsbench 'model")),
    "a command that makes no cell": ("run_key", edited(command="seedsbench solver=hoin")),
    "another solver": ("settings", edited(solver="heun")),
    "another option": ("settings", edited(grid_params={"rho": 5.0, "sigma_max": None, "sigma_min": None})),
    "a source that is none": ("settings", edited(solver_params={"source_id": "0" * 16})),
    "an old version": ("version", edited(numerics_version=NUMERICS_VERSION - 1)),
    "beyond the budget": ("promise", edited(nfe=9.0, nfe_max=9, n_steps=8)),
    "cheaper than its steps": ("promise", edited(nfe=7.0, nfe_max=7)),
    "fewer steps": ("promise", edited(n_steps=6)),
    "more steps than an adaptive solver may try": ("promise", of_row("dopri5", nfe_max=31)),
    "skipped without need": ("promise", of_row("euler", status="skipped", reason="no step fits")),
    "below the floor": ("floor", edited(lambda row: {"fid": row["fid_floor"] / 10})),
    "far below any floor": ("floor", of_row("euler", fid=0.0)),
    "too many classes": ("limits", edited(is_mean=10.5)),
    "less than no class": ("limits", edited(is_mean=0.5)),
    "a share above 1": ("limits", edited(saturated=1.5)),
    "incomplete": ("limits", edited(nfe_max=None)),
    "too fast": ("speed", edited(lambda row: {"images_per_second": 2 * row["images_per_second"]})),
    "no statistics": ("statistics", on_statistics(lambda path: path.unlink())),
    "cut statistics": ("statistics", on_statistics(lambda path: path.write_bytes(path.read_bytes()[:-50]))),
    "other statistics": ("statistics", on_statistics(resaved)),
    "unnamed statistics": ("statistics", edited(statistics_id=None)),
    "a better FID": ("scores", edited(lambda row: {"fid": row["fid"] * (1 - 1e-5)})),
    "a better IS": ("scores", edited(lambda row: {"is_mean": row["is_mean"] * (1 + 1e-5)})),
    "twice": ("duplicate", doubled),
    "another extractor": ("evaluator", edited(extractor_id="0" * 16)),
    "another reference": ("evaluator", edited(reference_id="0" * 16)),
    "no row": ("orphan", without_row),
}


def test_a_sound_study_passes(sound):
    found = found_in(sound)
    assert (found.faults, found.rows, dict(found.not_checked)) == ([], len(CELLS), {})


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_name(study, name):
    check, damage = FAULTS[name]
    key = damage(study)
    if check in ROW_CHECKS:
        alone(study, key)
    assert (key, check) in {(fault.file.stem, fault.check) for fault in found_in(study).faults}


def test_every_check_has_a_fault_that_it_finds_and_a_line_in_the_help(capsys):
    names = {"row", *ROW_CHECKS, *STUDY_CHECKS}
    assert {check for check, _ in FAULTS.values()} == names
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert names <= set(capsys.readouterr().out.split())


def test_the_committed_example_passes():
    found = found_in(ROOT / "results" / "example")
    assert (found.faults, dict(found.not_checked)) == ([], {})
    assert found.rows == len(list((ROOT / "results" / "example" / "rows").iterdir()))


def test_exit_codes_and_one_line_a_fault(sound, study, tmp_path, capsys):
    path, row = row_of(study)
    alone(study, path.stem)
    (study / "statistics" / f"{row_of(sound, 'gaussian_mixture')[1]['run_key']}.npz").unlink()
    assert command.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 row of 1 study: no faults\n"
    path.write_text(json.dumps({**row, "saturated": 2.0, "images_per_second": 1.0}))
    assert command.main([str(study), str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert [line.split(": ")[:2] for line in said.out.splitlines()] == [
        [str(path), "limits"],
        [str(path), "speed"],
    ]
    assert said.err == "1 row of 1 study: 2 faults\n"
    for wrong in ("rows", "nowhere"):
        assert command.main([str(study / wrong)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert command.main([str(study), "--config-dir", str(tmp_path / "none")]) == 2


def test_studies_are_found_below_a_folder_and_no_link_is_followed(tmp_path):
    for place in ("a/rows", "b/c/rows", "b/c/old/rows", ".hidden/rows"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    assert studies_in(tmp_path) == [tmp_path / "a", tmp_path / "b" / "c"]


def test_what_is_not_here_is_not_checked_and_no_fault(study):
    path, row = row_of(study, "gaussian_mixture", "dopri5")
    path.write_text(json.dumps({**row, "command": "seedsbench --config-dir /no/such/dir solver=ab2 nfe=30"}))
    found = found_in(study)
    assert found.faults == []
    (reason,) = found.not_checked
    assert reason == "what its command names in /no/such/dir: give it as --config-dir"


def test_a_searched_grid_is_checked_where_its_file_is(tmp_path):
    path = tmp_path / "found.yaml"
    path.write_text("grids: [[80, 5, 2, 1, 0.5]]\n")
    study = make(tmp_path, [[*MIXTURE, "solver=euler", "nfe=5", "grid=searched", f"grid.path={path}"]])
    assert (found_in(study).faults, dict(found_in(study).not_checked)) == ([], {})
    path.write_text("grids: [[80, 5, 2, 1, 0.4]]\n")
    assert any("grid_params" in fault.why for fault in found_in(study).faults)
    path.unlink()
    found = found_in(study)
    assert found.faults == []
    (reason,) = found.not_checked
    assert reason.startswith(f"a file that its command names: path={path} is not there")


def test_a_plug_in_is_checked_where_it_is_here_and_the_same(tmp_path, monkeypatch):
    mine = config_dir(monkeypatch, tmp_path, "solver", "ab2", AB2, {"ab2": "AB2"})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    study = make(tmp_path, [[*MIXTURE, "solver=ab2", "nfe=6"]])
    assert found_in(study).faults == []
    assert not found_in(study).not_checked
    (mine / "ab2.py").write_text(AB2.replace("0.5 * h", "0.0 * h"))
    monkeypatch.delitem(sys.modules, "ab2", raising=False)
    found = found_in(study)
    assert found.faults == []
    assert set(found.not_checked) == {"its solver=ab2: the one here has another source"}
    monkeypatch.delitem(sys.modules, "ab2")


EVIL = "import pathlib\npathlib.Path({!r}).touch()\nclass AB2:\n    pass\ndef build():\n    pass\n"


@pytest.mark.parametrize(
    "words",
    [
        "--config-dir {0} solver=evil",
        "--config-dir {0} hydra.searchpath=[file://{0}] solver=evil",
        "--config-dir {0} solver=../../../../../../../..{0}/solver/evil",
        "solver._target_=evil.AB2",
        "+solver.x.y._target_=evil.AB2 solver._target_=runpy.run_path",
        "model=python model.path={0}/evil.py:build model.shape=[3,8,8] metrics=values",
        "tracker._target_=evil.AB2",
    ],
)
def test_nothing_that_a_row_names_is_run(study, tmp_path, monkeypatch, words):
    evil = tmp_path / "evil"
    (evil / "solver").mkdir(parents=True)
    (evil / "evil.py").write_text(EVIL.format(str(tmp_path / "it ran")))
    (evil / "solver" / "evil.yaml").write_text("_target_: evil.AB2\n")
    monkeypatch.syspath_prepend(evil)
    path, row = row_of(study, "gaussian_mixture", "dopri5")
    alone(study, path.stem)
    path.write_text(json.dumps({**row, "command": f"seedsbench {words.format(evil)} seed=0"}))
    found = found_in(study)
    assert found.not_checked or found.faults
    assert not (tmp_path / "it ran").exists()


ODD = (None, -1, 0, 1e15, 2**53 - 1, "text", "", {}, {"splits": "x"}, [1], True)


@pytest.mark.slow
def test_no_value_in_a_row_ends_the_program(study):
    path, row = row_of(study)
    alone(study, path.stem)
    for name in sorted({*row, *ALWAYS, *SCORE_RANGES} - {"run_key"}):
        for value in ODD:
            path.write_text(json.dumps({**row, name: value}))
            found = found_in(study)
            assert found.rows == 1 or found.faults[0].check == "row"
