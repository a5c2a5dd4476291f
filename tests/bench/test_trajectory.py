"""metrics=trajectory: samples held against the ends of their own exact paths."""

import math

import numpy as np
import pytest
import torch

from seedsbench import solver
from seedsbench.bench.problems.base import Model
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.problems.exact_path import refined
from seedsbench.bench.problems.trajectory import trajectory_problem
from seedsbench.bench.sampling import generate, plan_of
from seedsbench.diffusion.path import NoPathError
from seedsbench.metrics.trajectory import TRAJECTORY, pair_features, trajectory_scores
from tests.bench.problems.test_own import MYNET
from tests.support.cells import compose, run, same

EXACT = ("metrics=trajectory", "samples=64", "metrics.directions=8")
# A range in which steps resolve the mixture: orders are read off where they are reached.
CALM = ("grid.sigma_max=10", "grid.sigma_min=0.1")


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


def slope(folder, budgets, *overrides):
    """Of log trajectory_rms over log steps."""
    rows = [run(folder, *EXACT, *CALM, *overrides, f"nfe={nfe}") for nfe in budgets]
    assert [row["status"] for row in rows] == ["done"] * len(rows), rows[0]["reason"]
    steps, rms = ([row[name] for row in rows] for name in ("n_steps", "trajectory_rms"))
    return np.polyfit(np.log(steps), np.log(rms), 1)[0]


@pytest.mark.parametrize(
    "name", ["heun", *map(slow, ["euler", "rk4", "dpm_solver3", "dpmpp_2s", "seeds2 solver.eta=0"])]
)
def test_the_distance_of_an_ode_solver_falls_with_its_order(tmp_path, name):
    chosen, *options = name.split()
    method = solver(chosen) if not options else solver(chosen, eta=0)
    budgets = [method.total_nfe(n) for n in (16, 32, 64)]
    found = slope(tmp_path, budgets, f"solver={chosen}", *options, "samples=16", "metrics.fine=400")
    assert found == pytest.approx(-method.order, abs=0.35)


@pytest.mark.parametrize("name", ["seeds1", *map(slow, ["seeds2", "seeds3", "euler_maruyama"])])
def test_along_one_brownian_path_the_strong_order_is_one(tmp_path, name):
    budgets = [solver(name).total_nfe(n) for n in (8, 16, 32)]
    found = slope(tmp_path, budgets, f"solver={name}", "samples=128", "metrics.refine=8")
    assert found == pytest.approx(-1, abs=0.2)


@pytest.mark.parametrize("name", ["seeds3", *map(slow, ["er_sde", "dpmpp_2m_sde", "dpmpp_sde", "sa_solver"])])
def test_one_step_for_each_of_its_own_is_the_same_run(tmp_path, name):
    row = run(tmp_path, *EXACT, f"solver={name}", "nfe=13", "metrics.refine=1")
    assert [row[one] for one in TRAJECTORY] == [0, 0, 0]


def test_the_exact_path_of_an_ode_is_at_no_distance_from_itself(tmp_path):
    given = ("solver=dpmpp_3m", "solver.lower_order_final=false", "nfe=40", "metrics.fine=40")
    row = run(tmp_path, *EXACT, *given)
    assert row["trajectory_rms"] < 1e-13
    assert "the exact path has 40 evaluations, less than 4 times the solver's 40" in row["warning"]


@pytest.mark.parametrize("name", [slow("heun"), "seeds2"])
def test_numbers_do_not_depend_on_batches_or_restarts(tmp_path, evaluations, name):
    cell = (*EXACT, f"solver={name}", "samples=100", "metrics.fine=20", "metrics.refine=2", "save_every=0")
    rows = [run(tmp_path / str(size), *cell, f"batch_size={size}") for size in (7, 100)]
    assert same(rows[0]) == same(rows[1])
    whole, evaluations.samples = evaluations.samples / 2, 0
    evaluations.at, evaluations.event = 0.8 * whole, _interrupt
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", *cell, "batch_size=8")
    evaluations.samples = 0
    again = run(tmp_path / "cut", *cell, "batch_size=32")
    assert evaluations.samples < 0.6 * whole
    assert same(again) == same(rows[0])


def _interrupt():
    raise KeyboardInterrupt


def test_a_row_says_distances_and_nothing_that_they_do_not_measure(tmp_path):
    row = run(tmp_path, *EXACT, "solver=heun", "nfe=9")
    assert row["status"] == "done"
    assert 0 < row["trajectory_median"] <= row["trajectory_rms"]
    assert 0 < row["sliced_wasserstein"] < 1.5 * row["trajectory_rms"]
    assert row["nfe"] == 9, "the exact path's evaluations are not the solver's"
    for name in ("fid", "fid_floor", "fid_floor_std", "is_mean", "images_per_second", "saturated"):
        assert row[name] is None, name


@pytest.mark.parametrize("name", ["seeds2", slow("heun")])
def test_the_samples_are_those_of_the_cell_under_any_other_metrics(name):
    cells = [compose(f"solver={name}", *extra) for extra in ((), ("metrics=trajectory",))]
    plain, held = (
        next(iter(generate(problem.denoiser, plan_of(cell, problem), torch.arange(5), batch_size=5)))
        for cell in cells
        for problem in [problem_of(cell, "cpu")]
    )
    assert plain.exact is None
    assert torch.allclose(held.x, plain.x, rtol=0, atol=1e-9)
    assert not torch.allclose(held.exact, plain.x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "adaptive_sde", *map(slow, ["karras_sde", "pc_ve", "restart"])])
def test_a_solver_without_a_path_is_skipped_with_the_reason(tmp_path, evaluations, name):
    row = run(tmp_path, *EXACT, f"solver={name}", "nfe=100")
    assert row["status"] == "skipped", row
    assert "it follows no path" in row["reason"]
    assert evaluations.samples <= 100, "a rehearsal, and no network"


def test_a_model_of_ones_own_needs_no_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(MYNET)
    given = ("model=python", "model.path=mynet.py:build", "solver=heun", "nfe=5", "metrics.fine=20")
    row = run(tmp_path, *EXACT, *given)
    assert row["status"] == "done", row["reason"]
    assert row["trajectory_rms"] > 0


def test_latents_are_compared_as_they_are():
    def decode(latents):
        raise AssertionError

    model = problem_of(compose(), "cpu")
    latent = Model(model.name, model.denoiser, model.model_id, decode=decode)
    problem = trajectory_problem(latent, "none", fine=16, refine=2, directions=4)
    assert problem.image_shape == model.denoiser.image_shape


def test_refined_levels_contain_their_own():
    levels = torch.tensor([80.0, 3.0, 0.1, 0.002], dtype=torch.float64)
    found = refined(levels, 3)
    assert torch.equal(found[::3], levels)
    assert torch.allclose(found.log().diff().reshape(3, 3), (levels.log().diff() / 3)[:, None].expand(3, 3))


def test_the_distances_are_those_of_their_definitions():
    normal = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 50, 3, 2, 2, generator=normal, dtype=torch.float64)
    found = trajectory_scores(pair_features(x, y, 512))
    each = (x - y).flatten(1).norm(dim=1) / math.sqrt(12)
    assert found["trajectory_rms"] == pytest.approx(float(each.square().mean().sqrt()), rel=1e-12)
    assert found["trajectory_median"] == pytest.approx(float(np.median(each)), rel=1e-12)
    # Sets that differ by a shift are at its length, whoever came out as whom.
    moved = trajectory_scores(pair_features(x, x.flip(0) + 0.3, 512))
    assert moved["sliced_wasserstein"] == pytest.approx(0.3, rel=0.2)
    assert moved["trajectory_rms"] > 1
    assert trajectory_scores(pair_features(x, x.flip(0), 512))["sliced_wasserstein"] < 1e-12


def test_a_path_remembers_no_more_than_it_must():
    from seedsbench.diffusion.noise import Philox
    from seedsbench.diffusion.path import BrownianPath

    normals, at = Philox(torch.arange(3), (1, 1, 1)), torch.tensor
    path = BrownianPath(normals, normals)
    whole = path.increment(at(0.0), at(1.0))
    path.forget()
    assert torch.equal(path.increment(at(1.0), at(1.0)), torch.zeros_like(whole))
    beyond = path.increment(at(1.0), at(2.0))
    assert torch.allclose(path.increment(at(1.0), at(1.5)) + path.increment(at(1.5), at(2.0)), beyond)
    with pytest.raises(NoPathError, match="it follows no path"):
        path.increment(torch.zeros(3), torch.ones(3))
