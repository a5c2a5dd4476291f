"""What of the benchmarks is not timing: options, commands, sections, whose turn it is, the cost model."""

import importlib
import re
import shlex
from functools import partial
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "benchmarks"
# Options of each that are not its defaults: all of them between them but --help.
CHANGED = {
    "memory": "--quick --write",
    "metrics": "--rounds 5 --threads 1",
    "networks": "adm ddpmpp --batch 1 8 --rounds 2 --device cuda --threads 4 --half --quick",
    "report": "--rows 7 --write",
    "sampling": "fp16 tf32+compile --device cuda:1 --batch 3 --nfe 9 --rounds 2 --quick --write",
    "scaling": "--quick --rounds 2 --net-ms 0.25 --features-ms 2.0",
    "scheduler": "heun seeds1 --steps 3 --rounds 2 --threads 2 --quick",
    "solvers": "heun seeds1 --steps 3 --rounds 2 --device cuda --threads 2 --quick",
    "store": "--quick",
    "sweep": "--threads 2 --quick --write",
    "vs_edm": "--samples 3 --steps 4 --batch 5 --rounds 3 --device cuda --modes tf32 fp16+compile",
}


@pytest.fixture
def scripts():
    return lambda name: importlib.import_module(f"scripts.benchmarks.{name}")


def test_every_benchmark_is_here():
    shared = {"__init__", "publish", "interleave", "edm_baseline"}
    assert set(CHANGED) | shared == {path.stem for path in SCRIPTS.glob("*.py")}


@pytest.mark.parametrize("name", CHANGED)
def test_the_printed_command_is_the_one_that_ran_and_those_of_its_help_can_be_given(scripts, name):
    module, command = scripts(name), scripts("publish").command
    parser = module.parser()
    default = parser.parse_args([])
    assert command(parser, default) == f"python scripts/benchmarks/{name}.py"
    ran = parser.parse_args(shlex.split(CHANGED[name]))
    python, script, *words = shlex.split(command(parser, ran))
    assert (python, script) == ("python", f"scripts/benchmarks/{name}.py")
    assert sorted(words) == sorted(shlex.split(CHANGED[name]))
    assert parser.parse_args(words) == ran
    shown = re.findall(rf"^ +python scripts/benchmarks/{name}\.py(.*)$", module.__doc__, re.MULTILINE)
    asked = [parser.parse_args(shlex.split(words, comments=True)) for words in shown]
    assert default in asked
    assert any(arguments.write for arguments in asked)


def test_a_section_is_replaced_or_put_beside_the_cpus(scripts, tmp_path, capsys):
    file = tmp_path / "benchmarks.md"
    publish = partial(scripts("publish").publish, write=True, file=file)
    publish("## A\n\nof a\n")
    publish("## B\n\nof b\n")
    publish("## A\n\nof a GPU\n", device="cuda:0")
    expected = "# Benchmarks\n\n## A\n\nof a\n\n## A (cuda)\n\nof a GPU\n\n## B\n\nof b\n"
    assert file.read_text() == expected
    publish("## A\n\nanew\n")
    publish("## C\n\nnot\n", write=False)
    publish("## D\n\nof d\n", device="cuda")
    publish("## A\n\nanew there\n", device="cuda")
    expected = expected.replace("of a GPU", "anew there").replace("of a\n", "anew\n")
    assert file.read_text() == expected + "\n## D (cuda)\n\nof d\n"
    assert "## C\n\nnot\n" in capsys.readouterr().out


def test_each_lies_between_two_measurements_and_no_place_is_anyones(scripts):
    between = scripts("interleave").between
    clock = iter(range(100))
    measured = list(between("abc", lambda name: next(clock), lambda: float(next(clock)), rounds=6))
    assert all(base == at for _, at, base in measured)  # the mean of before and after: a drift is no ratio
    rounds = ["".join(name for name, _, _ in measured[i : i + 3]) for i in range(0, 18, 3)]
    assert rounds == ["abc", "cba", "bca", "acb", "cab", "bac"]


def test_the_cost_model_adds_up(scripts):
    costs = scripts("scaling").Costs(0.5, 0.25, merge=2, merge_bytes=0, scores=3, write=1, read=0)
    one, eight = costs.cell(1, 100, 4, block=10), costs.cell(8, 100, 4, block=10)
    assert one == {"network": 200, "features": 25, "merging": 0, "scores": 3, "store": 1}
    # Ten blocks over eight: two of them have two.
    assert eight == {"network": 40, "features": 5, "merging": 14, "scores": 3, "store": 1}


@pytest.mark.parametrize(("units", "more"), [([], set()), (["amx_bf16"], {"bf16", "bf16+compile"})])
def test_modes_of_a_device(scripts, units, more):
    edm, sampling = (partial(scripts(name).default_modes, units=units) for name in ("vs_edm", "sampling"))
    modes = {f"{kind}{how}" for kind in ("fp32", "tf32", "bf16", "fp16") for how in ("", "+compile")}
    assert set(edm("cuda", quick=False)) == modes
    assert set(sampling("cuda", quick=False)) == {*modes, "dtype=float32"}
    assert set(edm("cpu", quick=False)) == {"fp32", "fp32+compile", *more}
    assert not any("compile" in mode for mode in edm("cpu", quick=True))
