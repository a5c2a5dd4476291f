"""scripts/check_golden.py, on what of the reference folder is kept here. The whole is for who has it."""

import importlib.util
import sys
from pathlib import Path

import pytest
from conftest import GOLDEN

PATH = Path(__file__).parents[1] / "scripts" / "check_golden.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_golden", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_golden"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_recorded_metrics_are_met_and_a_wrong_one_would_be_missed(script, monkeypatch):
    results = list(script.other_metrics(GOLDEN))
    assert len(results) == 4 + 6 + 9
    assert all(one.error <= one.bound for one in results)
    monkeypatch.setattr(script.metrics, "inception_score", lambda *_, **__: (1.0, 0.0))
    results = list(script.other_metrics(GOLDEN))
    assert sum(one.error > one.bound for one in results) == 4
    scores = next(line for line in script.table(results).splitlines() if "inception score" in line)
    assert [cell.strip() for cell in scores.split("|")[2:4]] == ["4", "4"]
    assert scores.split("|")[6].strip() == "4"


def test_a_nan_is_a_miss(script):
    one = script.Compared("row", "case", float("nan"), 1e-5)
    assert script.table([one]).splitlines()[-1].split("|")[6].strip() == "1"


def test_another_folder_is_refused(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_golden.py", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        script.main()
    assert caught.value.code == 2
    assert "has no nets_song, nets_dhariwal" in capsys.readouterr().err
