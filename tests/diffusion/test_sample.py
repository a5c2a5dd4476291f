"""seedsbench.sample and the loop: arguments, errors, the end of the path, trajectories."""

import pytest
import torch

import seedsbench
from seedsbench.diffusion.noise import Philox, Silent
from seedsbench.solvers.ddim import DDIM
from tests.support.golden import mixture_parameters
from tests.support.measure import START, mixture, never, run


def test_trajectory_has_every_level_and_the_sample():
    result = run("heun", steps=5)
    assert result.trajectory.shape == (7, 6, 2, 1, 1)
    assert torch.equal(result.trajectory[0], START * result.sigmas[0])
    assert torch.equal(result.trajectory[-1], result.x)
    assert len(result.sigmas) == 6
    assert seedsbench.sample(mixture(), START, solver="heun", steps=5).trajectory is None


def test_stop_keeps_the_state_and_spends_nothing():
    kept = run("euler", steps=4, final="stop")
    assert torch.equal(kept.trajectory[-1], kept.trajectory[-2])
    assert kept.nfe.tolist() == [4] * 6


def test_numbered_samples_are_the_same_however_they_are_batched():
    """Seed and index alone decide what a sample is; numbers left at their default repeat in every call."""
    indices = torch.arange(100, 110)
    start = seedsbench.noise.latents(indices, (2, 1, 1), seed=7)

    def drawn(latents=start, **noise):
        return run("seeds2", latents=latents, steps=4, **noise).x

    whole = drawn(seed=7, indices=indices)
    parts = [drawn(start[i], seed=7, indices=indices[i].tolist()) for i in torch.arange(10).split(4)]
    assert torch.equal(torch.cat(parts), whole)
    unnumbered = drawn()
    assert not torch.equal(unnumbered, whole)
    assert torch.equal(unnumbered, drawn(seed=0, indices=range(10)))
    assert torch.equal(unnumbered, drawn(noise=Philox(torch.arange(10), (2, 1, 1))))
    assert torch.equal(unnumbered[:2], drawn(start[:2]))


def test_samples_of_one_latent_have_noise_of_their_own():
    x = run("seeds1", latents=START[:1].expand(6, 2, 1, 1), steps=4).x
    assert len(x.unique(dim=0)) == 6


def test_an_error_inside_a_denoiser_is_its_own():
    with pytest.raises(TypeError, match=r"unsupported operand|must be Tensor"):
        run("heun", lambda x, sigma, labels=None: x + "noise", steps=2)


def test_labels_choose_components():
    means, weights, std = mixture_parameters()
    labelled = seedsbench.analytic.GaussianMixture(means, weights, std, labelled=True)
    components = [2, 2, 0, 1, 0, 1]
    labels = torch.eye(3)[components]
    x = run("heun", labelled, steps=30, labels=labels).x.flatten(1)
    assert bool(((x - torch.as_tensor(means)[components]).norm(dim=1) < 5 * std).all())
    with pytest.raises(ValueError, match="unconditional"):
        run("heun", steps=3, labels=labels)


DTYPES = (torch.int32, torch.int64, torch.bool, torch.complex64, torch.float16, "float64")
DTYPE_SAID = r"^dtype=[^\n]* must be torch\.float64 or torch\.float32[^\n]*$"
UNCALLABLE = (lambda x, sigma: x, torch.nn.Bilinear(2, 2, 2), "none")
DENOISER_SAID = r"^denoiser [^\n]*D\(x, sigma, labels\)[^\n]*$"
EXPLICIT = {"name": "explicit", "sigmas": [10.0, 1.0, 0.1]}
UNUSABLE_SOLVERS = [
    ("sees3", "seeds3"),
    ({"name": "seeds1", "etta": 0.5}, "Did you mean 'eta'"),
    ({"name": "seeds3", "c2": 2 / 3, "c3": 0.5}, "near c2=2/3"),
    ({"name": "sa_solver", "tau_start": 0.01}, r"tau_start=0.01 must lie in \[0.72, inf\]"),
    ({"name": "dpm_solver3", "r1": 0.7}, "r1=0.7 must be less than r2=0.66"),
    ({"name": "deis", "mode": "rhoab", "compat": "diff_sampler"}, "compat=diff_sampler has no meaning"),
    ({"name": "ddim", "clip_sample": True, "thresholding": True}, "only one can act"),
    ({"name": "ddpm", "variance": "learned"}, "variance=learned needs a denoiser that predicts a variance"),
    # An adaptive ODE solver has no stochastic options.
    ({"name": "rk45", "eta": 1.0}, "unknown option 'eta'. Known: atol, first_step, norms, rtol"),
    ({"name": "pc_ve", "predictor": "none", "corrector": "none"}, "predictor and corrector are none"),
    ({"name": "pc_vp", "discretization": "reference"}, "use schedule=vp"),
    ({"name": "pc_ve", "discretization": "reference"}, "use schedule=ve_geometric"),
    ({"name": "pc_subvp", "discretization": "reference"}, "use schedule=subvp"),
]
INTERVALS = ([1.0, 90.0, 3, 1], [0.0005, 0.001, 3, 1])
OUT_OF_RANGE = [{"name": "restart", "intervals": [interval]} for interval in INTERVALS]
RANGE = r"t_max in the run's range of noise levels, \(0.002, 80\]"
TABLE = {"name": "discrete", "num_train_timesteps": 2}
UNUSABLE_TABLES = [
    ({"name": "discrete", "trained_betas": [0.1, 0.2]}, "set num_train_timesteps=2"),
    (TABLE | {"trained_betas": [0.1, 1.2]}, r"\[1\]=1.2 must lie in \[1e-10, 1\]"),
    (TABLE | {"trained_betas": ["a", "b"]}, r"trained_betas\[0\]='a' must be a number"),
    (TABLE | {"trained_betas": [1.0, 0.5]}, r"betas must lie in \(0, 1\), the last one in"),
]
OPTIONS_OF_A_TABLE = [
    ({"name": "ddim", "previous_timestep": "diffusers"}, "linear", "use schedule=discrete"),
    ({"name": "pndm", "set_alpha_to_one": False}, "linear", "use schedule=discrete"),
    ({"name": "pndm", "previous_timestep": "diffusers"}, TABLE | {"num_train_timesteps": 10}, "never move"),
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of"),
        ({"nfe": 10, "steps": 3}, "exactly one of"),
        ({"steps": 0}, "at least one step"),
        *[({"steps": 4, "dtype": dtype}, DTYPE_SAID) for dtype in DTYPES],
        *[({"steps": 2, "denoiser": denoiser}, DENOISER_SAID) for denoiser in UNCALLABLE],
        *[({"nfe": value}, "nfe=.* must be an integer") for value in ("20", 20.5, True)],
        ({"steps": 2.5}, "steps=.* must be an integer"),
        ({"sigmas": 3.0}, "list of noise levels"),
        ({"nfe": 1}, "smallest budget that works is 2"),
        ({"steps": 2, "final": "round"}, "must be one of denoise, euler, stop"),
        ({"steps": 2, "schedule": "vpp"}, "Did you mean 'vp'"),
        ({"steps": 2, "grid": {"name": "edm", "roh": 3}}, "Did you mean 'rho'"),
        ({"sigmas": [1.0, 2.0]}, "decrease"),
        ({"steps": 2, "grid": {"rho": 3}}, "has no 'name'"),
        ({"steps": 2, "latents": START[0]}, "shape"),
        ({"steps": 2, "latents": START.long()}, "^latents must be standard normal numbers, got"),
        ({"steps": 2, "noise": Silent(START.shape), "seed": 1}, "either"),
        ({"steps": 2, "noise": Silent(START.shape), "indices": range(6)}, "either"),
        ({"steps": 2, "indices": range(3)}, r"\(3,\).*\(6,\) integers"),
        ({"steps": 2, "indices": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}, "integers"),
        ({"steps": 2, "indices": [-1, 0, 1, 2, 3, 4]}, r"2\*\*32"),
        ({"steps": 2, "seed": -1}, r"seed=-1 .*2\*\*64"),
        ({"steps": 2, "seed": 0.5}, "seed=0.5 must be an integer"),
        ({"nfe": 4, "solver": "heun", "grid": EXPLICIT}, "smallest budget that works is 5"),
        *[({"steps": 3, "solver": choice}, message) for choice, message in UNUSABLE_SOLVERS],
        *[({"steps": 9, "grid": "edm", "solver": choice}, RANGE) for choice in OUT_OF_RANGE],
        *[({"steps": 1, "schedule": table}, message) for table, message in UNUSABLE_TABLES],
        *[({"steps": 20, "solver": choice, "schedule": s}, said) for choice, s, said in OPTIONS_OF_A_TABLE],
    ],
)
def test_unusable_arguments_are_refused_before_the_first_evaluation(options, message):
    with pytest.raises(ValueError, match=message):
        run(**{"solver": "euler", "denoiser": never, **options})


def test_a_broken_promise_is_an_error():
    class Liar(DDIM):
        def nfe(self, n_steps):
            return 3 * n_steps

    with pytest.raises(RuntimeError, match=r"promises 7 .* 3\.\.3 were counted"):
        run(Liar(), steps=2)


@pytest.mark.parametrize("name", ["euler", "heun", "seeds3", "dpmpp_2m"])
def test_an_analytic_first_step_is_free_and_counted_so(name):
    solver = seedsbench.solver(name)
    plain, free = (run(solver, steps=4, afs=afs) for afs in (False, True))
    assert (plain.nfe - free.nfe).tolist() == [1] * 6
    assert solver.total_nfe(4, afs=True) == int(free.nfe[0])
    assert solver.steps_for(solver.total_nfe(4) - 1, afs=True) == 4
    assert 0 < float((plain.x - free.x).abs().max()) < 0.5


def test_the_analytic_limit_is_the_denoiser_of_unit_normal_data():
    gaussian = seedsbench.analytic.Gaussian(0.0, 1.0, image_shape=(2, 1, 1))
    assert torch.allclose(*(run("euler", gaussian, steps=3, afs=afs).x for afs in (False, True)), atol=0.02)


def test_an_explicit_grid_costs_what_its_levels_do():
    assert run("heun", nfe=7, grid=EXPLICIT).nfe.tolist() == [5] * 6
