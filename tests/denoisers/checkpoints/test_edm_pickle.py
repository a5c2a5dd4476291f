"""EDM pickles: what is in them comes out, and nothing in them runs."""

import copyreg
import io
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedsbench.denoisers.checkpoints.edm import allowed as edm_allowed
from seedsbench.denoisers.checkpoints.edm import read as edm_read
from seedsbench.denoisers.checkpoints.edm.allowed import ALLOWED
from seedsbench.denoisers.checkpoints.edm.read import read_edm
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.files import numpy_pickles, pickles
from seedsbench.files.pickles import Refused
from tests.support.edm2_plain import array
from tests.support.edm_files import (
    KWARGS,
    Call,
    Name,
    New,
    Runs,
    dumped,
    fake_persistence,
    net_state,
    network,
    persistent,
    snapshot,
    storage_blob,
    tensor,
)

PLAIN_KWARGS = KWARGS | {"init": {"init_mode": "xavier_uniform", "init_weight": float(np.sqrt(1e-5))}}
PLAIN_KWARGS |= {"dropout": 0.5}
MODULES = ("torch.nn.modules.container", "ModuleDict")
LOAD = ("torch.storage", "_load_from_bytes")


def network_in(data):
    return edm_read.network_in(pickles.unpickled(data, ALLOWED), "ema", len(data))


def read_bytes(path, data, **options):
    path.write_bytes(data)
    return read_edm(path, **options)


def same_state(found, expected):
    torch.testing.assert_close(dict(found), dict(expected), rtol=0, atol=0)  # names and types too
    assert all(value.is_contiguous() for value in found.values())


# --- honest files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_snapshot_of_the_standard_pickler_comes_back_and_its_source_does_not_run(tmp_path, protocol):
    marker, net = tmp_path / "the source ran", network()
    source = f"open({str(marker)!r}, 'w').close()"
    for module in net.modules():
        module.source = source
    with fake_persistence():
        data = pickle.dumps({**snapshot(net, source), "loss_fn": None, "augment_pipe": None}, protocol)
        pickle.loads(data)
    assert marker.exists(), "the control: a plain pickle.load runs the source"
    marker.unlink()

    record = read_bytes(tmp_path / "net.pkl", data)
    assert not marker.exists()
    assert "torch_utils" not in sys.modules
    assert (record.class_name, record.init_args) == ("EDMPrecond", (16,))
    assert record.init_kwargs == PLAIN_KWARGS
    assert type(record.init_kwargs["dropout"]) is float
    same_state(record.state_dict, net.state_dict())


@pytest.mark.parametrize("home", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize(("protocol", "dtype"), [(2, torch.float16), (4, torch.bfloat16), (5, torch.float64)])
def test_both_homes_of_numpy_scalars_an_easydict_and_any_dtype_are_read(tmp_path, home, protocol, dtype):
    net = network(dtype)
    whole = snapshot(net) | {"dataset_kwargs": New("dnnlib.util", "EasyDict")}
    record = read_bytes(tmp_path / "net.pkl", dumped(whole, protocol, numpy_home=home))
    assert record.init_kwargs == PLAIN_KWARGS
    same_state(record.state_dict, net.state_dict())


def test_another_key_can_be_read_and_a_missing_one_is_named(tmp_path):
    data = dumped({"net": network(), "ema": None})
    assert read_bytes(tmp_path / "net.pkl", data, key="net").class_name == "EDMPrecond"
    with pytest.raises(CheckpointError, match=r"under 'ema' it holds the value None"):
        read_edm(tmp_path / "net.pkl")
    with pytest.raises(CheckpointError, match=r"no key 'G_ema'; it has 'net', 'ema'"):
        read_edm(tmp_path / "net.pkl", key="G_ema")


def test_views_odd_strides_bools_integers_and_empty_tensors_are_read(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    buffers = {
        "permuted": base.permute(2, 0, 1),
        "window": base[1, 1:, 1:3],
        "flags": torch.tensor([True, False]),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    data = dumped({"ema": persistent("VPPrecond", net_state(_buffers=buffers))})
    state = read_bytes(tmp_path / "net.pkl", data).state_dict
    (tmp_path / "net.pkl").write_bytes(b"")  # they outlive the file
    same_state(state, buffers)
    for value in state.values():
        value.zero_()


# --- hostile files --------------------------------------------------------------------------------


def raw(body, protocol=4):
    return b"\x80" + bytes([protocol]) + body + b"."


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def stack_global(module, name):
    return text(module) + text(name) + b"\x93"


def ema(**members):
    """A file whose network has these members."""
    return dumped({"ema": persistent("EDMPrecond", net_state(**members))})


def saved_with_code(command, **options):
    file = io.BytesIO()
    torch.save(Runs(os.system, command), file, **options)
    return file.getvalue()


def nested_modules(depth):
    """Modules of which each has the next one twice."""
    value = {}
    for _ in range(depth):
        value = {"a": persistent("Block", net_state(_modules=value))}
        value["b"] = value["a"]
    return value


def deep_objects(depth):
    """Objects within one another, each in the state of the next: made and taken down without recursion."""
    keys = b"}(" + text("type") + text("class") + text("class_name") + text("module") + text("state")
    layer = b"h\x00" + keys + b"}" + text("x") + b"h\x01s" + b"u\x85Rq\x01"
    return (
        stack_global("torch_utils.persistence", "_reconstruct_persistent_obj")
        + b"q\x00Nq\x01"
        + layer * depth
    )


def program(value):
    """The opcodes that make a value."""
    return dumped(value, 3)[2:-1]


def copied(name, value, after, times=10_000):
    """A call of a global on one value of the memo, again and again, all results kept in a list."""
    call = b"h\x01h\x02" + after + b"R"
    return raw(stack_global(*name) + b"q\x01" + value + b"q\x02](" + call * times + b"e")


def nest(depth, times=1):
    value = ["ha"]
    for _ in range(depth):
        value = [value] * times
    return value


def hostile(command):
    """name -> (bytes, what the refusal must name)."""
    foreign = [
        ("os", "system", command),
        ("builtins", "getattr", Name("torch", "hub"), "load"),
        ("torch.hub", "load", "a/b", "c"),
        ("copyreg", "_reconstructor", Name("os", "system"), Name("os", "system"), None),
    ]
    legacy = saved_with_code(command, _use_new_zipfile_serialization=False)
    calls = {f"{at[0]}.{at[1]}": (Call(*at), f"{at[0]}.{at[1]}") for at in foreign}
    calls |= {
        "storage with code, zip": (Call(*LOAD, saved_with_code(command)), "legacy save format"),
        "storage with code, legacy": (Call(*LOAD, legacy), f"{os.system.__module__}.system"),
    }
    made = {name: (ema(x=value), said) for name, (value, said) in (calls | VALUES).items()}
    for protocol in (2, 3, 4, 5):  # elsewhere in the file
        beside = dumped(snapshot(None) | {"x": Call("os", "system", command)}, protocol)
        made[f"os.system beside ema, {protocol}"] = beside, "os.system"
    return made | {name: (ema(_parameters={"w": p}), said) for name, (p, said) in PARAMETERS.items()} | FILES


VALUES = {
    "unknown class, unused": (Name("mystery.module", "Thing"), "mystery.module.Thing"),
    "dotted name": (Name("torch._utils", "_rebuild_tensor_v2.__globals__"), "__globals__"),
    "split name": (Name("torch_utils", "persistence._reconstruct_persistent_obj"), "torch_utils"),
    "dotted os": (Name("torch", "os.system"), "torch.os.system"),
    "call of a class": (Call(*MODULES, {}), "takes no arguments"),
    "new of a function": (New("torch._utils", "_rebuild_parameter"), "must be a type"),
    "new with arguments": (New(*MODULES, [1]), "takes no arguments"),
    "build twice": (Call("numpy", "dtype", "f8", state=(3, "|O")), "numpy.dtype"),
    "build with a tuple": (New(*MODULES, state=(None, {"__class__": 1})), "BUILD) of a module"),
    "build of a tensor": (Call("torch._utils", "_rebuild_tensor_v2", 1), "_rebuild_tensor_v2"),
    "object dtype": (Call("numpy", "dtype", "O8", False, True), "numpy.dtype"),
    "codecs": (Call("_codecs", "encode", "63616c63", "hex"), "_codecs.encode"),
    "scalar of text": (Call("numpy.core.multiarray", "scalar", "O", b"x"), "numpy scalar"),
    "parameter of text": (Call("torch._utils", "_rebuild_parameter", "x", False, {}), "made of a tensor"),
    "set of huge": (Call("builtins", "set", 10**9), "set"),
    "bytes of huge": (Call("builtins", "bytes", 10**12), "builtins.bytes"),
    "storage of a foreign type": (Call(*LOAD, storage_blob(kind=("os", "system"))), "os.system"),
    "storage declares too much": (Call(*LOAD, storage_blob(10**15, b"x" * 64)), "1000000000000000"),
    "storage counts otherwise": (Call(*LOAD, storage_blob(counted=10**15)), "1000000000000000"),
    "storage of negative size": (Call(*LOAD, storage_blob(-4, b"")), "declares -4"),
    "storage with a view": (Call(*LOAD, storage_blob(rest=(("1", 0, 2**40),))), "a tuple"),
    "storage with other keys": (Call(*LOAD, storage_blob(keys=("0", "1"))), "one storage"),
    "storage of many opcodes": (Call(*LOAD, storage_blob(keys=range(1000))), "than 1000 opcodes"),
    "storage, cut": (Call(*LOAD, storage_blob()[:-5]), "7 bytes"),
    "storage, cut early": (Call(*LOAD, storage_blob()[:50]), "exhausted before seeing STOP"),
}
PARAMETERS = {
    "oversized tensor": (tensor((10**12,), (1,)), "1000000000000"),
    "repeated tensor": (tensor((10**12,), (0,)), "1000000000000"),
    "overflowing tensor": (tensor((2**62, 2**62), (1, 1)), str(2**62)),
    "empty overflowing tensor": (tensor((0, 2**62, 2**62), (1, 1, 1)), str(2**62)),
    "tensor before its storage": (tensor((2,), (1,), -4), "[-4, 2, 1]"),
    "tensor past its storage": (tensor((3,), (1,), 1), "[1, 3, 1]"),
    "tensor of negative stride": (tensor((3,), (-1,), 2), "-1"),
    "tensor of text sizes": (tensor(("3",), (1,)), "str"),
    "tensor of too many dimensions": (tensor((1,) * 64, (1,) * 64), "size"),
    "no tensor": ({"weight": 1}, "a dict among its _parameters"),
}
ITSELF = {}
ITSELF["ema"] = ITSELF
LOOPED = net_state()
LOOPED["_modules"]["again"] = again = persistent("Block", LOOPED)
again.reduced[1][0]["state"] = LOOPED
BIG = tensor((1000,), (1,), 0, storage_blob(1000))
NO_SET = {"_non_persistent_buffers_set": 5, "_buffers": {"b": None}}
FILES = {
    "STACK_GLOBAL of numbers": (raw(b"K\x01K\x02\x93"), "STACK_GLOBAL requires str"),
    "BUILD on a global": (raw(stack_global(*MODULES) + b"}b"), "__setstate__() missing 1"),
    "REDUCE of text": (raw(text("os.system") + b")R"), "'str' object is not callable"),
    "APPEND to a tuple": (raw(b")Na"), "'tuple' object has no attribute"),
    "unhashable key": (raw(b"}]Ns"), "unhashable"),
    "colliding keys": (raw(b"}\x8a\x20" + b"\x01" * 32 + b"Ns"), "integer of 249 bits"),
    "huge text": (raw(b"\x8d" + struct.pack("<Q", 2**62)), str(2**62)),
    "huge bytes": (raw(b"\x8e" + struct.pack("<Q", 2**63)), str(2**63)),
    "huge frame": (raw(b"\x95" + struct.pack("<Q", 2**40) + b"N"), "truncated"),
    "huge integer": (raw(b"\x8b" + struct.pack("<i", 2**31 - 1)), "long4"),
    "negative length": (raw(b"\x8b" + struct.pack("<i", -5)), "-5"),
    "huge memo": (raw(b"Nj" + struct.pack("<I", 2**32 - 1)), "damaged"),
    # How far marks nest and the stack grows is bounded by the opcodes alone.
    "nesting": (raw(b"(" * 10_000), "MARK"),
    "stack": (raw(b"N" * 200_000), "None"),
    "deep key": (raw(b"}N" + b"\x85" * 49_000 + b"Ns"), "no key 'ema'"),
    "too deep a key": (raw(b"}N" + b"\x85" * 60_000 + b"Ns"), "50000 tuples"),
    "deep sets": (raw(b"(" * 60_000 + b"\x91" * 60_000), "50000 tuples"),
    "deep lists": (raw(b"]" * 60_000 + b"a" * 59_999), "a list"),
    "deep objects": (raw(deep_objects(3_000)), "a module"),
    "memo of many": (raw(b"Nr" + struct.pack("<I", 2**31)), "numbers its object"),
    "deep tuples": (raw(b"N" + b"\x85" * 50_000), "a tuple"),
    "copied text": (copied(("_codecs", "encode"), text("x" * 10_000), text("latin1") + b"\x86"), "text"),
    "copied list": (copied(("builtins", "set"), b"](" + text("x") * 5000 + b"e", b"\x85"), "and lists"),
    "copied storage": (copied(LOAD, program(storage_blob()), b"\x85", 500), "and lists"),
    "protocol 0": (b"cos\nsystem\n(S'true'\ntR.", "protocol 2 to 5"),
    "protocol 9": (raw(b"N", 9), "protocol 9"),
    "newline in a name": (raw(stack_global("os\n\x1b[31m", "system")), r"os\\n\\x1b"),
    "surrogates": (raw(b"X\x03\x00\x00\x00\xed\xa0\x80"), "damaged"),
    "two pickles": (raw(b"}") + raw(b"N"), "follow"),
    "not a dict": (raw(b"N"), "None"),
    "holds itself": (dumped(ITSELF), "under 'ema' it holds a dict"),
    "modules in a circle": (dumped({"ema": persistent("EDMPrecond", LOOPED)}), "nest"),
    "billion laughs": (ema(_modules=nested_modules(45)), "modules"),
    "arguments nest": (ema(_init_kwargs={"a": nest(200)}), "_init_kwargs"),
    "arguments laugh": (ema(_init_args=(nest(40, 2),)), "_init_args"),
    "argument is a tensor": (ema(_init_args=(tensor(),)), "a tensor"),
    "buffers to skip": (ema(**NO_SET), "value 5 for _non_persistent"),
    "dotted member": (ema(_modules={"a.b": None}), "a.b"),
    "class name": (dumped({"ema": persistent("os.system('x')", net_state())}), "os.system"),
    "no state": (dumped({"ema": persistent("X", None)}), "_reconstruct_persistent_obj"),
    "shared storage": (ema(_buffers=dict.fromkeys(map(str, range(100)), BIG)), "more than the file has"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip"),
    "nothing": (b"\x80", "no"),
}


HOSTILE = sorted(hostile(""))


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """The hostile files, and the file that any of them would leave behind."""
    marker = tmp_path_factory.mktemp("marks") / "it ran"
    return hostile(f"touch '{marker}'"), marker


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_without_effect(tmp_path, marked, name):
    files, marker = marked
    data, said = files[name]
    modules = set(sys.modules)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as caught:
        read_bytes(tmp_path / "net.pkl", data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert said.replace(r"\\", "\\") in message.split(" If you trust it")[0]
    assert "\n" not in message
    assert len(message) < 1000
    assert "net.pkl" in message
    assert not marker.exists()
    assert peak < 20e6
    new = {module for module in set(sys.modules) - modules if not module.startswith("encodings")}
    assert not new, "reading a file imports nothing"


# --- each layer, with the others away --------------------------------------------------------------


def unscanned(data):
    """What the unpickler alone makes of a pickle whose opcodes nobody has looked at."""
    return pickles.Unpickler(io.BytesIO(data), ALLOWED, 1000).load()


UNKNOWN = [opcode for opcode in pickletools.opcodes if opcode.name not in pickles.OPCODES]


@pytest.mark.parametrize("opcode", UNKNOWN, ids=[opcode.name for opcode in UNKNOWN])
def test_every_opcode_that_is_not_listed_is_refused_by_name(opcode):
    line = b"'a'\n" if opcode.name == "STRING" else b"1\n1\n"
    in_lines = opcode.arg is not None and opcode.arg.n == pickletools.UP_TO_NEWLINE
    argument = line if in_lines else bytes(8) if opcode.arg else b""
    with pytest.raises(Refused, match=f"the opcode {opcode.name} at byte 2"):
        network_in(raw(opcode.code.encode("latin-1") + argument))


def test_names_that_reach_the_unpickler_by_other_opcodes_are_refused_too(tmp_path):
    marker = tmp_path / "it ran"
    command = f"S\"touch '{marker}'\"\n".encode()
    programs = {
        "INST": b"(" + command + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + command + b"o.",
        "protocol 0": b"cos\nsystem\n(" + command + b"tR.",
        "copyreg": b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    }
    for data in programs.values():
        with pytest.raises(Refused, match=r"names the global (os|copyreg)\."):
            unscanned(data)
    pickle.loads(programs["protocol 0"])
    assert marker.exists(), "the control: a plain unpickler runs it"


def test_extension_codes_give_nothing_even_if_the_process_knows_them():
    evil = raw(b"\x82\xf0")
    copyreg.add_extension(os.system.__module__, "system", 240)
    try:
        with pytest.raises(Refused, match="system"):
            unscanned(evil)
        assert pickle.loads(evil) is os.system, "from now on it is cached, and find_class not asked"
        assert unscanned(evil) is os.system, "which is why the opcodes are scanned before"
        for code in (b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"):
            with pytest.raises(Refused, match="the opcode EXT"):
                network_in(raw(code))
    finally:
        copyreg.clear_extension_cache()
        copyreg.remove_extension(os.system.__module__, "system", 240)


ARRAY = array([1.0])
MADE = {"dtype": Call("numpy", "dtype", "f8"), "storage": Call(*LOAD, storage_blob()), "tensor": tensor()}
MADE |= {"module": persistent("A", {}), "array": ARRAY}
MADE = {kind: program(call) for kind, call in MADE.items()}
TARGETS = {name: stack_global(*name.rsplit(".", 1)) for name in ALLOWED} | MADE
EVIL = {"kind": "evil", "run": 1, "size": (1000,)}
STATES = {
    "a dict": {**EVIL, "state": {}, "__class__": 1},
    "slots": (None, {**EVIL, "__call__": 1, "__defaults__": (1,), "__new__": 1}),
    "both": ({"kind": "evil"}, {"data": b"", "storage": None, "size": (10**9,)}),
    "a dtype's": (3, "S", None, None),
    "an array's": ARRAY.reduced[2],
    "an empty dict": {},
    "text": "kind",
}
NAMES = {**vars(pickles), **vars(numpy_pickles), **vars(edm_allowed)}
CLASSES = [value for value in NAMES.values() if isinstance(value, type)]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("target", TARGETS)
def test_no_state_can_be_set_on_what_stands_for_a_name_or_was_made_by_a_call(target, state):
    before = [dict(vars(one)) for one in CLASSES]
    with pytest.raises((Refused, TypeError), match=r"\(BUILD\)|missing 1 required"):
        unscanned(raw(TARGETS[target] + program(STATES[state]) + b"b"))
    assert before == [dict(vars(one)) for one in CLASSES]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_else_can_be_done_to_them_nor_what_was_made_by_a_call_be_called(target):
    called = (b")R", b"N\x85R", b")\x81", b")}\x92") if target in MADE else ()
    for body in (b"Na", b"(NNe", text("kind") + b"Ns", b"(" + text("kind") + b"Nu", b"(N\x90", *called):
        with pytest.raises((AttributeError, TypeError, pickle.UnpicklingError)):
            unscanned(raw(TARGETS[target] + body))


# --- damaged files --------------------------------------------------------------------------------

SMALL = dumped(snapshot(network(channels=1, blocks=1), "x = 1\n" * 50))


def test_every_truncation_is_refused(tmp_path):
    for end in (1, 2, *range(10, len(SMALL), 23), len(SMALL) - 1):
        with pytest.raises(CheckpointError, match=r"net\.pkl"):
            read_bytes(tmp_path / "net.pkl", SMALL[:end])


def outcome(data):
    """The record, or the reason it was refused; any other error passes."""
    try:
        return network_in(data)
    except Refused as error:
        return str(error)


NEW = st.binary(max_size=12) | st.integers(0, len(SMALL)).map(lambda start: SMALL[start : start + 40])
EDITS = st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 40), NEW), min_size=1, max_size=6)


@settings(max_examples=400)
@given(edits=EDITS)
def test_fuzz_mutated_files_raise_nothing_else(edits):
    data = bytearray(SMALL)
    for at, length, new in edits:
        data[at : at + length] = new
    outcome(bytes(data))


KNOWN = [opcode for opcode in pickletools.opcodes if opcode.name in pickles.OPCODES]
OPCODES = st.sampled_from([opcode.code.encode("latin-1") for opcode in KNOWN])
PIECES = st.one_of(
    OPCODES,
    st.sampled_from([stack_global(*name.rsplit(".", 1)) for name in sorted(ALLOWED)]),
    st.sampled_from([text("_modules"), text("ema"), b"K\x01", b"}", b"(", b")", b"R", b"b", b"\x81", b"."]),
    st.builds(text, st.text(max_size=5)),
    st.binary(max_size=4),
)


@pytest.mark.slow
@settings(max_examples=400)
@given(pieces=st.lists(PIECES, max_size=30))
def test_fuzz_made_up_programs_raise_nothing_else(pieces):
    outcome(raw(b"".join(pieces)))
