"""Shared fixtures, and solvers from outside."""

import gc
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from seedsbench import registry

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
        metafunc.parametrize("solver_name", [_installed(name) for name in registry.names("solver")])


def _installed(name):
    """The solver's name as a parameter, skipped where the library it drives is not there."""
    missing = name == "diffusers" and importlib.util.find_spec("diffusers") is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason="needs seedsbench[diffusers]"))


def pytest_collection_finish(session):
    gc.freeze()  # thousands of tests and all their modules, which live to the end, need not be walked again


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def nothing_loaded():
    """Problems are loaded anew, and none of this test's is left."""
    from seedsbench.bench.problems import build

    caches = build._problem, build._model
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()
