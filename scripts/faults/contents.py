"""What a study's folder holds is damaged, forged, or of another kind than belongs there."""

import io
import json
import os
import pickle
import random
import shutil
import socket
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from scripts.faults.trials import COMMAND, FAILED, REFUSED, Bench, Kind, Outcome, ended_as
from seedsbench.bench.resume import packed, unpacked

VALUES: dict[str, Any] = {
    "null": None,
    "a text": "x",
    "a formula": "$$x$$",
    "true": True,
    "negative": -1.0,
    "huge": 1e308,
    "many digits": 10**4000,
    "a list": [1],
    "an object": {"a": 1},
    "escapes": "\x1b[2J=1+1\n<script>",
}
"""What a column of a row is set to."""
SOUND = ("solver: a text", "solver: a formula", "solver: escapes", "is_mean: null")
"""Changes after which a row is still one: nobody can tell that it is not as it was written."""
COLUMNS = ("fid", "nfe", "run_key", "status", "solver", "is_mean")
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "no text": lambda data: b"\xff\xfe" + data,
    "twice": lambda data: data + data,
    "NaN": lambda data: data.replace(b'"fid": ', b'"fid": NaN, "x": '),
    "Infinity": lambda data: data.replace(b'"fid": ', b'"fid": -Infinity, "x": '),
    "nested 100,000 deep": lambda data: b"[" * 100_000,
    "5,000 digits": lambda data: data.replace(b'"fid": ', b'"fid": ' + b"9" * 5000 + b', "x": '),
    "a list": lambda data: b"[1, 2]",
    "a pickle": lambda data: pickle.dumps({"fid": 0.0}),
    "8 MB": lambda data: b" " * 2**23 + data,
}


def rows(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """A finished row is damaged: plan=true writes nothing, the report is written, the cell computed again."""
    folder = bench.finished()
    path = sorted(folder.glob("results/s/rows/*.json"))[rng.randrange(2)]
    if ": " in case:
        column, value = case.split(": ")
        path.write_text(json.dumps(json.loads(path.read_text()) | {column: VALUES[value]}))
    else:
        path.write_bytes(BYTES[case](path.read_bytes()))
    before = {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    outcome = Outcome()
    if rng.random() < 0.3:
        outcome += ended_as(bench.run(folder, [*COMMAND, "plan=true"]), {0})
        after = {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}
        outcome += Outcome(wrong=int(before != after))
    if rng.random() < 0.3:
        report = bench.server.start(["results/s"], folder, call="seedsbench.report.main:main")
        outcome += ended_as(report.wait(), {0})
    return outcome + bench.suffered(folder, bench.run(folder), ())


def sums(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """Partial sums are damaged or forged: the cell costs more time, and its row is the right one."""
    folder = bench.begun()
    (path,) = folder.glob("results/s/partial/*/rank-0.npz")
    path.write_bytes(SUMS[case](path.read_bytes(), rng))
    return bench.suffered(folder, bench.run(folder), {FAILED})


def _forged(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Callable[..., bytes]:
    """Sums that are as they were written, by someone who wrote other ones."""

    def forge(data: bytes, rng: random.Random) -> bytes:
        state, of = unpacked(data)
        state = {name: array.copy() for name, array in state.items()}
        change(state, of)
        return packed(state, of)

    return forge


def _flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _zip(data: bytes, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fid.npy", bytes(2**24))
    return buffer.getvalue()


def _set(name: str, value: Callable[[np.ndarray], Any]) -> Callable[..., bytes]:
    return _forged(lambda state, of: state.update({name: value(state[name])}))


def _each(state: dict[str, Any], value: float) -> None:
    for name, array in state.items():
        if array.dtype.kind == "f":
            state[name] = np.full_like(array, value)


SUMS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda data, rng: b"",
    "half": lambda data, rng: data[: len(data) // 2],
    "cut by one": lambda data, rng: data[:-1],
    "zeros": lambda data, rng: bytes(len(data)),
    "a pickle": lambda data, rng: pickle.dumps({"fid": 1}),
    "a zip of zeros": _zip,
    **{f"a bit, {i}": _flipped for i in range(6)},
    "without its end": lambda data, rng: data[:-32],
    "of another cell": _forged(lambda state, of: of.update(run_key="0" * 16)),
    "of more samples": _forged(lambda state, of: of.update(samples=10**9)),
    "of another format": _forged(lambda state, of: of.update(format=None)),
    "of nothing": _forged(lambda state, of: of.clear()),
    "all done": _set("done", lambda array: np.full_like(array, 255)),
    "none done": _set("done", lambda array: np.zeros_like(array)),
    "more in a sum": _set("fid.n", lambda array: array + 1),
    "fewer dimensions": _set("done", lambda array: array[:0]),
    "texts": _set("nfe", lambda array: np.array(["x", "y"])),
    "nan": _forged(lambda state, of: _each(state, np.nan)),
    "inf": _forged(lambda state, of: _each(state, np.inf)),
    "huge": _forged(lambda state, of: _each(state, 1e308)),
    "a sum less": _forged(lambda state, of: state.pop("fid.n")),
    "a sum more": _forged(lambda state, of: state.update(more=np.zeros(3))),
}
PLACES = (
    *("s", "s/rows", "s/samples", "s/partial", "s/figures", "s/report.html", "s/table.csv", "s/table.md"),
    *("s/seedsbench.log", "s/.report.lock", "ROW", "SUMS", "SUMS FOLDER", "s/rows/other.json"),
)
THINGS = ("a file", "a folder", "a pipe", "a link to nothing", "a link to a folder", "a device", "a socket")


def foreign(bench: Bench, case: tuple[str, str], rng: random.Random) -> Outcome:
    """Something else stands where the command writes: nothing outside is touched, and no row is lost."""
    name, thing = case
    folder = bench.begun() if "SUMS" in name else bench.finished()
    results = folder / "results"
    named = {
        "ROW": sorted(results.glob("s/rows/*.json"))[:1],
        "SUMS": list(results.glob("s/partial/*/rank-0.npz")),
        "SUMS FOLDER": list(results.glob("s/partial/*")),
    }
    place = named[name][0] if name in named else results / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    outside = folder / "outside"
    outside.mkdir()
    (outside / "theirs").write_text("theirs")
    _put(thing, place, outside)
    ended = bench.run(folder)
    outcome = ended_as(ended, {0, FAILED, REFUSED})
    touched = [path.name for path in outside.iterdir()] != ["theirs"] and name not in ("s", "s/rows")
    if outside.is_dir() and touched:
        outcome += Outcome(wrong=1, note=f"written outside: {os.listdir(outside)}")
    if ended.code:  # it said what is in the way: the user takes it away
        with suppress(OSError):
            place.unlink()
        if place.is_dir():
            shutil.rmtree(place)
    return outcome + bench.again(folder)


def _put(thing: str, place: Path, outside: Path) -> None:
    if thing == "a file":
        place.write_text("in the way")
    elif thing == "a folder":
        place.mkdir()
        (place / "in the way").touch()
    elif thing == "a pipe":
        os.mkfifo(place)
    elif thing == "a link to nothing":
        place.symlink_to(outside / "nowhere" / "x")
    elif thing == "a link to a folder":
        place.symlink_to(outside)
    elif thing == "a device":
        place.symlink_to("/dev/zero")
    else:
        here = os.open(place.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{here}/{place.name}")
        os.close(here)


def _row_cases(bench: Bench) -> list[str]:
    changed = [f"{column}: {value}" for column in COLUMNS for value in VALUES]
    return [*BYTES, *(case for case in changed if case not in SOUND)]


KINDS = (
    Kind("damaged and forged rows", rows, _row_cases),
    Kind("damaged and forged sums", sums, lambda _: list(SUMS), quick=0),
    Kind("other things in the way", foreign, lambda _: [(p, t) for p in PLACES for t in THINGS], quick=0),
)
