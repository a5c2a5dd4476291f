"""Which device a cell is given, what it is asked before it starts, and whose GPU a process opens."""

import re
import subprocess

import pytest
import torch

from seedsbench.bench import machine
from seedsbench.bench.machine import make_current
from seedsbench.bench.problems import build
from seedsbench.cli import check as checking
from seedsbench.cli.command import Command, Usage
from seedsbench.denoisers import embedded
from tests.support.cells import check, compose, run


@pytest.fixture
def current(monkeypatch):
    """The GPUs that were made current."""
    seen = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: seen.append(str(device)))
    return seen


def test_a_gpu_with_a_number_is_made_current(current):
    for device in ("cpu", "cuda", "cuda:1"):
        make_current(device)
    assert current == ["cuda:1"]


@pytest.mark.parametrize("local_rank", [0, 1, 5])
def test_each_rank_makes_its_own_gpu_current_before_it_loads_a_model(
    current, monkeypatch, nothing_loaded, local_rank
):
    monkeypatch.setattr(machine, "has_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(build, "_problem", lambda *_: current.append("loaded"))
    build.problem_of(compose(), machine.device_of("auto", local_rank))
    assert current == [f"cuda:{local_rank % 4}", "loaded"]


def test_the_embedded_network_is_channels_last_everywhere():
    for device in ("cpu", "meta"):
        denoiser = embedded.load_glyphs("edm", device)
        network = (denoiser.denoiser if device == "cpu" else denoiser).network
        images = [value for value in network.parameters() if value.ndim == 4]
        assert all(value.is_contiguous(memory_format=torch.channels_last) for value in images)
        assert {value.device.type for value in images} == {device}


def refused(*overrides, multirun=False):
    with pytest.raises(Usage) as said:
        check(Command(overrides, multirun=multirun))
    return str(said.value)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["tf32", "fp16"])
def test_a_precision_the_cpu_has_not_is_refused_as_a_cell_would(here, given):
    choice = ("model=glyphs", "device=cpu", f"precision={given}")
    said = run(here, *choice)["reason"]
    assert said == f"precision={given} needs device=cuda: on cpu use fp32 or bf16"
    assert refused(*choice) == said
    assert refused("model=glyphs", "device=cpu", f"precision=fp32,{given}", multirun=True) == refused(*choice)
    assert not (here / "results").exists()


@pytest.mark.parametrize("model", ["gaussian", "gaussian_mixture", "glyphs_finite"])
@pytest.mark.parametrize("override", ["precision=bf16", "compile=true"])
def test_a_model_without_a_network_cannot_run_it_another_way(here, model, override):
    said = refused(f"model={model}", "device=cpu", override)
    assert said.startswith(
        f"model={model} has no network to run another way: use precision=fp32 and compile="
    )
    if model == "gaussian":
        reason = run(here / "cell", f"model={model}", override)["reason"]
        assert reason.split(" ", 1)[1] == said.split(" ", 1)[1]
    assert not (here / "results").exists()


def test_the_device_is_judged_where_cells_run(here, monkeypatch):
    monkeypatch.setattr(checking, "check_launcher", lambda *_: None)
    words = ("model=glyphs", "device=cuda", "precision=tf32", "hydra/launcher=slurm_1gpu")
    assert check(Command(words))[0][0].remote


def test_the_commit_is_of_a_checkout_itself_and_says_whether_files_differ(tmp_path):
    def git(*words):
        named = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "inside").mkdir()
    (tmp_path / "file").write_text("1")
    assert machine.commit_of(tmp_path) is None
    git("init", "-q")
    git("add", "file")
    git("commit", "-q", "-m", "x")
    git("tag", "v1")
    clean = machine.commit_of(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean)
    assert machine.commit_of(tmp_path / "inside") is None
    (tmp_path / "file").write_text("2")
    assert machine.commit_of(tmp_path) == f"{clean}-dirty"
