"""Recorded runs of public code: `tests/parity/golden/<name>.npz`, their settings beside them as JSON."""

import json
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"


class Golden:
    """One golden file: `cases` (name -> settings) and arrays by case."""

    def __init__(self, name, folder=GOLDEN):
        cases = json.loads((folder / f"{name}.json").read_text())["cases"]
        self.cases = {k: v["settings"] for k, v in cases.items()}
        self.names = {k: list(v.get("arrays", ())) for k, v in cases.items()}
        self._arrays = np.load(folder / f"{name}.npz", allow_pickle=False)

    def array(self, case, name):
        return self._arrays[f"{case}/{name}"]

    def has(self, case, name):
        return f"{case}/{name}" in self._arrays

    def tensor(self, case, name):
        return torch.as_tensor(self.array(case, name))


_CACHE = {}


def golden(name):
    if name not in _CACHE:
        _CACHE[name] = Golden(name)
    return _CACHE[name]


def mixture_parameters():
    arrays = np.load(GOLDEN / "mixture.npz", allow_pickle=False)
    found = {key.split("/")[-1]: arrays[key] for key in arrays.files}
    return found["means"], found["weights"], float(found["std"])
