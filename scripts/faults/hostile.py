"""Files that mean harm, each to one reader: refused in one line, no code run, 30 s and 1 GB at most."""

import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scripts.faults.readers import DIM, REFUSED_FILE
from scripts.faults.trials import Bench, Kind, Outcome, ended_as

MOST_SECONDS, MOST_MEGABYTES = 30.0, 1000.0


class Touch:
    """Pickled, it makes a file where it is unpickled by a reader that runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def _npy(shape: Any, descr: str = "<f8", body: bytes = b"") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def _zip(members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def locked(data: bytes) -> bytes:
    """The same zip file with the flag of encryption at each member."""
    changed = bytearray(data)
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := changed.find(signature, start)) >= 0:
            changed[start + at] |= 1
            start += 4
    return bytes(changed)


def _saved(value: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _torch_zip(pickled: bytes, extra: dict[str, bytes] | None = None) -> bytes:
    members = {"a/data.pkl": pickled, "a/byteorder": b"little", "a/version": b"3\n", **(extra or {})}
    return _zip(members, zipfile.ZIP_DEFLATED)


def _png(width: int, height: int, mode: str = "1") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def _declared_png(width: int, height: int) -> bytes:
    data = bytearray(_png(8, 8))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def _headed(text: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + body


GOOD = {"mu": np.zeros(DIM), "sigma": np.eye(DIM)}
_EXPANDED = {"time_embed.0.weight": torch.ones(1).expand(10**6, 10**6)}
_TUPLES = b"\x80\x02}K\x01" + b"\x85" * 10**6 + b"K\x01s."
# fmt: off
FILES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "pickle that runs code, EDM": ("checkpoint", "a.pkl", lambda: pickle.dumps({"ema": Touch()})),
    "pickle that runs code, read as EDM": ("edm", "a.bin", lambda: pickle.dumps(Touch())),
    "pickle that runs code, torch": ("torch", "a.pt", lambda: _saved({"a": Touch()})),
    "pickle that runs code, torch before 1.6": ("torch", "a.pt", lambda: _saved({"a": Touch()}, False)),
    "pickle that runs code, .pth": ("checkpoint", "a.pth", lambda: _saved([Touch()])),
    "pickle that runs code, dinov2": ("dinov2", "a.pth", lambda: _saved({"a": Touch()})),
    "pickle that runs code, statistics": ("reference", "a.npz", lambda: _npz(
        GOOD | {"mu": np.array([Touch()], dtype=object)})),
    "pickle that runs code, named .npz": ("reference", "a.npz", lambda: pickle.dumps(Touch())),
    "tuples in tuples, EDM": ("edm", "a.pkl", lambda: _TUPLES),
    "tuples in tuples, torch": ("torch", "a.pt", lambda: _torch_zip(_TUPLES)),
    "no end of opcodes, EDM": ("edm", "a.pkl", lambda: b"\x80\x02]" + b"K\x01a" * 4_000_000 + b"."),
    "no end of opcodes, torch": ("torch", "a.pt", lambda: _torch_zip(
        b"\x80\x02]" + b"K\x01a" * 5_000_000 + b".")),
    "a memo of 2**31": ("edm", "a.pkl", lambda: b"\x80\x02]r\xff\xff\xff\x7f."),
    "a text of 4 GB": ("edm", "a.pkl", lambda: b"\x80\x04X\xff\xff\xff\xffabc."),
    "bytes of 2**60": ("edm", "a.pkl", lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"."),
    "a frame of 2**60": ("edm", "a.pkl", lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}."),
    "an integer of 2**31 bytes": ("edm", "a.pkl", lambda: b"\x80\x02\x8b\xff\xff\xff\x7f."),
    "lists that double": ("edm", "a.pkl", lambda: b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 40_000 + b"."),
    "a tensor of one number": ("torch", "a.pt", lambda: _saved(_EXPANDED)),
    "a tensor of one number, before 1.6": ("torch", "a.pt", lambda: _saved(_EXPANDED, False)),
    "a network of one number": ("checkpoint", "a.pt", lambda: _saved(_EXPANDED)),
    "members of zeros": ("torch", "a.pt", lambda: _torch_zip(
        pickle.dumps({}, 2), {f"a/data/{i}": bytes(2**26) for i in range(6)})),
    "torch, cut": ("torch", "a.pt", lambda: _saved({"a": torch.ones(99)})[:-40]),
    "safetensors with a long header": ("checkpoint", "a.safetensors", lambda: _headed(
        b" " * 10**8, bytes(8))),
    "safetensors with 2**64": ("checkpoint", "a.safetensors", lambda: _headed(b"{}", length=2**64 - 1)),
    "safetensors, deep": ("checkpoint", "a.safetensors", lambda: _headed(b"[" * 10**5)),
    "safetensors, deep metadata": ("checkpoint", "a.safetensors", lambda: _headed(json.dumps(
        {"__metadata__": {"network": "[" * 10**5}}).encode())),
    "safetensors, a shape too large": ("checkpoint", "a.safetensors", lambda: _headed(json.dumps(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}).encode(), bytes(8))),
    "escapes in a name": ("checkpoint", "a.safetensors", lambda: _headed(json.dumps(
        {"__metadata__": {"seedsbench": "\x1b[2J\n"}}).encode())),
    "not a checkpoint": ("checkpoint", "a.pt", lambda: b"<html>"),
    "an empty checkpoint": ("checkpoint", "a.pkl", lambda: b""),
    "statistics, 10**18 numbers": ("reference", "a.npz", lambda: _zip(
        {"mu.npy": _npy((10**18,)), "sigma.npy": _npy((DIM, DIM))})),
    "statistics, negative": ("reference", "a.npz", lambda: _zip(
        {"mu.npy": _npy((-6,)), "sigma.npy": _npy((DIM, DIM))})),
    "statistics, a bomb": ("reference", "a.npz", lambda: _zip(
        {"mu.npy": _npy((DIM,), body=bytes(48)), "sigma.npy": _npy((7000,) * 2, body=bytes(8 * 7000**2))})),
    "statistics, a header of 4 GB": ("reference", "a.npz", lambda: _zip(
        {"mu.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "sigma.npy": _npy((DIM, DIM))})),
    "statistics, a deep header": ("reference", "a.npz", lambda: _zip(
        {"mu.npy": _npy((1,), "(" * 9000), "sigma.npy": _npy((DIM, DIM))})),
    "statistics, a text of 1 GB": ("reference", "a.npz", lambda: _zip(
        {"mu.npy": _npy((DIM,), "<U250000000"), "sigma.npy": _npy((DIM, DIM))})),
    "statistics, NaN": ("reference", "a.npz", lambda: _npz(GOOD | {"mu": np.full(DIM, np.nan)})),
    "statistics, no covariance": ("reference", "a.npz", lambda: _npz(GOOD | {"sigma": -np.eye(DIM)})),
    "statistics, n = -5": ("reference", "a.npz", lambda: _npz(GOOD | {"n": -5})),
    "statistics, n a text": ("reference", "a.npz", lambda: _npz(GOOD | {"n": "\x1b[2J"})),
    "statistics, locked": ("reference", "a.npz", lambda: locked(_npz(GOOD))),
    "statistics, packed by LZMA": ("reference", "a.npz", lambda: _zip(
        {"mu.npy": _npy((DIM,), body=bytes(48))}, zipfile.ZIP_LZMA)),
    "statistics, cut": ("reference", "a.npz", lambda: _npz(GOOD)[:-30]),
    "statistics, in another's name": ("reference", "a.npz", lambda: b"PK\x05\x06" + bytes(18)),
    "images, an array that is not there": ("reference", "a.npz", lambda: _zip(
        {"arr_0.npy": _npy((10**5, 10**4, 10**4, 3), "|u1")})),
    "images, an array of zeros": ("images", "a.npz", lambda: _zip(
        {"arr_0.npy": _npy((100, 2000, 2000, 3), "|u1", bytes(1_200_000_000))})),
    "images, an array of texts": ("images", "a.npz", lambda: _npz({"arr_0": np.array([["x"]])})),
    "images of 13,000 x 13,000": ("images", "a.zip", lambda: _zip(
        {f"{i}.png": _png(13_000, 13_000) for i in range(2)})),
    "images that say 2**31 x 2**31": ("images", "a.zip", lambda: _zip(
        {f"{i}.png": _declared_png(2**31 - 1, 2**31 - 1) for i in range(2)})),
    "images of other sizes": ("images", "a.zip", lambda: _zip({"0.png": _png(8, 8), "1.png": _png(9, 8)})),
    "images, locked": ("images", "a.zip", lambda: locked(_zip({f"{i}.png": _png(8, 8) for i in range(2)}))),
    "images that are programs": ("images", "a.zip", lambda: _zip(
        {f"{i}.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n" for i in range(2)})),
    "images, cut": ("images", "a.zip", lambda: _zip({f"{i}.png": _png(8, 8)[:40] for i in range(2)})),
    "no image": ("images", "a.zip", lambda: _zip({"a.txt": b""})),
    "no zip file": ("images", "a.zip", lambda: b"PK\x03\x04" + bytes(100)),
    "record, deep": ("record", "w.json", lambda: b"[" * 10**5),
    "record, many digits": ("record", "w.json", lambda: b'{"sha256": ' + b"1" * 5000 + b"}"),
    "record, NaN": ("record", "w.json", lambda: b'{"sha256": NaN}'),
    "record, a list": ("record", "w.json", lambda: b"[]"),
    "record, of another file": ("record", "w.json", lambda: json.dumps({"sha256": "0" * 64}).encode()),
    "record, 100 MB": ("record", "w.json", lambda: b" " * 10**8),
    "record, a pickle": ("record", "w.json", lambda: pickle.dumps(Touch())),
    "row, deep": ("row", "a.json", lambda: b'{"a":' * 10**5),
    "row, many digits": ("row", "a.json", lambda: b'{"fid": ' + b"9" * 10**6 + b"}"),
    "row, 100 MB": ("row", "a.json", lambda: b" " * 10**8),
    "row, a pickle": ("row", "a.json", lambda: pickle.dumps(Touch())),
    "row, escapes": ("row", "a.json", lambda: json.dumps({"status": "\x1b[2J\n", "solver": 1}).encode()),
    "sums, a pickle": ("sums", "a.npz", lambda: pickle.dumps(Touch())),
}
# fmt: on
NO_FILES = ("a pipe", "a device", "a folder", "a link in a circle", "100 GB of holes", "nothing")
_SUFFIXES = {"edm": "a.pkl", "torch": "a.pt", "checkpoint": "a.ckpt", "dinov2": "a.pth", "row": "a.json"}
_SUFFIXES |= {"reference": "a.npz", "images": "a.zip", "record": "w.json", "json": "b.json"}


def hostile(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """One file of FILES."""
    reader, name, make = FILES[case]
    folder = bench.folder()
    (folder / name).write_bytes(make())
    return _read(bench, folder, reader, name)


def no_file(bench: Bench, case: tuple[str, str], rng: random.Random) -> Outcome:
    """A path that is no ordinary file."""
    reader, thing = case
    folder = bench.folder()
    path = folder / _SUFFIXES[reader]
    if thing == "a pipe":
        os.mkfifo(path)
    elif thing == "a device":
        path.symlink_to("/dev/zero")
    elif thing == "a folder":
        path.mkdir()
    elif thing == "a link in a circle":
        path.symlink_to(path)
    elif thing == "100 GB of holes":
        with path.open("wb") as file:
            file.truncate(100 * 2**30)
    return _read(bench, folder, reader, path.name)


def _read(bench: Bench, folder: Path, reader: str, name: str) -> Outcome:
    there = (folder / name).is_file() and not (folder / name).is_symlink()
    size = min((folder / name).stat().st_size / 2**20, 200) if there else 0
    ended = bench.run(folder, [reader, name], call="scripts.faults.readers:main")
    outcome = ended_as(ended, {REFUSED_FILE} if reader != "record" or there else {0, REFUSED_FILE})
    ran = (folder / "ran").exists()
    over = ended.seconds > MOST_SECONDS or ended.megabytes > MOST_MEGABYTES + size
    if ran or over:
        note = f"code ran: {ran}; {ended.seconds:.0f} s, {ended.megabytes:.0f} MB"
        outcome += Outcome(wrong=1, note=note)
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.unlink()
    return outcome


def _no_files(bench: Bench) -> list[tuple[str, str]]:
    return [(reader, thing) for reader in _SUFFIXES for thing in NO_FILES]


KINDS = (
    Kind("hostile files", hostile, lambda _: list(FILES)),
    Kind("paths that are no files", no_file, _no_files, quick=0),
)
