"""A torch.load that runs no code, and our own format of weights."""

import argparse
import collections
import io
import json
import os
import pickle
import timeit
import zipfile
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import seedsbench
from seedsbench.denoisers.checkpoints import weights as stored_weights
from seedsbench.denoisers.checkpoints.edm.read import read_edm
from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.states import check_state, is_state
from seedsbench.denoisers.checkpoints.weights import convert_edm, read_converted, read_weights, save_weights
from tests.support.cells import python
from tests.support.edm_checkpoint import CIFAR10, write_edm
from tests.support.edm_files import (
    Name,
    Runs,
    dumped,
    fake_persistence,
    network,
    persistent,
    snapshot,
    storage_blob,
    storage_reference,
)

# --- torch.save -----------------------------------------------------------------------------------


def checkpoint():
    """As score_sde writes them: nested, with an optimiser, an EMA list, half and integer tensors."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    moments = {
        i: {"step": torch.tensor(1.0), "exp_avg": p.square()} for i, p in enumerate(model.parameters())
    }
    base = torch.randn(4, 6)
    return {
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "model": model.state_dict(),
        "ema": {"decay": 0.9999, "shadow_params": [p.detach() for p in model.parameters()]},
        "views": (base, base[1:, ::2], base.t().half(), torch.nn.Parameter(base)),
        "kinds": [torch.float32, torch.Size([2]), torch.empty(0), torch.tensor(True), None],
        "harmless to torch": [bytearray(3), collections.Counter("ab")],
        "step": 7,
    }


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.tolist()) == (b.dtype, b.tolist())
    elif isinstance(a, dict):
        same([*a.items()], [*b.items()])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


def saved(value, legacy=False, **options):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy, **options)
    return file.getvalue()


def read_bytes(path, data):
    path.write_bytes(data)
    return read_torch(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", ["pth", "pt", "ckpt"])
def test_checkpoints_come_back_and_can_be_changed_without_changing_the_file(tmp_path, legacy, suffix):
    path, data = tmp_path / f"a.{suffix}", saved(checkpoint(), legacy)
    found = read_bytes(path, data)
    same(found, checkpoint())
    found["views"][0].zero_()
    assert path.read_bytes() == data


@pytest.mark.parametrize("legacy", [False, True])
def test_code_and_foreign_classes_are_refused_by_name(tmp_path, legacy):
    marker = tmp_path / "it ran"
    cases = [
        (Runs(os.system, f"touch '{marker}'"), f"{os.system.__module__}.system"),
        (argparse.Namespace(a=1), "argparse.Namespace"),
        (collections.deque("ab"), "collections.deque"),
        (np.float64(1), "scalar"),
    ]
    for value, said in cases:
        with pytest.raises(CheckpointError, match=said) as caught:
            read_bytes(tmp_path / "a.pth", saved({"model": torch.ones(2), "x": value}, legacy))
        assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_tensors_that_hold_no_plain_numbers_are_no_state(tmp_path):
    base = torch.ones(3, 3)
    others = {
        "sparse": base.to_sparse(),
        "rows": base.to_sparse_csr(),
        "without data": torch.empty(3, 3, device="meta"),
        "nested": torch.nested.nested_tensor([base, base[:2]]),
        "quantised": torch.quantize_per_tensor(base, 0.1, 0, torch.quint8),
    }
    hints = {"image_size": 8, "num_heads": 1, "use_new_attention_order": False, "noise_schedule": "linear"}
    for name, value in others.items():
        state = {"time_embed.0.weight": value}
        assert not is_state(state), name
        (tmp_path / "a.pth").write_bytes(saved(state))
        # torch 2.15 and newer themselves refuse to read some of them.
        with pytest.raises(CheckpointError, match=r"state dict|holds more than weights"):
            seedsbench.load_denoiser(tmp_path / "a.pth", format="guided", **hints)
    for dtype in (torch.float8_e4m3fn, torch.complex64, torch.int64):
        state = read_bytes(tmp_path / "a.pth", saved({"w": base.to(dtype)}))
        with pytest.raises(CheckpointError, match="finite floating-point numbers"):
            check_state(state, {"w": base}, "a.pth")


def zipped(part="", instead=None, compression=zipfile.ZIP_STORED):
    """A file of torch.save with 3 numbers in it, packed again: its entry `part` left out, or other bytes."""
    file, state = io.BytesIO(), zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(3)})))
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in state.namelist():
            data = instead if part and name.endswith(part) else state.read(name)
            if data is not None:
                archive.writestr(name, data)
    return file.getvalue()


def declaring(numel):
    """A file whose storage says that it has so many numbers."""
    return zipped("data.pkl", storage_reference(Name("torch", "FloatStorage"), "0", "cpu", numel))


# Memory: torch takes what a storage declares before it looks whether the file holds that, untouched.
TORCH_HOSTILE = {
    "legacy declares too much": (storage_blob(10**15, bytes(8)), "4000000000000000"),
    "legacy declares a negative size": (storage_blob(-1, b""), "negative number"),
    "legacy declares more than it holds": (storage_blob(10**6, bytes(8)), "unexpected EOF"),
    "legacy, cut": (saved(checkpoint(), legacy=True)[:-3], "unexpected EOF"),
    "legacy, cut early": (saved(checkpoint(), legacy=True)[:60], "only 2 remain"),
    "zip declares too much": (declaring(10**15), "does not match expected size .4000000000000000"),
    "zip declares more than it holds": (declaring(4), "does not match expected size .16 bytes"),
    "zip declares less than it holds": (declaring(2), "does not match expected size .8 bytes"),
    "zip without the storage": (zipped("data/0"), "file not found"),
    "zip without a pickle": (zipped("data.pkl"), "file not found|data.pkl"),
    "zip without a version": (zipped("version"), "version"),
    "zip, cut": (saved(checkpoint())[:-30], "damaged"),
    "plain pickle": (pickle.dumps({"a": 1}), "exhausted before seeing STOP"),
    "other pickles": (pickle.dumps(1) * 5, "magic number"),
    "html": (b"<html>", "opcode b.<. unknown"),
    "numpy": (b"\x93NUMPY", "only 2 remain"),
}


@pytest.mark.parametrize("name", TORCH_HOSTILE)
def test_a_bad_torch_file_is_refused_in_one_line(tmp_path, name):
    data, said = TORCH_HOSTILE[name]
    with pytest.raises(CheckpointError, match=said) as caught:
        read_bytes(tmp_path / "a.pth", data)
    assert "\n" not in str(caught.value)
    assert "a.pth" in str(caught.value)


def test_a_compressed_file_is_read(tmp_path):
    """As torch.save does not write it. A small file can so take much memory: what it declares, and holds."""
    same(read_bytes(tmp_path / "a.pth", zipped(compression=zipfile.ZIP_DEFLATED)), {"a": torch.ones(3)})


@pytest.mark.parametrize("read", [read_torch, read_weights, read_edm])
def test_what_is_no_file_is_said(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CheckpointError, match="no regular file: give the path of a checkpoint file"):
            read(path)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        read(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="null"):
        read("a\0b")
    (tmp_path / "a.pth").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match="100 bytes, over the limit of 99"):
        read_torch(tmp_path / "a.pth", max_bytes=99)


# --- our own format -------------------------------------------------------------------------------

CONFIG = {
    "class_name": "X",
    "init_args": [1, 2.5, None],
    "init_kwargs": {"sigma_max": float("inf"), "é": "ü\n"},
}


def weights():
    base = torch.arange(12.0).reshape(3, 4)
    return {
        "a.weight": base,
        "a.t": base.t(),
        "shared": base[1:],
        "half": base.half(),
        "bf": base.bfloat16(),
        "n": torch.tensor(3),
        "flag": torch.tensor([True]),
        "empty": torch.empty(0, 2),
        "parameter": torch.nn.Parameter(base + 1),
    }


def test_weights_come_back_and_the_same_ones_make_the_same_file(tmp_path):
    path, again = tmp_path / "new folder" / "w.safetensors", tmp_path / "again.safetensors"
    save_weights(path, weights(), CONFIG)
    config, state = read_weights(path)
    assert config == CONFIG
    torch.testing.assert_close(state, weights(), rtol=0, atol=0)
    assert not any(value.requires_grad for value in state.values())
    assert os.listdir(path.parent) == ["w.safetensors"], "no temporary file is left"
    save_weights(again, weights(), dict(reversed(CONFIG.items())))
    assert again.read_bytes() == path.read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, weights(), CONFIG)
    before = path.read_bytes()

    full = Mock(side_effect=OSError("no space left on device"))
    with pytest.raises(CheckpointError, match="no space left"):
        save_weights(path, {"a": torch.ones(1)}, {}, check=full)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_what_cannot_be_written_is_said(tmp_path):
    path = tmp_path / "w.safetensors"
    loop = {}
    loop["loop"] = loop
    cases = [
        ({}, {}, "empty: there are no weights to write"),
        ({"a": 1}, {}, "int: give tensors by name"),
        ({1: torch.ones(1)}, {}, "1"),
        ({"a": torch.ones(1)}, [], "list: give a dict"),
        ({"a": torch.ones(1)}, {"x": object()}, "object"),
        ({"a": torch.ones(1)}, loop, "JSON"),
        ({"a": torch.ones(1).to_sparse()}, {}, "give it dense"),
        ({"a": torch.ones(1, device="meta")}, {}, "meta"),
    ]
    for state, config, said in cases:
        with pytest.raises(CheckpointError, match=said):
            save_weights(path, state, config)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(tmp_path / "file" / "w.safetensors", weights(), {})
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "no `seedsbench` entry"),
        ({"format": "weights", "version": 9, "config": {}}, '"version": 9'),
        ({"format": "weights", "version": 1}, "no JSON object"),
        ({"format": "weights", "version": 1, "config": []}, "no JSON object"),
        ({"format": "weights", "version": 1, "config": {"a": 1}}, "it has a, not class_name"),
        ("[]", "another format"),
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_other_files_of_weights_are_refused(tmp_path, entry, said):
    text = json.dumps(entry) if isinstance(entry, dict) else entry
    save_file({"a": torch.ones(2)}, tmp_path / "w", None if text is None else {"seedsbench": text})
    with pytest.raises(CheckpointError, match=said):
        read_converted(tmp_path / "w")


def test_a_truncated_file_of_weights_is_refused(tmp_path):
    save_weights(tmp_path / "whole", weights(), CONFIG)
    data = (tmp_path / "whole").read_bytes()
    for end in (1, 8, 50, len(data) // 2, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:end])
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(tmp_path / "cut")


@pytest.mark.parametrize(
    ("read", "legacy"), [(read_torch, False), (read_torch, True), (read_converted, None)]
)
@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5))
def test_fuzz_mutated_files_are_read_or_refused_in_one_line(tmp_path_factory, read, legacy, edits):
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.unlink(missing_ok=True)
    if legacy is None:
        save_weights(path, weights(), CONFIG)
    else:
        path.write_bytes(saved({"a": torch.ones(3), "b": [torch.zeros(2, 2).half()]}, legacy))
    data = bytearray(path.read_bytes())
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    path.unlink()
    path.write_bytes(data)
    said = ""
    try:
        read(path)
    except CheckpointError as error:
        said = str(error)
    assert "\n" not in said


# --- conversion -----------------------------------------------------------------------------------


def test_what_cannot_be_converted_leaves_nothing(tmp_path):
    source, target = tmp_path / "net.pkl", tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError):
        convert_edm(source, target)
    source.write_bytes(dumped({"ema": Name("os", "system")}))
    with pytest.raises(CheckpointError, match=r"os\.system"):
        convert_edm(source, target)
    with pytest.raises(CheckpointError, match=r"end in \.safetensors"):
        convert_edm(source, tmp_path / "net.pt")
    source.write_bytes(dumped(snapshot(persistent("Another", dict(network().__dict__)))))
    assert read_edm(source).class_name == "Another"
    with pytest.raises(CheckpointError, match="unknown EDM class 'Another'"):
        convert_edm(source, target)
    assert os.listdir(tmp_path) == ["net.pkl"]


def test_a_file_that_denoises_another_way_than_its_source_is_not_left(tmp_path, monkeypatch):
    source, target = write_edm(tmp_path / "net.pkl"), tmp_path / "net.safetensors"

    def other(path):
        record = read_converted(path)
        state = {k: v if "filter" in k else 1.01 * v for k, v in record.state_dict.items()}
        return replace(record, state_dict=state)

    monkeypatch.setattr(stored_weights, "read_converted", other)
    said = r"net\.safetensors is not written: it would denoise another way"
    with pytest.raises(CheckpointError, match=said):
        convert_edm(source, target)
    assert os.listdir(tmp_path) == ["net.pkl"]


MEMORY = """
import sys
from seedsbench.denoisers.checkpoints.edm.read import read_edm
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
before, kept = peak(), read_edm(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.slow
def test_a_large_pickle_costs_no_more_than_plain_pickle_and_its_conversion_loads_faster(tmp_path):
    source, target = tmp_path / "net.pkl", tmp_path / "net.safetensors"
    write_edm(source, resolution=32, network=CIFAR10)  # 55M parameters
    convert_edm(source, target)

    def seconds(read):
        return min(timeit.repeat(read, repeat=5, number=1))

    ours = seconds(lambda: read_edm(source))
    with fake_persistence():
        assert ours < 2 * seconds(lambda: pickle.loads(source.read_bytes()))
    assert ours > 3 * seconds(lambda: read_converted(target))
    assert int(python("-c", MEMORY, str(source), folder=tmp_path)) < 2.2 * source.stat().st_size
