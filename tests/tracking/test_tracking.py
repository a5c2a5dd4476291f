"""Trackers: what they are told, what W&B is left with, and that none of them can cost a row."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from seedsbench import registry
from seedsbench.files.rows import CellProgress, title_of
from seedsbench.report.main import build_report
from seedsbench.tracking import base as tracking
from seedsbench.tracking import wandb as tracking_wandb
from seedsbench.tracking.base import JsonLines, harmless
from seedsbench.tracking.wandb import WandB
from tests.support.cells import python, run, write_choices
from tests.support.machine import ROOT
from tests.support.studies import make_row, write_study
from tests.support.wandb_reader import offline_runs

CODES = {"done": 0, "skipped": 0, "failed": 1}
IMAGES = ("model=glyphs", "samples=12", "nfe=5")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No W&B login or earlier warning of this process reaches a test."""
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # which wandb would send over the network
    for state in (tracking._SAID, tracking_wandb._FALLEN_BACK, tracking_wandb._AGENT_RUNS):
        state.clear()
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def test_a_failing_tracker_is_one_warning(caplog):
    def down():
        raise ConnectionError("the\nserver is gone")

    for _ in range(3):
        harmless("tracking", down)
    (record,) = caplog.records
    said = "tracking failed, the rows are not affected: ConnectionError: the server is gone"
    assert record.getMessage() == said
    with pytest.raises(KeyboardInterrupt):
        harmless("tracking", lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_nothing_is_imported_when_off():
    code = (
        "import sys; from seedsbench import cli; from seedsbench.registry import build, load\n"
        "from pathlib import Path\n"
        "for name in ('none', 'jsonl'): build(load('tracker', name)).finish_study(Path('.'))\n"
        "build(load('tracker', 'none')).log_row(Path('nowhere'), {}, '')\n"
        "build({**load('tracker', 'wandb'), 'mode': 'disabled'}).log_row(Path('.'), {}, '')\n"
        "assert 'wandb' not in sys.modules and 'torch' not in sys.modules"
    )
    python("-c", code, folder=ROOT)


def test_the_mode_is_wandbs_variable_unless_it_is_given(monkeypatch):
    options = registry.load("tracker", "wandb")
    assert registry.build(options).effective_mode == "online"
    others = {"dryrun": "offline", "run": "online", "shared": "online"}
    for variable in ("offline", "disabled", "online", *others):
        monkeypatch.setenv("WANDB_MODE", variable)
        assert registry.build(options).effective_mode == others.get(variable, variable)
        given = registry.build({**options, "mode": "offline"})
        assert given.effective_mode == "offline", "what is given wins"
    for variable in ("ofline", "", "ONLINE"):
        monkeypatch.setenv("WANDB_MODE", variable)
        assert WandB(mode="online").effective_mode == "online"
        with pytest.raises(ValueError, match=f"unknown WANDB_MODE '{variable}'"):
            WandB()


def test_online_is_online_whatever_the_variable_says(monkeypatch):
    """To ask for a login, wandb looks at its variable, and finds nobody logged in where that says offline."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    wandb.teardown()
    assert tracking_wandb._logged_in(wandb)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A study of four cells (two done, one skipped, one failed) logged offline, and its runs."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("tracked")
    study, tracker = folder / "study", WandB(mode="offline", project="mine")
    rows = []
    for more in (["solver=euler"], ["solver=heun"], ["nfe=1"], ["labels=77"]):
        rows.append(run(folder, *IMAGES, *more))
        tracker.log_row(study, rows[-1], title_of(rows[-1]))
    build_report(study)
    tracker.finish_study(study)
    return study, rows, offline_runs(study)


def test_one_run_a_cell_grouped_by_study(tracked):
    _, rows, runs = tracked
    assert sorted(found.job_type for found in runs) == [*["cell"] * len(rows), "study"]
    assert len({found.id for found in runs}) == 5
    assert {(found.group, found.project, found.sweep) for found in runs} == {("study", "mine", "")}
    assert [row["status"] for row in rows] == ["done", "done", "skipped", "failed"]
    by_status = {found.summary["status"]: found for found in runs if found.job_type == "cell"}
    assert {status: found.exit_code for status, found in by_status.items()} == CODES
    assert by_status["failed"].summary["reason"] == rows[3]["reason"]
    assert "fid" not in by_status["failed"].summary


def test_a_cells_run_has_configuration_scores_axes_and_samples(tracked):
    study, rows, runs = tracked
    (found,) = (found for found in runs if found.name == "glyphs/edm heun nfe=5 seed=0")
    told = {"model": "glyphs", "regime": "edm", "solver": "heun", "nfe_budget": 5, "samples": 12, "seed": 0}
    assert {key: found.config[key] for key in told} == told
    assert not [key for key, value in found.config.items() if key != "_wandb" and isinstance(value, dict)]
    assert found.tags == ["glyphs", "edm", "heun"]
    assert found.metrics["fid"] == "nfe"
    (logged,) = found.history
    renamed = {"is": "is_mean", "seconds": "seconds_sampling"}
    for key in ("fid", "nfe", "is", "seconds", "images_per_second"):
        assert logged[key] == found.summary[key] == rows[1][renamed.get(key, key)], key
    assert "samples" not in {**logged, **found.summary}, "the number is in the configuration alone"
    image = found.files / logged["sample_images"]["path"]
    assert image.read_bytes() == (study / "samples" / f"{rows[1]['run_key']}.png").read_bytes()


def test_the_studys_run_has_table_chart_and_figures(tracked):
    study, rows, runs = tracked
    (found,) = (found for found in runs if found.job_type == "study")
    assert (found.job_type, found.exit_code, found.summary["cells"]) == ("study", 0, 4)
    (logged,) = found.history
    points_table = json.loads((found.files / logged["pareto_table"]["path"]).read_text())
    assert points_table["columns"] == ["panel", "solver", "nfe_budget", "nfe", "score", "runs"]
    assert {(line[1], line[3], line[4]) for line in points_table["data"]} == {
        (row["solver"], row["nfe"], row["fid"]) for row in rows[:2]
    }
    table = json.loads((found.files / logged["cells"]["path"]).read_text())
    fid, key = table["columns"].index("fid"), table["columns"].index("run_key")
    assert {line[key]: line[fid] for line in table["data"]} == {row["run_key"]: row["fid"] for row in rows}

    charts = {name: value for name, value in logged.items() if name.startswith("pareto/")}
    chart = {name: value for name, value in charts.items() if value.get("_type") == "table-file"}
    drawn = [json.loads((found.files / value["path"]).read_text()) for value in chart.values()]
    points = {(line[1], line[0], line[2]) for table in drawn for line in table["data"]}
    assert points == {(row["solver"], row["nfe"], row["fid"]) for row in rows[:2]}
    spec = json.dumps(found.config["_wandb"])
    assert "wandb/lineseries/v0" in spec, "the chart is W&B's own"
    figure = found.files / logged["figures/pareto"]["path"]
    assert figure.read_bytes() == (study / "figures" / "pareto.png").read_bytes()


@pytest.mark.parametrize("trouble", ["no login", "no connection"])
def test_an_outage_is_one_warning_and_the_rest_is_recorded_offline(tmp_path, monkeypatch, caplog, trouble):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    if trouble == "no connection":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    study, tracker = tmp_path / "study", WandB(timeout=1.0)
    started = time.monotonic()
    for nfe in (5, 6):
        row = run(tmp_path, f"nfe={nfe}")
        tracker.log_row(study, row, "a title")
    tracker.finish_study(study)
    assert time.monotonic() - started < 20
    ours = [r for r in caplog.records if r.name.startswith("seedsbench")]
    warnings = [r.getMessage() for r in ours if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "wandb sync" in warnings[0]
    assert ("login" if trouble == "no login" else "W&B cannot be reached") in warnings[0]
    assert [found.job_type for found in offline_runs(study)] == ["cell", "cell", "study"]


def test_under_an_agent_the_first_cell_is_the_agents_run_and_the_study_is_not(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    wandb.teardown()
    study, tracker = tmp_path / "study", WandB(mode="offline", project="mine")
    for seed in (0, 1):
        tracker.log_row(study, run(tmp_path, f"seed={seed}"), "a title")
    tracker.finish_study(study)
    found = offline_runs(study)
    assert [(one.sweep, one.id == "agentrun", one.job_type) for one in found] == [
        *(("sweep1", True, "cell"), ("", False, "cell"), ("", False, "study")),
    ]
    assert os.environ["WANDB_SWEEP_ID"] == "sweep1"


def test_json_lines_follow_no_link_and_wait_for_no_pipe(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / "track.jsonl").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("track.jsonl", "pipe.jsonl"):
        with pytest.raises(OSError, match=name):
            JsonLines(filename=name).log_row(tmp_path, {}, "")
    assert outside.read_text() == "untouched"


def test_a_studys_run_is_made_whatever_lies_in_its_folder(tmp_path):
    pytest.importorskip("wandb")
    study = tmp_path / "study"
    good = make_row("heun", 10)
    write_study(study, [good, make_row("ddim", 10)], sheets=True)
    (study / "rows" / "bad.json").write_text(json.dumps({**good, "run_key": "bad", "fid": -1}))
    build_report(study)
    os.mkfifo(study / "figures" / "fifo.png")
    (study / "figures" / "text.png").write_text("no picture")
    (study / "figures" / "zero.png").symlink_to("/dev/zero")
    strip = study / "samples" / f"{good['run_key']}.png"
    Path(os.fsdecode(os.fsencode(study) + b"/figures/\xfe.png")).write_bytes(strip.read_bytes())
    strip.unlink()
    os.mkfifo(strip)
    tracker = WandB(mode="offline")
    tracker.log_row(study, good, "a title")
    tracker.finish_study(study)
    cell, whole = sorted(offline_runs(study), key=lambda found: found.job_type)
    assert "sample_images" not in cell.history[0]
    assert whole.summary["cells"] == 2
    drawn = {name for name in whole.history[0] if name.startswith("figures/")}
    assert drawn >= {"figures/pareto", "figures/\N{REPLACEMENT CHARACTER}"}
    assert not drawn & {"figures/fifo", "figures/text", "figures/zero"}


SEEDS3 = {"c2": 0.4, "prediction": "data"}


def test_options_are_flat_and_bear_the_name_of_their_group(tmp_path):
    pytest.importorskip("wandb")
    row = make_row("seeds3", 20, params=SEEDS3, commit="a" * 40, grid_params={"rho": 7.0})
    study = write_study(tmp_path / "study", [row])
    WandB(mode="offline").log_row(study, row, "a title")
    (found,) = offline_runs(study)
    told = {"solver_c2": 0.4, "solver_prediction": "data", "grid_rho": 7.0, "git_commit": "a" * 40}
    assert {key: found.config[key] for key in told} == told
    assert (found.name, found.commit) == ("a title", "a" * 40)


def test_a_curve_is_one_run_a_solver_and_seed_with_nfe_as_its_axis(tmp_path):
    pytest.importorskip("wandb")
    rows = [make_row(s, n, seed=k) for n in (50, 10, 20) for s in ("heun", "ddim") for k in (0, 1)]
    rows += [make_row("heun", 5, status="skipped", reason="no step")]
    study, tracker = write_study(tmp_path / "study", rows), WandB(mode="offline", runs="curve")
    for row in rows:
        tracker.log_row(study, row, "a title")
    tracker.finish_study(study)
    *curves, whole = sorted(offline_runs(study), key=lambda found: (found.job_type, found.name))
    assert whole.job_type == "study"
    assert [(one.job_type, one.name) for one in curves] == [
        ("curve", f"glyphs/edm {solver} seed={seed}") for solver in ("ddim", "heun") for seed in (0, 1)
    ]
    assert len({one.id for one in curves}) == 4
    heun = curves[-1]
    mine = sorted(
        (row for row in rows if (row["solver"], row["seed"]) == ("heun", 1)), key=lambda r: r["nfe"]
    )
    assert [(point["nfe"], point["fid"], point["is"]) for point in heun.history] == [
        (row["nfe"], row["fid"], row["is_mean"]) for row in mine
    ]
    assert heun.metrics["fid"] == "nfe"
    assert (heun.aims["fid"], heun.aims["is"]) == ("min", "max")
    assert heun.config["solver"] == "heun"
    assert "nfe_budget" not in heun.config
    assert heun.exit_code == 0


def test_a_cell_that_runs_is_told_of_in_the_run_that_its_row_ends(tmp_path):
    pytest.importorskip("wandb")
    row = make_row("heun", 10)
    asked = {key: value for key, value in row.items() if key not in ("fid", "nfe", "device")}
    study, tracker = write_study(tmp_path / "study", [row]), WandB(mode="offline")
    assert tracker.progress_every == 30.0
    tracker.log_progress(study, CellProgress(asked, "a title", 100, 400, None))
    tracker.log_progress(study, CellProgress(asked, "a title", 300, 400, 12.5))
    tracker.log_row(study, row, "a title")
    (found,) = offline_runs(study)
    first, second, last = found.history
    assert (first["progress/images"], first["progress/share"]) == (100, 0.25)
    assert "progress/seconds_left" not in first
    assert second["progress/seconds_left"] == 12.5
    assert last["fid"] == found.summary["fid"] == row["fid"]
    assert found.config["device"] == "cpu"


def test_progress_reaches_a_tracker_from_a_command(tmp_path, monkeypatch):
    """A tracker of the user's own: told of images done while the cell runs, then of the row."""
    code = """
from dataclasses import dataclass
from seedsbench.tracking.base import Tracker

@dataclass(frozen=True)
class Mine(Tracker):
    progress_every = 0.0

    def log_progress(self, study, progress):
        with open(study / 'told', 'a') as file:
            print(progress.done, progress.samples, progress.row['run_key'], file=file)

    def log_row(self, study, row, title):
        with open(study / 'told', 'a') as file:
            print('row', row['run_key'], title, file=file)
"""
    folder = write_choices(tmp_path / "conf", "tracker", "mine", code, {"own": "Mine"})
    words = ["model=gaussian_mixture", "device=cpu", "samples=100", "batch_size=40", "-m", "nfe=5,6"]
    python("-m", "seedsbench", "--config-dir", folder, "tracker=own", *words, "study=s", folder=tmp_path)
    lines = (tmp_path / "results" / "s" / "told").read_text().splitlines()
    assert lines[-1].startswith("row ")
    assert lines[-1].endswith("gaussian_mixture/edm seeds3 nfe=6 seed=0")
    key = lines[-1].split()[1]
    assert [line for line in lines if key in line][-2] == f"100 100 {key}"
