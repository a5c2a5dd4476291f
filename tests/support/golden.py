"""Recorded runs of public code: `tests/parity/golden/<name>.npz`, their settings beside them as JSON."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from seedsbench.noise import Recorded

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


golden = functools.cache(Golden)


@dataclass(frozen=True)
class Case:
    """One recorded run: its settings, and its arrays as tensors by their names."""

    data: Golden
    name: str

    @property
    def settings(self):
        return self.data.cases[self.name]

    def __getitem__(self, array):
        return self.data.tensor(self.name, array)

    def __contains__(self, array):
        return self.data.has(self.name, array)

    def __str__(self):
        return self.name

    def noise(self, draws=slice(None)):
        """The noise that the run drew, or some of its draws, to be drawn again; None if it drew none."""
        return Recorded(self["noise"][draws]) if "noise" in self else None


def cases(data, wanted=lambda settings: True):
    """The cases of a golden file, given or named, whose settings are `wanted`."""
    data = golden(data) if isinstance(data, str) else data
    return [Case(data, name) for name, settings in data.cases.items() if wanted(settings)]


@functools.cache
def mixture_parameters():
    arrays = np.load(GOLDEN / "mixture.npz", allow_pickle=False)
    found = {key.split("/")[-1]: arrays[key] for key in arrays.files}
    return found["means"], found["weights"], float(found["std"])
