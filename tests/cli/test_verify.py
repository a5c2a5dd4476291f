"""`seedsbench-verify`, end to end: a server on localhost has a tiny network, a table its printed FID."""

import csv
import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pooch
import pytest

from seedsbench.audit import main as check
from seedsbench.cli import verify
from seedsbench.cli.compose import compose_each, composing
from seedsbench.cli.dry_run import files_of_cell
from seedsbench.files.digests import file_sha256
from seedsbench.files.download import forget_failures
from seedsbench.report.printed import asked_for, printed
from tests.support.edm_checkpoint import write_edm
from tests.support.extractors import (
    HAS_TORCH_FIDELITY,
    some_images,
    write_dinov2,
    write_images,
    write_inception,
)
from tests.support.machine import ROOT

MODEL = """\
_target_: seedsbench.bench.problems.checkpoint.checkpoint_problem
_recursive_: false
name: tiny
shape: [3, 8, 8]
classes: 0
files:
  edm: {{url: {url}, sha256: "{sha256}", format: edm}}
licence: none
offline: ${{offline}}
"""
WORDS = ["tiny", "edm", "heun", "3"]
SIGNED = ["--sign-off", "Ada <ada@example.org>"]
NUMBER = {"model": "a tiny one", "source": "Ada (2026)", "where": "Table 1", "note": "min of 2 runs"}


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that is served, at `site.url`."""
    folder = tmp_path_factory.mktemp("site")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write_edm(folder / "net.pkl", resolution=8)
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def scored_on(tmp_path_factory):
    """Overrides of small random features and a reference for them."""
    folder = tmp_path_factory.mktemp("features")
    weights = write_dinov2(folder / "vit.pth")
    images = write_images(folder / "images", some_images(5))
    return f"metrics=dinov2 metrics.weights={weights} metrics.reference={images} metrics.kid_subsets=0"


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEEDSBENCH_CONF", "")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts at a download
    monkeypatch.setattr(pooch.get_logger(), "handlers", [])  # which remember the stderr of an earlier test
    forget_failures()


def write_table(path, *numbers):
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, ["fid", "overrides", *NUMBER])
        table.writeheader()
        table.writerows(NUMBER | number for number in numbers)
    return path


@pytest.fixture
def command(tmp_path, site, scored_on):
    """Exit code of seedsbench-verify, where a tiny network's FID is printed to be `fid`."""

    right = file_sha256(site.folder / "net.pkl")

    def call(*more, fid, url=f"{site.url}/net.pkl", sha256=right, words=WORDS, scored=scored_on):
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        (tmp_path / "mine" / "model").mkdir(parents=True)
        (tmp_path / "mine" / "model" / "tiny.yaml").write_text(MODEL.format(url=url, sha256=sha256))
        protocol = f"model=tiny regime=edm solver=heun nfe=3 samples=4 labels=none study=tiny {scored}"
        table = write_table(tmp_path / "table.csv", {"fid": fid, "overrides": protocol})
        own = ["--config-dir", str(tmp_path / "mine"), "--published", str(table)]
        return verify.main([*words, "device=cpu", *own, *more])

    return call


def records(folder):
    return sorted((folder / "results" / "verified").glob("*.json"))


def test_a_number_is_made_again_and_judged_both_ways(tmp_path, command, site, capsys):
    assert command(fid=1.0) == 1
    said = capsys.readouterr().out
    assert "tiny edm heun 3: FID " in said
    assert "(min of 2 runs, spread " in said
    assert "does not agree with the printed 1 (Ada (2026))" in said
    assert "to send it, add --sign-off" in said
    (path,) = records(tmp_path)
    record = json.loads(path.read_text())
    assert record["verdict"]["agrees"] is False
    assert record["verdict"]["fid"] == min(row["fid"] for row in record["rows"])
    weights = record["files"][0]
    assert weights["source"] == f"{site.url}/net.pkl"
    assert weights["sha256"] == file_sha256(site.folder / "net.pkl")
    assert [row["seed"] for row in record["rows"]] == [0, 1]
    assert all(row["version_torch"] and row["device_name"] for row in record["rows"])

    path.unlink()
    near = 1.015 * record["verdict"]["fid"]
    assert command(*SIGNED, fid=near) == 0
    assert f"agrees with the printed {near:g}" in capsys.readouterr().out
    (path,) = records(tmp_path)
    assert json.loads(path.read_text())["rows"] == record["rows"], "what is done is not run again"
    assert check.main([str(path), "--config-dir", str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    assert "2 rows of 1 record: no faults; not checked: 1, for want of a printed number" in said


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TORCH_FIDELITY, reason="needs torch-fidelity")
def test_statistics_come_from_the_server_too_where_features_are_inceptions(tmp_path, command, site):
    root = np.random.default_rng(0).standard_normal((2048, 8))
    np.savez(site.folder / "ref.npz", mu=root.mean(1), sigma=root @ root.T)
    weights = write_inception(tmp_path / "inception.pth")
    scored = f"metrics=inception metrics.weights={weights} +model.reference={site.url}/ref.npz"
    assert command(*SIGNED, fid=1.0, scored=scored) == 1
    (path,) = records(tmp_path)
    record = json.loads(path.read_text())
    assert [file["name"] for file in record["files"]] == ["net.pkl", "ref.npz", "inception.pth"]
    assert {row["reference"] for row in record["rows"]} == {"ref.npz"}
    assert command(*SIGNED, fid=record["verdict"]["fid"], scored=scored) == 0


def refusal(capsys, code, call, *arguments, **options):
    """The one line that a command says, beside those of the download's progress."""
    assert call(*arguments, **options) == code
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if line.startswith("seedsbench-verify: ")]
    assert "Traceback" not in " ".join(said)
    return line


def test_what_cannot_be_had_is_one_line_and_leaves_no_record(tmp_path, command, capsys):
    wrong = refusal(capsys, 1, command, fid=1.0, sha256="0" * 64)
    assert "tiny edm heun 3: cannot fetch net.pkl" in wrong
    assert f"expected {'0' * 64}" in wrong
    assert "no connection (" in refusal(capsys, 1, command, fid=1.0, url="http://127.0.0.1:9/net.pkl")
    assert "offline=true and net.pkl is not in the cache" in refusal(
        capsys, 1, command, "offline=true", fid=1.0
    )
    assert records(tmp_path) == []
    assert not (tmp_path / "results").exists()


def test_a_dry_run_lists_the_files_and_fetches_none(tmp_path, command, site, capsys):
    assert command("dry_run=true", fid=1.0) == 0
    assert f"from     {site.url}/net.pkl" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["tiny", "edm", "heun", "5"],
            "no printed FID is known of 'tiny edm heun 5'. Known: tiny edm heun 3",
        ),
        (["edm_table2"], "no printed FID is known of 'edm_table2'. Known: (none)"),
        (["tiny", "edm"], "'tiny edm': give model regime solver nfe, or an experiment"),
        ([*WORDS, "samples=10"], "samples=10 would make another number: beside it give device, batch_size"),
    ],
)
def test_a_wrong_command_is_one_line(command, capsys, words, said):
    assert said in refusal(capsys, 2, command, fid=1.0, words=words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fid": "-1"}, "line 2: fid is -1.0: give a number above 0"),
        ({"fid": "nan"}, "line 2: fid is nan"),
        ({"fid": "low"}, "line 2: could not convert"),
        ({"overrides": "model=tiny nfe=3"}, "line 2: overrides lack regime=, solver="),
        ({"overrides": ""}, "holds no row with overrides"),
        ({"note": "min of 0 runs"}, "line 2: min of 0 runs: write min or mean of 1 to 100 runs"),
    ],
)
def test_a_table_that_makes_no_sense_is_one_line(tmp_path, capsys, change, said):
    number = {"fid": 1, "overrides": "model=tiny regime=edm solver=heun nfe=3"}
    table = write_table(tmp_path / "table.csv", number | change)
    assert said in refusal(capsys, 2, verify.main, [*WORDS, "--published", str(table)])


def test_files_that_are_no_table_are_one_line(tmp_path, capsys):
    for name, content in {"empty": b"", "other": b"a,b\n1,2\n", "bytes": b"\xff\xfe\x00,\n"}.items():
        (tmp_path / name).write_bytes(content)
        line = refusal(capsys, 2, verify.main, [*WORDS, "--published", str(tmp_path / name)])
        assert str(tmp_path / name) in line
    assert "is not there" in refusal(capsys, 2, verify.main, [*WORDS, "--published", str(tmp_path / "none")])


def test_every_number_of_the_package_is_a_cell_with_files_and_the_least_of_three_runs():
    numbers = printed()
    assert len({one.name for one in numbers}) == len(numbers) >= 11
    assert ("cifar10_uncond", "edm", "heun", "35") in {one.name for one in numbers}
    assert {(one.of, one.runs) for one in numbers} == {("min", 3)}
    assert asked_for(["edm_table2"], numbers) == numbers
    with composing():
        cells = [one.cell for one in compose_each([one.overrides for one in numbers], "study")]
    for one, cell in zip(numbers, cells, strict=True):
        assert (cell.choices["model"], cell.regime.name, cell.choices["solver"], str(cell.nfe)) == one.name
        assert (cell.samples, cell.repeats, cell.seeding) == (50_000, 3, "edm")
        assert [file.role for file in files_of_cell(cell)] == ["weights", "reference", "inception weights"]


def test_the_documentation_names_every_number_and_who_has_verified_it():
    """Each is in the table with its FID, and verified by nobody where there is no record of its model."""
    text = (ROOT / "docs" / "reproduce-a-table.md").read_text()
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    for one in printed():
        model, regime, solver, nfe = one.name
        found = [line for line in lines if line[0].strip() == f"`{model}`" and line[3].strip() == nfe]
        ((_, regimes, named, _, fids, by),) = found
        place = regimes.replace(" ", "").split(",").index(f"`{regime}`")
        assert (named.strip(), float(fids.split(",")[place])) == (f"`{solver}`", one.fid)
        records = list((ROOT / "results" / "verified").glob(f"{model}-*.json"))
        assert bool(records) != ("nobody yet" in by)
