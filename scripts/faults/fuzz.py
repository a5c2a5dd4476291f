"""Inputs that a seed makes, each judged in this process: what is refused is refused in one line, in time."""

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from scripts.faults.readers import DIM, READ, UNCLEAR, outcome_of
from seedsbench import registry
from seedsbench.bench.resume import packed
from seedsbench.cli import main as cli
from seedsbench.cli.command import GROUPS

FAULTY = 4
"""Exit code where an input came to what it should not."""
MOST_SECONDS = 60
PARTS = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    bytes(8),
    b"\xff" * 8,
    b"[" * 300,
    b"{",
    b"}",
    b"nan",
    b"1e999",
)
PARTS += (
    b'"',
    b"\\u0000",
    b"-",
    b"9" * 60,
    b"true",
    b"null",
    b"\n",
    b"\x1b[2J",
    b"$$",
    b"\xed\xa0\x80",
    b"R",
    b".",
)
KEYS = (
    *(
        "nfe",
        "samples",
        "seed",
        "repeats",
        "labels",
        "final",
        "afs",
        "batch_size",
        "device",
        "dtype",
        "offline",
    ),
    *(
        "precision",
        "compile",
        "seeding",
        "study",
        "results_dir",
        "save_every",
        "published",
        "force",
        "regime.name",
    ),
    *(
        "solver.order",
        "solver.c2",
        "solver.eta",
        "solver.alpha",
        "grid.rho",
        "grid.sigmas",
        "schedule.beta_max",
    ),
    *("model.path", "model.means", "model.std", "metrics.splits", "metrics.floor_sets", "metrics.reference"),
    *(
        "metrics.weights",
        "hydra.sweeper.max_batch_size",
        "hydra/launcher",
        "hydra/sweeper",
        "hydra.run.dir",
        "x",
    ),
    *("hydra.sweep.dir", "solver._target_", "model._target_", "choices", "choices.model", "grid.sigma_min"),
)
VALUES = (
    *(
        "0",
        "1",
        "2",
        "5",
        "20",
        "-1",
        "1e3",
        "1e-3",
        "1e400",
        ".inf",
        "nan",
        "null",
        "true",
        "false",
        "''",
        "'a b'",
    ),
    *(
        "a,b",
        "1,2",
        "[1,2]",
        "[[1],[2]]",
        "{a:1}",
        "{}",
        "[]",
        "range(1,4)",
        "range(0,1000000000)",
        "glob(*)",
    ),
    *(
        "interval(0,1)",
        "choice(1,2)",
        "sort(3,1)",
        "shuffle(1,2)",
        "tag(a,1)",
        "${nfe}",
        "${x}",
        "${oc.env:HOME}",
    ),
    *(
        "${oc.env:NO}",
        "${",
        "???",
        "'???'",
        "~",
        "~/x",
        "/",
        "..",
        "/dev/null",
        "/dev/zero",
        "a/b",
        "\\",
        "'",
        '"',
    ),
    *(
        "99999999999999999999",
        "0x10",
        "1_000",
        "é",
        "\u202e",
        "\x1b[2J",
        "$$x$$",
        "=1+1",
        "os.system",
        "0" * 300,
    ),
    *(
        "int(1)",
        "extend_list(1)",
        "auto",
        "cuda",
        "cpu",
        "none",
        "balanced",
        "random",
        "basic",
        "joblib",
        "wandb",
    ),
)
FLAGS = (
    "-m",
    "--multirun",
    "--config-dir",
    "-cd",
    "--config-name",
    "--",
    "-x",
    "--version",
    "own",
    "-m -m",
    "--no",
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Data with a few bytes changed, taken away, put in, or put elsewhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, end = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
        short = min(end, at + rng.choice((1, 2, 8, 64)))
        do = rng.randrange(6)
        if do == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif do == 1:
            del changed[at:short]
        elif do == 2:
            changed[at:at] = rng.choice(PARTS)
        elif do == 3:
            changed[at:short] = rng.randbytes(short - at)
        elif do == 4:
            changed[at:at] = changed[at:short] * rng.choice((1, 3))
        else:
            part = rng.choice(PARTS)
            changed[at : at + len(part)] = part
    return bytes(changed if rng.random() < 0.95 else changed[: rng.randrange(len(changed) + 1)])


def words_of(rng: random.Random) -> list[str]:
    """The words of a command that only plans, sound or not."""
    words = []
    for _ in range(rng.randrange(1, 6)):
        kind = rng.random()
        if kind < 0.3:
            group = rng.choice(GROUPS)
            words.append(f"{group}={rng.choice(registry.names(group) or ['x'])}")
        elif kind < 0.85:
            sign = rng.choice(("", "", "", "", "", "", "+", "++", "~"))
            words.append(f"{sign}{rng.choice(KEYS)}={rng.choice(VALUES)}")
        else:
            words += rng.choice(FLAGS).split(" ")
    if rng.random() < 0.3:
        words.insert(0, "-m")
    if rng.random() < 0.4:
        place = rng.randrange(len(words))
        text = mutated(words[place].encode(), rng).decode(errors="replace").replace("\0", "")
        words[place] = text
    words = [word for word in words if "debug" not in word and "~plan" not in word and "~dry" not in word]
    return [*words, rng.choice(("plan=true", "plan=true", "dry_run=true"))]


def command(rng: random.Random, words: Sequence[str] | None = None) -> str | None:
    """A command in this process: what is wrong with how it ended."""
    words = words_of(rng) if words is None else words
    out, err = io.StringIO(), io.StringIO()
    os.environ["SEEDSBENCH_CONF"] = ""
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(list(words))
        except SystemExit as error:
            code = error.code
        except BaseException:
            return f"{words}: {traceback.format_exc()}"
    said = err.getvalue()
    if code not in (0, 1, 2) or "Traceback (most" in said + out.getvalue() or "an error of ours" in said:
        return f"{words}: exit {code}, {said[-900:]}"
    if code == 2 and (said.count("\n") != 1 or not said.startswith("seedsbench: ")):
        return f"{words}: refused in {said.count(chr(10))} lines: {said[-500:]}"
    return None


YAML = """# A solver.
_target_: seedsbench.solvers.euler.Euler
options: &a {a: [1, 2.5, true, null, "x"], b: ${nfe}}
more: *a
"""


def yaml(rng: random.Random) -> str | None:
    """A file of --config-dir that is changed, chosen."""
    group = rng.choice(("solver", "model", "grid", "schedule", "regime", "experiment"))
    given = registry.names(group)
    path = registry.path_of(group, rng.choice(given)) if given and rng.random() < 0.7 else None
    data = mutated(path.read_bytes() if path else YAML.encode(), rng)
    shutil.rmtree("own", ignore_errors=True)
    Path("own", group).mkdir(parents=True)
    Path("own", group, "mine.yaml").write_bytes(data)
    found = command(rng, ["-m", "--config-dir", "own", f"{group}=mine", "plan=true"])
    return f"{data!r}: {found}" if found else None


def read(reader: str, name: str, data: bytes) -> str | None:
    """A file to a reader: what is wrong with what it came to."""
    path = Path(name)
    path.write_bytes(data)
    try:
        code, said = outcome_of(reader, path)
    except BaseException:
        return f"{reader} of {data[:300]!r}: {traceback.format_exc()}"
    return f"{reader} of {data[:300]!r} said {said!r}" if code == UNCLEAR else None


def _picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, kind)
    return buffer.getvalue()


def _saved(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    state = {"model": {"a.weight": torch.ones(3, 2), "b": torch.zeros(2).half()}, "step": 3}
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ROW = {"run_key": "a", "status": "done", "solver": "euler", "fid": 1.0, "nfe": 6, "solver_params": {"a": [1]}}
SOURCES: dict[str, list[tuple[str, str, Callable[[], bytes]]]] = {
    "rows": [("row", "a.json", lambda: json.dumps(ROW, indent=1).encode())],
    "JSON": [("json", "b.json", lambda: b'{"a": [1, 2.5e3, "x\\u00e9", {"b": null}], "c": true, "d": -0.0}')],
    "hash records": [("record", "w.json", lambda: json.dumps({"sha256": "0" * 64, "url": "x"}).encode())],
    "npz": [
        ("reference", "a.npz", lambda: _npz(mu=np.zeros(DIM), sigma=np.eye(DIM), n=7)),
        ("images", "b.npz", lambda: _npz(arr_0=np.zeros((3, 8, 8, 3), np.uint8))),
        ("sums", "c.npz", lambda: packed({"a": np.arange(9.0)}, {"run_key": "a"})),
    ],
    "pickles": [
        (
            "edm",
            "a.pkl",
            lambda: pickle.dumps({"ema": {"a": (1, 2.5, "x", b"y", None)}, "b": [set(), {1: 2}]}),
        ),
        ("edm", "b.pkl", lambda: pickle.dumps({"ema": torch.nn.Linear(2, 2).state_dict()}, 4)),
        ("torch", "c.pt", lambda: _saved(True)),
        ("torch", "d.pth", lambda: _saved(False)),
        ("checkpoint", "e.ckpt", lambda: _saved(True)),
    ],
    "safetensors": [("checkpoint", "a.safetensors", lambda: save({"a": torch.ones(3)}, {"network": "{}"}))],
    "pictures": [
        ("picture", f"a.{kind}", lambda kind=kind: _picture(kind))
        for kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm")
    ],
}


def from_source(target: str) -> Callable[[random.Random], str | None]:
    """Changed files of a kind, each to its reader."""

    def one(rng: random.Random) -> str | None:
        reader, name, make = rng.choice(SOURCES[target])
        return read(reader, name, mutated(make(), rng))

    return one


TARGETS: dict[str, Callable[[random.Random], str | None]] = {
    "command words": command,
    "YAML files": yaml,
    **{name: from_source(name) for name in SOURCES},
}


def main() -> None:
    """Judge inputs start .. start + count - 1 of a target (words: target, seed, start, count)."""
    target, seed, start, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    judge, faults = TARGETS[target], 0
    for number in range(start, start + count):
        Path("progress").write_text(str(number))
        signal.alarm(MOST_SECONDS)  # ends the process
        found = judge(random.Random(f"{seed} {target} {number}"))
        signal.alarm(0)
        if found is not None:
            faults += 1
            print(f"input {number}: {found}"[:1500])
    sys.exit(FAULTY if faults else READ)
