"""Records of seedsbench-verify: sound ones pass, planted faults are found by name."""

import json
from dataclasses import replace

import pytest

from seedsbench.audit import main as command
from seedsbench.audit.records import examined_record, records_in
from seedsbench.cli.compose import Bases, composing
from seedsbench.report.printed import Printed, printed
from seedsbench.report.verified import SHARE, agreement, record_text
from tests.audit.test_check import make

WORDS = ["model=gaussian_mixture", "regime=edm", "solver=euler", "nfe=6", "samples=40"]
NUMBER = Printed(0.3, "min", 2, "a mixture", "Ada (2026)", "Table 1", tuple(WORDS))
BASES = Bases()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    study = make(tmp_path_factory.mktemp("made"), [[*WORDS, "repeats=2"]])
    found = [json.loads(path.read_text()) for path in (study / "rows").iterdir()]
    return sorted(found, key=lambda row: row["seed"])


@pytest.fixture
def path(tmp_path, rows):
    """A sound record in a folder `verified`."""
    number = replace(NUMBER, fid=rows[0]["fid"])
    verdict = agreement(number, [row["fid"] for row in rows])
    (tmp_path / "verified").mkdir()
    found = tmp_path / "verified" / "mixture.json"
    found.write_text(record_text(number, rows, verdict, [], "Ada <ada@example.org>"))
    return found


def found_in(path):
    with composing():
        return examined_record(path, BASES)


def test_the_rule_is_two_per_cent_or_the_spread_of_the_runs_whichever_is_more():
    least = replace(NUMBER, fid=2.0)
    for fids, agrees in {
        (2.0399, 2.05): True,
        (2.0401, 2.05): False,
        (1.9601, 1.97): True,
        (1.95, 1.96): False,
        (2.1, 2.21): True,
        (2.1, 2.19): False,
    }.items():
        assert agreement(least, list(fids)).agrees is agrees, fids
    mean = agreement(replace(least, of="mean"), [1.9, 2.1])
    assert (mean.fid, mean.agrees) == (2.0, True)
    assert agreement(replace(least, runs=1), [2.03]).allowed == SHARE * 2.0
    with pytest.raises(ValueError, match="2 runs, of 3 that were printed"):
        agreement(replace(least, runs=3), [2.0, 2.0])


def test_a_sound_record_passes_alone_in_its_folder_and_below_one(path, capsys):
    found = found_in(path)
    assert (found.faults, found.rows) == ([], 2)
    assert set(found.not_checked) == {"a printed number of another table"}
    for place in (path, path.parent, path.parent.parent):
        assert records_in(place) == [path]
        assert command.main([str(place)]) == 0
        assert capsys.readouterr().out.startswith(
            "2 rows of 1 record: no faults; not checked: 1, for want of"
        )


def in_row(**values):
    return lambda record: record["rows"][0].update(values)


def known(record):
    """As if it were of the package's first number."""
    one = printed()[0]
    record["printed"] |= {"overrides": list(one.overrides), "fid": 0.1}


FAULTS = {
    "unsigned": ("record", lambda record: record.update(signed_off_by=None)),
    "no address": ("record", lambda record: record.update(signed_off_by="Ada")),
    "another verdict": ("record", lambda record: record["verdict"].update(agrees=False)),
    "a verdict that is a number": ("record", lambda record: record["verdict"].update(agrees=1)),
    "another FID": ("record", lambda record: record["verdict"].update(fid=0.1)),
    "more allowed": ("record", lambda record: record["verdict"].update(allowed=1.0)),
    "no spread": ("record", lambda record: record["verdict"].pop("spread")),
    "a run too few": ("record", lambda record: record["rows"].pop()),
    "a row twice": ("record", lambda record: record["rows"].__setitem__(1, record["rows"][0])),
    "a row of another model": ("record", in_row(model="gaussian")),
    "not done": ("record", in_row(status="failed")),
    "no format": ("record", lambda record: record.pop("format")),
    "a hash that is none": ("record", lambda record: record.update(files=[{"sha256": "abc"}])),
    "no rows": ("record", lambda record: record.pop("rows")),
    "a row that is none": ("record", lambda record: record.update(rows=[1])),
    "a number that is none": ("record", lambda record: record["printed"].update(fid="low")),
    "no model": ("record", lambda record: record["printed"].update(overrides=["regime=edm"])),
    "other samples": (
        "protocol",
        in_row(command="seedsbench " + " ".join(WORDS[:-1]) + " samples=50 seed=0"),
    ),
    "no command": ("protocol", in_row(command=None)),
    "an evaluation too few": ("promise", in_row(nfe=5.0, nfe_max=5)),
    "another key": ("run_key", in_row(run_key="0123456789abcdef")),
    "another printed FID": ("printed", known),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_name(path, name):
    check, damage = FAULTS[name]
    record = json.loads(path.read_text())
    damage(record)
    path.write_text(json.dumps(record))
    found = found_in(path).faults
    assert check in {fault.check for fault in found}
    assert all(fault.file == path and "\n" not in fault.why for fault in found)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": "seedsbench verified 1"}', "[" * 10**5]
)
def test_a_file_that_is_no_record_is_one_line(path, content, capsys):
    path.write_text(content)
    assert command.main([str(path)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path}: record: ")


def test_a_place_without_either_is_refused_in_one_line(tmp_path, capsys):
    for place in (tmp_path, tmp_path / "none.json"):
        assert command.main([str(place)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(place) in line


def test_the_new_checks_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert {check for check, _ in FAULTS.values()} <= set(capsys.readouterr().out.split())
