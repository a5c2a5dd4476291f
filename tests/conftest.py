"""Shared fixtures: golden reference data, the golden mixture as a denoiser, solvers from outside."""

import gc
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seedsbench import registry

GOLDEN = Path(__file__).parent / "golden"
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--solver-dir",
        default=None,
        help="also run the solver tests over DIR/solver/*.yaml (modules found in DIR)",
    )


def pytest_configure(config):
    extra = config.getoption("--solver-dir")
    if extra:
        sys.path.insert(0, str(Path(extra).resolve()))
        import os

        os.environ["SEEDSBENCH_CONF"] = str(Path(extra).resolve())


def pytest_generate_tests(metafunc):
    if "solver_name" in metafunc.fixturenames:
        metafunc.parametrize("solver_name", registry.names("solver"))


def pytest_collection_finish(session):
    gc.freeze()  # thousands of tests and all their modules, which live to the end, need not be walked again


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


@pytest.fixture
def nothing_loaded():
    """Problems are loaded anew, and none of this test's is left."""
    from seedsbench.bench import cell

    caches = cell._problem, cell._model
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()
