"""scripts/check_gpu.py where there is no GPU: its course, its verdicts, what it reads from the benchmarks."""

import pytest

from scripts.check_gpu import check, column, compared, run_part
from tests.support.cells import python
from tests.support.machine import ROOT


def checked(*words):
    return python("scripts/check_gpu.py", "--device", "cpu", *words, folder=ROOT)


@pytest.mark.slow
def test_without_a_gpu_it_says_so_and_ends_well():
    said = checked("--parts", "memory")
    assert said.startswith("## Checked on no GPU, what a CPU can check\n")
    assert "- memory: left out, needs a GPU\n" in said


@pytest.mark.slow
def test_a_part_that_a_cpu_can_check():
    said = checked("--parts", "images")
    assert "- ok: images: values differ from the CPU's by at most 0 grey levels of 255\n" in said


@pytest.mark.slow
def test_all_that_a_cpu_can_check_is_in_order():
    said = checked()
    assert [line.split(":")[1] for line in said.splitlines() if line.startswith("- ok")] == [
        *(" noise", " images", " sweep", " tests marked gpu")
    ]


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_left_out_and_one_that_breaks_fails_alone():
    assert run_part("images", "cpu", 0.01).verdicts == [
        "images: left out, not done in the 0 s that were left for it"
    ]
    lines, verdicts = check(["images"], "no_device", minutes=1)
    assert (lines, verdicts) == ([], ["FAILED: images: exit code 1, see above"])


def test_fids_must_agree_within_the_error_of_their_seeds():
    good = {("heun", 10): {"cpu": [1.0, 1.2, 1.1], "device": [1.05, 1.2, 1.1]}}
    assert compared(good).verdicts[0].startswith("ok")
    apart = {("heun", 20): {"cpu": [1.0, 1.2, 1.1], "device": [1.0, 1.2, 1.3]}}
    (said,) = compared(good | apart).verdicts
    assert said.startswith("FAILED")
    assert said.endswith("but not heun at 20")
    assert compared({}).verdicts[0].startswith("FAILED")


def test_it_reads_the_tables_of_the_benchmarks():
    text = (ROOT / "results" / "benchmarks.md").read_text()
    costs = column(text[text.index("## Cost of sampling") :], "solver", "cost")
    assert set(costs) == {"euler", "heun", "seeds1", "seeds3", "dpmpp_2m", "(the network alone)"}
    assert all(0.5 < cost < 2 for cost in costs.values())
    assert column(text, "way", "ratio")["today's way"] == 1.0
