"""The fault campaign's quick part, and that it sees what it looks for."""

import json
import random
import shutil
from unittest.mock import Mock

import pytest

from scripts import fault_campaign
from scripts.faults import contents
from scripts.faults.trials import BAD, Bench, Kind, Outcome


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(0, tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


def test_nothing_is_lost_or_wrong_in_the_quick_part(bench, tmp_path):
    record = fault_campaign.Record(tmp_path / "trials.jsonl", 0)
    fault_campaign.campaign(bench, list(fault_campaign.KINDS), record, quick=True, jobs=2)
    assert {kind for kind, _ in record.found} == {kind.name for kind in fault_campaign.KINDS if kind.quick}
    assert not [f"{place}: {found.note}" for place, found in record.found.items() if found.bad]
    again = fault_campaign.Record(tmp_path / "trials.jsonl", 0)
    assert again.found == record.found, "finished trials are not run again"


FOUND = {
    "NaN in sums": (contents.sums, "nan"),
    "infinity in sums": (contents.sums, "inf"),
    "1e308 in sums": (contents.sums, "huge"),
    "a pipe for a folder of sums": (contents.foreign, ("SUMS FOLDER", "a pipe")),
    "a link for a folder of sums": (contents.foreign, ("SUMS FOLDER", "a link to a folder")),
    "a pipe for a log": (contents.foreign, ("s/seedsbench.log", "a pipe")),
}
"""What the campaign has found."""


QUICK = ("NaN in sums", "a pipe for a log")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FOUND]
)
def test_what_the_campaign_found_stays_closed(bench, name):
    trial, case = FOUND[name]
    found = trial(bench, case, random.Random(0))
    assert not found.bad, found.note


def test_rows_that_are_gone_changed_or_half_written_are_seen(bench):
    folder = bench.finished()
    assert bench.judged(folder) == Outcome()
    first, second = sorted(folder.glob("results/s/rows/*.json"))
    first.write_text(json.dumps(json.loads(first.read_text()) | {"fid": 0.5}))
    shutil.move(second, second.with_name(".vm.1.x.tmp"))
    found = bench.judged(folder)
    assert (found.lost, found.wrong, found.left) == (1, 1, 1)
    assert "wrong ['fid']" in found.note


def test_what_an_ended_writer_leaves_is_a_fault_only_if_the_next_run_leaves_it(bench):
    folder = bench.finished()
    row = next(folder.glob("results/s/rows/*.json"))
    sums = folder / "results/s/partial" / row.stem / "rank-0.npz"
    sums.parent.mkdir(parents=True)
    sums.write_bytes(b"of a writer that was killed after another one had finished the cell")
    assert bench.judged(folder).left == 1
    assert bench.judged(folder, ended=True) == Outcome()
    assert not bench.again(folder).bad
    row.unlink()
    assert bench.judged(folder, ended=True).lost == 1


def test_ends_that_do_not_tell_the_truth_are_seen(bench):
    for words, call, codes in (
        (["debug=true", "solver=nope"], "seedsbench.cli.main:main", {"codes": 1}),
        (["row", "nowhere.json"], "scripts.faults.readers:main", {"codes": 1}),
        (["no reader", "x"], "scripts.faults.readers:main", {"codes": 1, "tracebacks": 1}),
    ):
        ended = bench.run(bench.folder(), words, call=call)
        found = fault_campaign.interrupted.ended_as(ended, {0})
        assert {name: getattr(found, name) for name in BAD if getattr(found, name)} == codes


def test_the_table_and_the_exit_code_count_what_is_bad(monkeypatch, capsys):
    kinds = (
        Kind("good", lambda *_: Outcome(seconds=1.5), lambda _: [1, 2]),
        Kind("bad", lambda *_: Outcome(lost=2, inputs=1000), lambda _: [1]),
    )
    monkeypatch.setattr(fault_campaign, "KINDS", kinds)
    monkeypatch.setattr(fault_campaign, "Bench", Mock())
    assert fault_campaign.main(["--only", "good"]) == 0
    assert fault_campaign.main(["--only", "nope"]) == 2
    capsys.readouterr()
    assert fault_campaign.main(["--jobs", "1"]) == 1
    out = capsys.readouterr().out
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    assert lines[2] == ["good", "2", *["0"] * 6, "1.5"]
    assert lines[3] == ["bad", "1 (1,000 inputs)", "2", *["0"] * 5, "0.0"]
