"""seedsbench.sample and the loop: arguments, errors, the end of the path, trajectories."""

import pytest
import torch

import seedsbench
from seedsbench.diffusion.integrate import NonFiniteError
from seedsbench.diffusion.noise import Philox, Silent
from seedsbench.solvers.base import Solver, StepResult
from tests.support.measure import mixture

START = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2, 1, 1)


def test_trajectory_has_every_level_and_the_sample():
    result = seedsbench.sample(mixture(), START, solver="heun", steps=5, return_trajectory=True)
    assert result.trajectory.shape == (7, 4, 2, 1, 1)
    assert torch.equal(result.trajectory[0], START * result.sigmas[0])
    assert torch.equal(result.trajectory[-1], result.x)
    assert len(result.sigmas) == 6
    assert seedsbench.sample(mixture(), START, solver="heun", steps=5).trajectory is None


def test_stop_keeps_the_state_and_spends_nothing():
    kept = seedsbench.sample(mixture(), START, solver="euler", steps=4, final="stop", return_trajectory=True)
    assert torch.equal(kept.trajectory[-1], kept.trajectory[-2])
    assert kept.nfe.tolist() == [4] * 4


@pytest.mark.parametrize(("solver", "nfe", "steps"), [("heun", 20, 9), ("seeds3", 20, 6), ("euler", 20, 19)])
def test_nfe_is_a_budget(solver, nfe, steps):
    result = seedsbench.sample(mixture(), START, solver=solver, nfe=nfe)
    assert len(result.sigmas) - 1 == steps
    assert int(result.nfe.max()) <= nfe


def test_default_noise_is_seed_zero_by_position():
    a = seedsbench.sample(mixture(), START, solver="seeds2", steps=4).x
    b = seedsbench.sample(mixture(), START[:2], solver="seeds2", steps=4).x
    assert torch.equal(a[:2], b)


def test_numbered_samples_are_the_same_however_they_are_batched():
    """Seed and index alone decide what a sample is; numbers left at their default repeat in every call."""
    run = {"solver": "seeds2", "steps": 4}
    indices = torch.arange(100, 110)
    start = seedsbench.noise.latents(indices, (2, 1, 1), seed=7)
    whole = seedsbench.sample(mixture(), start, seed=7, indices=indices, **run).x
    parts = [
        seedsbench.sample(mixture(), start[i], seed=7, indices=indices[i].tolist(), **run).x
        for i in torch.arange(10).split(4)
    ]
    assert torch.equal(torch.cat(parts), whole)
    unnumbered = seedsbench.sample(mixture(), start, **run).x
    assert torch.equal(unnumbered, seedsbench.sample(mixture(), start, seed=0, indices=range(10), **run).x)
    assert not torch.equal(unnumbered, whole)
    assert torch.equal(
        unnumbered, seedsbench.sample(mixture(), start, noise=Philox(torch.arange(10), (2, 1, 1)), **run).x
    )


def test_batches_of_a_numbered_loop_have_noise_of_their_own():
    same = START[:1].expand(3, 2, 1, 1)
    first, second = (
        seedsbench.sample(mixture(), same, solver="seeds1", steps=4, indices=indices).x.flatten(1)
        for indices in torch.arange(6).split(3)
    )
    assert len(torch.cat([first, second]).unique(dim=0)) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": Silent((4, 2, 1, 1)), "seed": 1}, "either"),
        ({"noise": Silent((4, 2, 1, 1)), "indices": range(4)}, "either"),
        ({"indices": range(3)}, r"\(3,\).*\(4,\) integers"),
        ({"indices": [0.0, 1.0, 2.0, 3.0]}, "integers"),
        ({"indices": [-1, 0, 1, 2]}, r"2\*\*32"),
        ({"seed": -1}, r"seed=-1 .*2\*\*64"),
        ({"seed": 0.5}, "seed=0.5 must be an integer"),
    ],
)
def test_unusable_numbers_of_samples(options, message):
    with pytest.raises(ValueError, match=message):
        seedsbench.sample(mixture(), START, solver="heun", steps=2, **options)


@pytest.mark.parametrize("solver", ["heun", "seeds3", "rk45"])
@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (lambda x: 0 * x[:, :1], r"\(4, 1, 1, 1\)"),
        (lambda x: torch.cat([x, x], 1), r"\(4, 4, 1, 1\)"),
        (lambda x: x.mean(), r"\(\)"),
        (lambda x: (x,), "tuple"),
    ],
)
def test_an_answer_of_another_shape_is_refused(solver, answer, shape):
    with pytest.raises(ValueError, match=rf"denoiser returned {shape}, expected \(4, 2, 1, 1\): [^\n]*$"):
        seedsbench.sample(lambda x, sigma, labels: answer(x), START, solver=solver, nfe=9)


class TwoArguments(torch.nn.Module):
    def forward(self, x, sigma):
        return x


@pytest.mark.parametrize("denoiser", [lambda x, sigma: x, TwoArguments(), None])
def test_a_denoiser_that_cannot_be_called_is_refused_before_it_is(denoiser):
    with pytest.raises(ValueError, match=r"^denoiser [^\n]*D\(x, sigma, labels\)[^\n]*$"):
        seedsbench.sample(denoiser, START, solver="heun", steps=2)


def test_an_error_inside_a_denoiser_is_its_own():
    def mistaken(x, sigma, labels=None):
        return x + "noise"

    with pytest.raises(TypeError, match=r"unsupported operand|must be Tensor"):
        seedsbench.sample(mistaken, START, solver="heun", steps=2)


def test_labels_choose_components():
    from tests.support.golden import mixture_parameters

    means, weights, std = mixture_parameters()
    labelled = seedsbench.analytic.GaussianMixture(means, weights, std, labelled=True)
    labels = torch.eye(3)[torch.tensor([2, 2, 0, 1])]
    x = seedsbench.sample(labelled, START, solver="heun", steps=30, labels=labels).x.flatten(1)
    chosen = torch.as_tensor(means)[[2, 2, 0, 1]]
    assert bool(((x - chosen).norm(dim=1) < 5 * std).all())
    with pytest.raises(ValueError, match="unconditional"):
        seedsbench.sample(mixture(), START, solver="heun", steps=3, labels=labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of"),
        ({"nfe": 10, "steps": 3}, "exactly one of"),
        ({"steps": 0}, "at least one step"),
        *[({"nfe": value}, "nfe=.* must be an integer") for value in ("20", 20.5, True)],
        *[({"steps": value}, "steps=.* must be an integer") for value in ("2", 2.5, True)],
        ({"sigmas": 3.0}, "list of noise levels"),
        ({"nfe": 1}, "smallest budget that works is 2"),
        ({"steps": 2, "final": "round"}, "must be one of denoise, euler, stop"),
        ({"steps": 2, "schedule": "vpp"}, "Did you mean 'vp'"),
        ({"steps": 2, "grid": {"name": "edm", "roh": 3}}, "Did you mean 'rho'"),
        ({"sigmas": [1.0, 2.0]}, "decrease"),
        ({"steps": 2, "grid": {"rho": 3}}, "has no 'name'"),
    ],
)
def test_unusable_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        seedsbench.sample(mixture(), START, solver="euler", **options)


def test_unknown_solvers_and_options_name_their_neighbours():
    with pytest.raises(ValueError, match="seeds3"):
        seedsbench.solver("sees3")
    with pytest.raises(ValueError, match="Did you mean 'eta'"):
        seedsbench.solver("seeds1", etta=0.5)
    with pytest.raises(ValueError, match=r"c2=2 must lie in \[0.001, 1\]"):
        seedsbench.solver("seeds2", c2=2)
    with pytest.raises(ValueError, match="must be a number"):
        seedsbench.solver("seeds2", c2="half")
    with pytest.raises(ValueError, match="near c2=2/3"):
        seedsbench.solver("seeds3", c2=2 / 3, c3=0.5)
    with pytest.raises(ValueError, match="data, noise, edm"):
        seedsbench.solver("seeds3", prediction="x0")
    with pytest.raises(ValueError, match="shape"):
        seedsbench.sample(mixture(), START[0], solver="euler", steps=2)


def test_nan_names_step_and_sigma():
    class Breaks:
        def __call__(self, x, sigma, labels):
            return x * (float("nan") if sigma < 1 else 0.5)

    with pytest.raises(NonFiniteError, match=r"4 of 4 samples .* step \d+ of 8, leaving sigma=0\.\d+"):
        seedsbench.sample(Breaks(), START, solver="euler", steps=8)


def test_a_broken_promise_is_an_error():
    class Liar(Solver):
        order = 1

        def nfe(self, n_steps):
            return 3 * n_steps

        def step(self, process, x, t, t_next, state, noise):
            return StepResult(process.denoise(x, t))

    with pytest.raises(RuntimeError, match=r"promises 7 .* 3\.\.3 were counted"):
        seedsbench.sample(mixture(), START, solver=Liar(), steps=2)


def test_guidance_like_denoisers_count_all_their_evaluations():
    denoiser = mixture()
    denoiser.evaluations = 2
    assert seedsbench.sample(denoiser, START, solver="heun", steps=3).nfe.tolist() == [14] * 4


def test_names():
    assert {"euler", "heun", "seeds1", "seeds2", "seeds3", "seeds3_asreleased"} <= set(
        seedsbench.solver_names()
    )
    assert seedsbench.solver({"name": "seeds3", "c2": 0.4}).c2 == 0.4


@pytest.mark.parametrize("name", ["euler", "heun", "seeds3", "dpmpp_2m"])
def test_an_analytic_first_step_is_free_and_counted_so(name):
    solver = seedsbench.solver(name)
    plain, free = (
        seedsbench.sample(mixture(), START, solver=solver, steps=4, afs=afs) for afs in (False, True)
    )
    assert (plain.nfe - free.nfe).tolist() == [1] * len(free.nfe)
    assert solver.total_nfe(4, afs=True) == int(free.nfe[0])
    assert solver.steps_for(solver.total_nfe(4) - 1, afs=True) == 4
    assert 0 < float((plain.x - free.x).abs().max()) < 0.5


def test_the_analytic_limit_is_the_denoiser_of_unit_normal_data():
    gaussian = seedsbench.analytic.Gaussian(0.0, 1.0, image_shape=(2, 1, 1))
    latents = START
    results = [
        seedsbench.sample(gaussian, latents, solver="euler", steps=3, afs=afs).x for afs in (False, True)
    ]
    assert torch.allclose(*results, atol=0.02)


def test_a_budget_must_pay_for_an_explicit_grid():
    grid = {"name": "explicit", "sigmas": [10.0, 1.0, 0.1]}
    assert seedsbench.sample(mixture(), START, solver="heun", nfe=7, grid=grid).nfe.tolist() == [5] * 4
    with pytest.raises(ValueError, match="smallest budget that works is 5"):
        seedsbench.sample(mixture(), START, solver="heun", nfe=4, grid=grid)
