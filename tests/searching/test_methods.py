"""Searches: the cheapest path is the cheapest, students are the solvers themselves, levels beat a rule's."""

import itertools

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench import registry
from seedsbench.analytic import GaussianMixture
from seedsbench.diffusion.grid import EDM
from seedsbench.diffusion.noise import Silent, latents
from seedsbench.diffusion.schedule import VP, Linear
from seedsbench.searching.cheapest import cheapest
from seedsbench.searching.methods import METHODS, Student
from seedsbench.searching.teacher import deviation, taught

MIXTURE = GaussianMixture([[0.6, 0.2], [-0.5, 0.5]], [0.5, 0.5], 0.15)
GRID = EDM()


def solver(name):
    return seedsbench.solver(name)


@pytest.fixture(scope="module")
def teacher():
    return taught(MIXTURE, None, torch.arange(32), solver=solver("heun"), grid=GRID, n_steps=40, seed=0)


@pytest.mark.parametrize("growth", [1.0, 1.15, 0.5])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_the_cheapest_path_is_that_of_trying_all(n, growth):
    m = 7
    cost = torch.rand(m, m + 1, generator=torch.Generator().manual_seed(n), dtype=torch.float64)

    def price(path):
        steps = [float(cost[i, j]) for i, j in itertools.pairwise([*path, m])]
        return sum(growth**k * step for k, step in enumerate(steps))

    every = [(0, *rest) for rest in itertools.combinations(range(1, m), n - 1)]
    assert tuple(cheapest(cost, n, growth)) == min(every, key=price)


def test_more_levels_than_the_teacher_has_are_refused(teacher):
    with pytest.raises(ValueError, match="8 levels of the 7 that the teacher has: give it more steps"):
        cheapest(torch.rand(7, 8), 8)
    for name in ("gits", "oss"):
        with pytest.raises(ValueError, match="42 levels of the 41"):
            METHODS[name](teacher, 42, solver("euler"), Linear())


def test_a_teachers_states_are_those_of_the_sampler_and_its_samples_are_no_cells(teacher):
    first = teacher.x[0] / teacher.sigmas[0]
    again = seedsbench.sample(MIXTURE, first, solver="heun", sigmas=teacher.sigmas, return_trajectory=True)
    assert torch.equal(again.trajectory[:-1], teacher.x)
    assert torch.equal(again.x, teacher.finished)
    assert teacher.evaluations == 32 * (2 * 40 + 41)
    assert abs(float((first * latents(torch.arange(32), (2, 1, 1), seed=0)).mean())) < 0.5
    assert not torch.equal(first, latents(torch.arange(32), (2, 1, 1), seed=0))


@pytest.mark.parametrize("schedule", [Linear(), VP()], ids=["linear", "vp"])
@pytest.mark.parametrize(
    "name", ["euler", "heun", "dpmpp_2m", "dpmpp_3m", "ipndm", "deis", "seeds3", "dpm_fast"]
)
def test_a_student_is_the_solver(teacher, name, schedule):
    """Over a path of the teacher's levels, with the noise off: also where a method plans its run."""
    path = (0, 5, 12, 20, 33)
    fitted = schedule.through(float(teacher.sigmas[-1]), float(teacher.sigmas[0]))
    method = solver(name).noise_free
    x = teacher.x[0] / teacher.sigmas[0]
    noise = Silent(x.shape)
    run = {"solver": method, "schedule": fitted, "noise": noise, "return_trajectory": True}
    whole = seedsbench.sample(MIXTURE, x, sigmas=teacher.sigmas[list(path)], **run)
    student = Student(teacher, method, fitted)
    torch.testing.assert_close(student.finished(path), whole.x, rtol=1e-9, atol=1e-9)
    if name != "dpm_fast":  # whose steps depend on how many there are
        scale = fitted.scale_at(teacher.sigmas[path[2]])
        state = student.state(path[:3], 2)
        assert state.shape == x.shape
        own = seedsbench.sample(MIXTURE, x, sigmas=teacher.sigmas[[0, 5, 12, 13, 14]], **run)
        torch.testing.assert_close(state, own.trajectory[2] / scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [2, 5, 9])
def test_levels_decrease_from_the_first_and_are_as_many_as_asked_for(teacher, method, n):
    found = METHODS[method](teacher, n, solver("euler"), Linear()).sigmas
    assert len(found) == n
    assert float(found[0]) == pytest.approx(float(teacher.sigmas[0]), rel=1e-12)
    assert bool((found.diff() < 0).all())
    assert float(found[-1]) >= float(teacher.sigmas[-1])


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "ipndm", "seeds3"])
@pytest.mark.parametrize("n", [3, 6])
def test_searched_levels_lead_nearer_to_the_exact_samples_than_edms(teacher, name, n):
    """On samples that the search has not seen, with the noise off."""
    method = solver(name).noise_free
    fresh = taught(
        MIXTURE, None, torch.arange(100, 164), solver=solver("heun"), grid=GRID, n_steps=200, seed=1
    )
    start = fresh.x[0] / fresh.sigmas[0]

    def error(sigmas):
        run = seedsbench.sample(MIXTURE, start, solver=method, sigmas=sigmas, noise=Silent(start.shape))
        return float(deviation(run.x, fresh.finished))

    edm = error(GRID.levels(n, 0.002, 80.0, Linear()))
    found = METHODS["oss"](teacher, n, solver(name), Linear())
    assert found.evaluations > 0
    assert error(found.sigmas) < 0.8 * edm


def test_between_levels_of_constant_rotation_paths_turn_alike():
    fine = taught(MIXTURE, None, torch.arange(32), solver=solver("heun"), grid=GRID, n_steps=600, seed=0)
    found = METHODS["constant_rotation"](fine, 6, solver("euler"), Linear()).sigmas
    directions = torch.nn.functional.normalize(fine.noise.flatten(2), dim=2)
    angles = (directions[1:] * directions[:-1]).sum(2).clamp(-1, 1).acos().mean(1)
    turned = np.interp(-found.log(), -fine.sigmas.log(), [0, *angles.cumsum(0).tolist()])
    between = np.diff([*turned, float(angles.sum())])
    assert between.max() < 1.03 * between.min()


PUBLISHED = {"sd15": "", "sdxl": "XL", "svd": "Video"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_tables_of_levels(name):
    grid = registry.build(registry.configured("grid", f"ays_{name}"))
    ten = grid.levels(10, *grid.range(0, float("inf")), Linear())
    assert ten.tolist() == pytest.approx(list(grid.sigmas[:-1]), rel=1e-12)
    twenty = grid.levels(20, *grid.range(0, float("inf")), Linear())
    assert torch.allclose(twenty[::2], ten, rtol=1e-12)
    assert bool((twenty.diff() < 0).all())
    clipped = grid.levels(10, 0.2, 10.0, Linear())
    assert 0.2 <= float(clipped.min()) < float(clipped.max()) <= 10


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables_are_diffusers(name):
    schedulers = pytest.importorskip("diffusers.schedulers", reason="needs seedsbench[diffusers]")
    own = registry.build(registry.configured("grid", f"ays_{name}")).sigmas
    theirs = schedulers.AysSchedules[f"StableDiffusion{PUBLISHED[name]}Sigmas"]
    assert list(own[:-1]) == pytest.approx(theirs[: len(own) - 1], rel=2e-2)
