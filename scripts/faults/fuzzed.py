"""Fuzz: thousands of inputs that a seed makes, a hundred or so in a trial."""

import random
from functools import partial

from scripts.faults.fuzz import FAULTY, READ, TARGETS
from scripts.faults.processes import HANG
from scripts.faults.trials import Bench, Kind, Outcome

BATCH = {"command words": 25, "YAML files": 20}
INPUTS = {
    "command words": 1500,
    "YAML files": 400,
    "rows": 3000,
    "JSON": 2000,
    "hash records": 1000,
    "npz": 1500,
}
INPUTS |= {"pickles": 2000, "safetensors": 1000, "pictures": 1400}


def fuzz(target: str, bench: Bench, case: int, rng: random.Random) -> Outcome:
    """A batch of inputs, from number `case` on."""
    count = BATCH.get(target, 200)
    folder = bench.folder()
    words = [target, str(bench.seed), str(case), str(count)]
    child = bench.server.start(words, folder, call="scripts.faults.fuzz:main")
    ended = child.wait(HANG * 10)
    reached = (folder / "progress").read_text() if (folder / "progress").exists() else "none"
    found = [line for line in ended.out.splitlines() if line.startswith("input ")]
    hang = ended.hang or ended.code == -14
    over = ended.code not in (READ, FAULTY) and not hang
    note = ended.out[:3000] + ended.err[-500:] + f" (reached input {reached})" if ended.code else ""
    return Outcome(
        tracebacks=len(found), hangs=int(hang), codes=int(over), seconds=ended.seconds / count,
        inputs=count, note=note,
    )  # fmt: skip


def _cases(target: str) -> list[int]:
    return list(range(0, INPUTS[target], BATCH.get(target, 200)))


KINDS = tuple(
    Kind(f"fuzz: {target}", partial(fuzz, target), lambda _, target=target: _cases(target))
    for target in TARGETS
)
