"""Shared fixtures, the same machine for every test, solvers from outside, and another order."""

import functools
import gc
import importlib.util
import logging
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.support import machine

machine.clear()  # before libraries look
_HOME = tempfile.TemporaryDirectory()  # some remember the home that they see first
os.environ["HOME"] = _HOME.name

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import seedsbench  # noqa: E402
from seedsbench import registry  # noqa: E402

torch.set_num_threads(1)
# The same examples in every run, however slow the machine: a failure is the change's, not chance's.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("same")


def pytest_addoption(parser):
    parser.addoption(
        "--solver-dir",
        default=None,
        help="also run the solver tests over DIR/solver/*.yaml (modules found in DIR)",
    )
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in another order")


def pytest_configure(config):
    if config.option.markexpr != "gpu":  # who asks for those tests chooses the GPU
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    extra = config.getoption("--solver-dir")
    if extra:
        sys.path.insert(0, str(Path(extra).resolve()))
        os.environ["SEEDSBENCH_CONF"] = str(Path(extra).resolve())


def pytest_generate_tests(metafunc):
    if "solver_name" in metafunc.fixturenames:
        few = metafunc.definition.get_closest_marker("one_of_each_family") is not None
        quick = _one_of_each_family() if few and not metafunc.config.option.solver_dir else None
        names = registry.names("solver")
        metafunc.parametrize("solver_name", [_parameter(n, quick is None or n in quick) for n in names])


@functools.cache
def _one_of_each_family():
    """Of each family the solver of highest order, and that of its stochastic ones."""
    found = {}
    for name in registry.names("solver"):
        solver = seedsbench.solver(name)
        key = solver.family, solver.stochastic
        found[key] = max(found.get(key, (0, "")), (solver.order, name))
    return {name for _, name in found.values()}


@functools.cache
def _parameter(name, quick):
    """The solver's name, skipped where the library it drives is not there."""
    library = seedsbench.solver(name).library
    missing = library is not None and importlib.util.find_spec(library) is None
    skipped = pytest.mark.skipif(missing, reason=f"needs {library}")
    return pytest.param(name, marks=[skipped] if quick else [skipped, pytest.mark.slow])


def pytest_collection_modifyitems(config, items):
    """Shuffled are files, and tests within a file, so that what a file shares is still made once."""
    if config.option.shuffle is not None:
        order = random.Random(config.option.shuffle)
        files = {path: order.random() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: (files[item.path], order.random()))


def pytest_collection_finish(session):
    gc.freeze()  # thousands of tests and all their modules, which live to the end, need not be walked again


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory):
    """An empty home, and in it a folder to stand in that nothing may be written to."""
    path = tmp_path_factory.mktemp("home")
    (path / "here").mkdir(mode=0o555)
    return path


@pytest.fixture(autouse=True)
def any_machine(empty_home):
    """Each test starts from the same environment and folder, whatever the machine or another test sets."""
    before, folder, level = dict(os.environ), os.getcwd(), logging.root.level
    ours = logging.getLogger("seedsbench")
    of_ours, handlers = ours.level, list(ours.handlers)
    os.environ |= {"HOME": str(empty_home), "LC_ALL": "C.UTF-8"}
    os.chdir(empty_home / "here")
    yield
    logging.root.setLevel(level)  # which Hydra sets
    ours.setLevel(of_ours)  # and these a command
    ours.handlers[:] = handlers
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(before)
    assert os.listdir(empty_home / "here") == [], "written to the current folder"


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
