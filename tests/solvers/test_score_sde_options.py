"""Options of the score-SDE and adaptive solvers under the rules of the solver contract, and bad input.

The contract's own tests run each solver with its defaults; here are the other predictors, correctors,
norms and tableaux, which together with the golden tests covers every option of the family.
"""

import itertools

import pytest
import torch

import seedsbench
from seedsbench.diffusion.noise import Philox, latents
from seedsbench.noise import Silent
from tests.support.measure import drift_order, log_levels, mixture

PC = ("pc_ve", "pc_vp", "pc_subvp")
SHAPE = (2, 1, 1)
PREDICTORS = ("reverse_diffusion", "ancestral", "euler_maruyama", "none")
CORRECTORS = ("langevin", "annealed_langevin", "none")
CHOICES = [
    {"name": name, "predictor": predictor, "corrector": corrector, "corrector_steps": 2}
    for name, predictor, corrector in itertools.product(PC, PREDICTORS, CORRECTORS)
    if not predictor == corrector == "none"
]
CHOICES += [{"name": name, "probability_flow": True, "corrector": c} for name in PC for c in CORRECTORS]
CHOICES += [{"name": "karras_ve", "rk_order": 1}, {"name": "karras_ve", "alpha": 0.5}]
CHOICES += [{"name": "karras_ve", "S_churn": 0.0}, {"name": "dpm_adaptive", "order": 2}]
CHOICES += [
    {"name": "dpm_adaptive", "eta": 1.0, "s_noise": 1.1},
    {"name": "adaptive_sde", "error_norm": "linf"},
]


def called(choice):
    return "-".join(map(str, choice.values()))


def run(choice, indices, steps=4, **options):
    options = {"steps": steps, "schedule": "vp", **options}
    noise = options.pop("noise", Philox(indices, SHAPE, seed=3))
    start = latents(indices, SHAPE, seed=3)
    return seedsbench.sample(mixture(), start, solver=choice, noise=noise, **options)


@pytest.mark.parametrize("choice", CHOICES, ids=called)
def test_every_choice_keeps_the_contract(choice):
    """Counts (the loop checks them), per-sample bits, types, noise drawn as declared, extreme levels."""
    indices, solver = torch.arange(5), seedsbench.solver(choice)
    whole = run(choice, indices)
    assert torch.equal(torch.cat([run(choice, part).x for part in indices.split(2)]), whole.x)
    assert whole.nfe.max() <= solver.total_nfe(4)
    silent = run(choice, indices, noise=Silent((5, *SHAPE)))
    assert torch.equal(silent.x, whole.x) != solver.stochastic
    assert run(choice, indices, dtype=torch.float32, final="euler").x.dtype == torch.float32
    for steps in (1, 20):
        levels = {"steps": None, "sigmas": log_levels(steps, 20000.0, 1e-3), "schedule": "linear"}
        assert run(choice, indices, **levels).x.isfinite().all()


@pytest.mark.parametrize("name", PC)
def test_norms_of_langevin(name):
    """per_sample is what batch does to a batch of one; a larger batch shares its norms."""
    per_sample, batch = ({"name": name, "corrector": "langevin", "norms": n} for n in ("per_sample", "batch"))
    one, five = torch.tensor([3]), torch.arange(5)
    assert torch.equal(run(per_sample, one).x, run(batch, one).x)
    assert not torch.equal(run(per_sample, five).x, run(batch, five).x)


@pytest.mark.parametrize("predictor", PREDICTORS[:-1])
@pytest.mark.parametrize("name", PC)
def test_probability_flow_is_the_ode_at_order_one(name, predictor):
    choice = {"name": name, "predictor": predictor, "corrector": "none", "probability_flow": True}
    solver = seedsbench.solver(choice)
    assert not solver.stochastic
    assert drift_order(solver, "vp", (64, 128, 256), high=5.0, low=0.1) == pytest.approx(1, abs=0.3)
    levels = {"steps": None, "sigmas": log_levels(200, 5.0, 0.1), "final": "stop"}
    exact = run({"name": "rk45", "rtol": 1e-8, "atol": 1e-8}, torch.arange(4), **levels).x
    assert float((run(choice, torch.arange(4), **levels).x - exact).abs().max()) < 0.05


class NoNetwork:
    """A denoiser that fails the test if it is evaluated."""

    def __call__(self, x, sigma, labels):
        raise AssertionError("the network was evaluated")


NOISELESS = "unknown option '{}'. Known: atol, first_step, norms, rtol"
BAD = [
    # An adaptive ODE solver has no stochastic options.
    *[({"name": n, o: 1.0}, NOISELESS.format(o)) for n in ("rk45", "dopri5") for o in ("eta", "S_churn")],
    ({"name": "adaptive_sde", "eta": 0.0}, "unknown option 'eta'"),
    ({"name": "dpm_adaptive", "eta": -1.0}, "eta=-1.0 must lie in"),
    ({"name": "dpm_adaptive", "order": 4}, "order=4 must be one of 2, 3"),
    ({"name": "dpm_adaptive", "h_init": 0.0}, "h_init=0.0 must lie in"),
    ({"name": "rk45", "rtol": -1.0}, "rtol=-1.0 must lie in"),
    ({"name": "rk45", "atol": 0.0}, "atol=0.0 must lie in"),
    ({"name": "rk45", "norms": "none"}, "norms='none' must be one of per_sample, batch"),
    ({"name": "rk45", "first_step": -0.1}, "first_step=-0.1 must lie in"),
    ({"name": "adaptive_sde", "safety": 1.5}, "safety=1.5 must lie in"),
    ({"name": "adaptive_sde", "error_norm": "l1"}, "error_norm='l1' must be one of l2, linf"),
    ({"name": "pc_ve", "predictor": "none", "corrector": "none"}, "predictor and corrector are none"),
    ({"name": "pc_ve", "predictor": "ddim"}, "predictor='ddim' must be one of"),
    ({"name": "pc_vp", "corrector": "ald"}, "corrector='ald' must be one of"),
    ({"name": "pc_vp", "snr": -0.1}, "snr=-0.1 must lie in"),
    ({"name": "pc_vp", "corrector_steps": 0}, "corrector_steps=0 must lie in"),
    ({"name": "pc_vp", "corrector_steps": 1.5}, "corrector_steps=1.5 must be an integer"),
    ({"name": "pc_vp", "norms": "sample"}, "norms='sample' must be one of per_sample, batch"),
    ({"name": "pc_vp", "discretization": "reference"}, "use schedule=vp"),
    ({"name": "pc_ve", "discretization": "reference"}, "use schedule=ve_geometric"),
    ({"name": "pc_subvp", "discretization": "reference"}, "use schedule=subvp"),
    ({"name": "karras_ve", "compat": "k_diffusion"}, "compat='k_diffusion' must be one of paper, diffusers"),
    ({"name": "karras_ve", "S_churn": -1.0}, "S_churn=-1.0 must lie in"),
]


@pytest.mark.parametrize(("choice", "message"), BAD, ids=lambda v: called(v) if isinstance(v, dict) else "")
def test_bad_input_is_refused_before_the_first_evaluation(choice, message):
    with pytest.raises(ValueError) as caught:
        seedsbench.sample(NoNetwork(), latents(torch.arange(2), SHAPE, seed=0), solver=choice, steps=3)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sigmas", [[1.0, 2.0], [1.0, 0.0], [1.0, 1.0], [1.0], [float("nan"), 1.0]])
@pytest.mark.parametrize("name", ["rk45", "adaptive_sde", "pc_vp"])
def test_unusable_levels_are_refused_before_the_first_evaluation(name, sigmas):
    with pytest.raises(ValueError, match="noise levels"):
        seedsbench.sample(NoNetwork(), latents(torch.arange(2), SHAPE, seed=0), solver=name, sigmas=sigmas)
