"""Checkpoints that mean harm: no code, no memory for what they only declare, one line, at once."""

import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import seedsbench
from seedsbench.denoisers.checkpoints.reading import MAX_HEADER_BYTES
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS
from seedsbench.files.torch_files import load_tensors
from seedsbench.metrics.dinov2 import VisionTransformer, dinov2_extractor
from tests.support.extractors import write_dinov2

ROOT = Path(__file__).parents[3]
GUIDED = {"image_size": 8, "num_heads": 1, "use_new_attention_order": False, "noise_schedule": "linear"}


def said_of(path, **hints):
    """The one line that reading a checkpoint ends in."""
    start = time.monotonic()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        seedsbench.load_denoiser(path, **hints)
    said = str(caught.value)
    assert said.isprintable(), said
    assert time.monotonic() - start < 10
    return said


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.pth", "a.ckpt", "a.safetensors"])
def test_paths_that_are_no_files(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    assert "is a pipe, no regular file" in said_of(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device, no regular file" in said_of(path)
    path.unlink()
    path.symlink_to(path)
    said_of(path)
    path.unlink()
    for start, size in ((b"", 2**34), (b"\x80\x04", 2**34), (b"PK\3\4", 2**34), (b"", 100 * 2**30)):
        with path.open("wb") as file:
            file.write(start)
            file.truncate(size)
        said = said_of(path)
        assert f"{size} bytes" in said
    path.unlink()
    path.mkdir()
    assert "config.json" in said_of(path)


# --- torch.save -----------------------------------------------------------------------------------


def packed(folder, data, extra=(), compression=zipfile.ZIP_STORED):
    """A file of torch.save with this for its pickle."""
    with zipfile.ZipFile(folder / "a.pt", "w", compression) as archive:
        members = {"a/data.pkl": data, "a/byteorder": b"little", "a/version": b"3\n", **dict(extra)}
        for name, body in members.items():
            archive.writestr(name, body)
    return folder / "a.pt"


def nested_key(depth):
    """A dict whose key is a tuple in a tuple in a tuple ..."""
    return b"\x80\x02}K\x01" + b"\x85" * depth + b"K\x01s."


def test_tuples_in_tuples_do_not_end_the_process(tmp_path):
    path = packed(tmp_path, nested_key(1_000_000))
    code = (
        "import sys; from seedsbench.denoisers.checkpoints.reading import read_torch; read_torch(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, "an exception, not a signal"
    assert "50000 tuples" in done.stderr
    path.write_bytes(nested_key(1_000_000))
    assert "50000 tuples" in said_of(path)


def test_pickles_without_an_end(tmp_path):
    assert "opcodes" in said_of(packed(tmp_path, b"\x80\x02]" + b"K\x01a" * 2_500_000 + b"."))
    assert "is longer than" in said_of(packed(tmp_path, b"\x80\x02]" + b"K\x01a" * 5_000_000 + b"."))
    (tmp_path / "b.pt").write_bytes(b"\x80\x02]" + b"K\x01a" * 5_000_000 + b".")
    assert "damaged" in said_of(tmp_path / "b.pt")


def test_members_that_unpack_a_thousandfold(tmp_path):
    bomb = {f"a/data/{i}": bytes(2**26) for i in range(6)}
    path = packed(tmp_path, pickle.dumps({}, 2), bomb, zipfile.ZIP_DEFLATED)
    assert "bytes would unpack to" in said_of(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_made_of_one_number(tmp_path, legacy):
    huge = {
        "time_embed.0.weight": torch.ones(1).expand(10**6, 10**6),
        "input_blocks.0.0.weight": torch.ones(1, 1).expand(10**6, 10**6),
    }
    torch.save(huge, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    said = said_of(tmp_path / "a.pt", format="guided", **GUIDED)
    assert "repeats numbers: its 4000000000000 bytes are not in the file" in said
    whole = torch.ones(2**22)
    torch.save({str(i): whole.view(2**i, -1) for i in range(20)}, tmp_path / "b.pt")
    assert "its tensors take 335544320 bytes" in said_of(tmp_path / "b.pt")
    loop = [torch.ones(2)]
    loop.append(loop)
    torch.save(loop, tmp_path / "c.pt")
    assert load_tensors(tmp_path / "c.pt")[1][0].tolist() == [1, 1], "what holds itself is no trap"


def test_a_transformer_of_weights_that_do_not_fit_takes_no_memory(tmp_path):
    path = write_dinov2(tmp_path / "vit.pth")
    state = torch.load(path)
    for name, value in (
        ("cls_token", torch.zeros(1, 1, 64 * 10**5)),
        ("pos_embed", torch.zeros(1, 10**6, 1)),
        ("blocks.0.mlp.fc1.weight", torch.zeros(10**7, 1)),
        ("blocks.900.x", torch.zeros(1)),
    ):
        torch.save(state | {name: value}, path)
        with pytest.raises(ValueError, match="does not hold the weights of dinov2") as caught:
            dinov2_extractor(path)
        assert str(caught.value).isprintable()
    many = state | {f"blocks.{i}.x": torch.zeros(1) for i in range(2000)}
    with pytest.raises(RuntimeError, match="too few for"):
        VisionTransformer.from_state(many)


# --- safetensors ----------------------------------------------------------------------------------


def headed(text, body=b"", length=None):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


OWN = {"__metadata__": {"seedsbench": '{"format": "weights", "version": 1, "config": {}}'}}
HEADERS = {
    "longer than the file": headed(OWN, length=10**6),
    "length of all bits": headed(OWN, length=2**64 - 1),
    "overlapping": headed(OWN | {"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "beyond the end": headed(OWN | {"a": entry([2**40], 0, 2**42)}, bytes(8)),
    "another shape": headed(OWN | {"a": entry([2**40], 0, 8)}, bytes(8)),
    "overflow": headed(OWN | {"a": entry([2**63, 2**63], 0, 8)}, bytes(8)),
    "negative": headed(OWN | {"a": entry([-1], 0, 8)}, bytes(8)),
    "deep": headed(b"[" * 100_000),
    "no object": headed([]),
    "unknown type": headed(OWN | {"a": entry([2], 0, 8, "X9")}, bytes(8)),
    "no UTF-8": headed(b"\xff" * 50),
    "deep metadata": headed({"__metadata__": {"seedsbench": "[" * 100_000}}),
    "large integer": headed({"__metadata__": {"seedsbench": "1" * 5000}}),
    "escape": headed({"__metadata__": {"seedsbench": '"\x1b[2J\\n"'}}),
    "deep network": headed({"__metadata__": {"network": "[" * 100_000}}),
    "header of 100 MB": headed(b" " * 100_000_000, bytes(8)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(tmp_path, name):
    (tmp_path / "a.safetensors").write_bytes(HEADERS[name])
    said = said_of(tmp_path / "a.safetensors")
    assert "a.safetensors" in said
    if name == "header of 100 MB":
        assert f"over the limit of {MAX_HEADER_BYTES}" in said


@pytest.mark.parametrize(
    "change", [{"channels": [10**6, 10**6]}, {"embedding": 10**9}, {"label_dim": 10**10}]
)
def test_an_embedded_network_larger_than_its_weights_takes_no_memory(tmp_path, change):
    config = {**vars(GLYPH_UNETS["edm"]), **change}
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"network": json.dumps(config)})
    assert "holds no network this version can rebuild" in said_of(tmp_path / "a.safetensors")


# --- diffusers ------------------------------------------------------------------------------------

JSON = {
    "deep": ("[" * 100_000, "nested more than"),
    "digits": ('{"beta_schedule": ' + "1" * 5000 + "}", "a number of 5000 digits"),
    "nan": ('{"beta_schedule": "linear", "beta_start": NaN}', "only finite ones"),
    "long": ('{"a": "' + "x" * 2**21 + '"}', "longer than"),
    "list": ("[]", "expected a JSON object"),
    "no text": (b'{"\xff": 1}', "not UTF-8"),
    "cut": ('{"a"', "not JSON"),
}


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_the_json_of_a_diffusers_folder(tmp_path, file, name):
    content, told = JSON[name]
    for folder in ("unet", "scheduler"):
        (tmp_path / folder).mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"sample_size": 8}')
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    said = said_of(tmp_path)
    assert told in said
    assert Path(file).name in said
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    said_of(tmp_path)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("unet/config.json", {"layers_per_block": 10**9}),
        ("unet/config.json", {"layers_per_block": [1, 2]}),
        ("unet/config.json", {"block_out_channels": [10**9, 10**9]}),
        ("unet/config.json", {"block_out_channels": [32768, 65536]}),
        ("unet/config.json", {"block_out_channels": [8] * 1000}),
        ("unet/config.json", {"sample_size": 2**30}),
        ("unet/config.json", {"num_class_embeds": 10**12}),
        ("unet/config.json", {"in_channels": "x", "out_channels": "x"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
    ],
)
def test_a_configuration_of_an_absurd_network_takes_no_memory(tmp_path, file, change):
    pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
    from tests.support.pipelines import write_pipeline

    write_pipeline(tmp_path / "p")
    config = json.loads((tmp_path / "p" / file).read_text())
    (tmp_path / "p" / file).write_text(json.dumps(config | change))
    said_of(tmp_path / "p")


# --- figures and fuzz -----------------------------------------------------------------------------

MEASURED = """
import sys, time
from tests.support.peak import peak_memory
import seedsbench, torch, seedsbench.denoisers.checkpoints.formats
before, start = peak_memory(), time.monotonic()
try:
    seedsbench.load_denoiser(sys.argv[1])
except ValueError as error:
    print(peak_memory() - before, time.monotonic() - start, error)
"""


def many_tensors(folder):
    header = {f"t{i}": entry([0], 0, 0) for i in range(230_000)}
    (folder / "a.safetensors").write_bytes(headed(header))
    return folder / "a.safetensors"


def large_legacy(folder):
    (folder / "b.pth").write_bytes(nested_key(10**8))
    return folder / "b.pth"


def long_pickle(folder):
    (folder / "c.pkl").write_bytes(b"\x80\x02]" + b"K\x01a" * 20_000_000 + b".")
    return folder / "c.pkl"


def zeros(folder):
    bomb = {f"a/data/{i}": bytes(2**27) for i in range(8)}
    return packed(folder, pickle.dumps({}, 2), bomb, zipfile.ZIP_DEFLATED)


def full(folder):
    return packed(folder, b"\x80\x02]" + b"K\x01a" * 990_000 + b".")


@pytest.mark.slow
@pytest.mark.parametrize("make", [many_tensors, large_legacy, long_pickle, zeros, full])
def test_the_worst_files_stay_below_a_gigabyte_and_half_a_minute(tmp_path, make):
    command = [sys.executable, "-c", MEASURED, make(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kilobytes, seconds, said = told.split(maxsplit=2)
    print(make.__name__, kilobytes, seconds, said[:100])
    assert int(kilobytes) < 1_000_000
    assert float(seconds) < 30


EDITS = st.lists(st.tuples(st.integers(0, 50_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5)


def good_files(folder):
    """Bytes of small files of every kind, by suffix."""
    torch.save({"time_embed.0.weight": torch.ones(2, 2), "x": [torch.ones(3)]}, folder / "a.pt")
    torch.save({"a": torch.ones(2)}, folder / "b.pth", _use_new_zipfile_serialization=False)
    save_file({"a": torch.ones(2)}, folder / "c.safetensors", OWN["__metadata__"])
    return [(path.suffix, path.read_bytes()) for path in sorted(folder.glob("?.*"))]


@pytest.fixture(scope="module")
def goods(tmp_path_factory):
    return good_files(tmp_path_factory.mktemp("goods"))


def fuzzed(folder, goods, which, edits):
    suffix, data = goods[which]
    data = bytearray(data)
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    path = folder / f"mutated{suffix}"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    try:
        seedsbench.load_denoiser(path)
    except (ValueError, FileNotFoundError) as error:
        assert str(error).isprintable()  # noqa: PT017


@settings(max_examples=300)
@given(EDITS, st.integers(0, 2))
def test_fuzz_checkpoints_are_refused_in_one_line(tmp_path_factory, goods, edits, which):
    fuzzed(tmp_path_factory.getbasetemp(), goods, which, edits)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(EDITS, st.integers(0, 2))
def test_fuzz_many_checkpoints(tmp_path_factory, goods, edits, which):
    fuzzed(tmp_path_factory.getbasetemp(), goods, which, edits)
