"""What cells of one process share: loaded once, so many and no more, and nothing kept by accident."""

import gc
import weakref

import torch

from seedsbench.bench import scoring
from seedsbench.bench.problems import build
from seedsbench.bench.problems.analytic import mixture_problem
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.problems.glyphs import glyphs_problem
from seedsbench.bench.scoring import fid_floor
from tests.support.cells import compose


def test_a_sweep_over_models_and_regimes_loads_each_once(nothing_loaded):
    cells = [f"model.std={0.1 * k}" for k in range(1, 9)]
    first = [problem_of(compose(each), "cpu") for each in cells]
    again = [problem_of(compose(each, "solver=heun"), "cpu") for each in cells]
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert len({id(each) for each in first}) == len(cells)
    problem_of(compose("model.std=0.9"), "cpu")
    assert build._problem.cache_info().currsize == build._model.cache_info().currsize == build.KEPT


def test_a_floor_is_shared_by_networks_and_keeps_none_alive(monkeypatch):
    monkeypatch.setattr(scoring, "_FLOORS", {})
    problem, calls = glyphs_problem("edm"), []
    extract = problem.features.extract
    object.__setattr__(problem.features, "extract", lambda images: calls.append(1) or extract(images))
    value = fid_floor(problem, 20, "balanced", 1)
    assert calls
    assert fid_floor(glyphs_problem("vp"), 20, "balanced", 1) == value
    assert len(scoring._FLOORS) == 1
    network = weakref.ref(problem.denoiser)
    del problem
    gc.collect()
    assert network() is None


def test_floors_of_other_yardsticks_are_others(monkeypatch):
    monkeypatch.setattr(scoring, "_FLOORS", {})
    for std in (0.1, 0.5):
        problem = mixture_problem("edm", "gaussian", [[0.3, -0.2]], [1.0], std)
        for n in (10, 20):
            fid_floor(problem, n, "none", 1)
    assert len(set(scoring._FLOORS.values())) == 4
    assert torch.tensor(list(scoring._FLOORS.values())).isfinite().all()
