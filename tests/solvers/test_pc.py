"""Options of the predictor-corrector, Karras VE and adaptive solvers under the rules of the solver contract.

The contract's own tests run each solver with its defaults; here are the other predictors, correctors,
norms and tableaux, which together with the golden tests covers every option of the family.
"""

import itertools

import pytest
import torch

import seedsbench
from seedsbench.noise import Silent
from tests.support.measure import START, drift_order, log_levels, run

PC = ("pc_ve", "pc_vp", "pc_subvp")
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


@pytest.mark.parametrize(
    "choice",
    [pytest.param(one, marks=pytest.mark.slow if one["name"] in PC[1:] else ()) for one in CHOICES],
    ids=lambda choice: "-".join(map(str, choice.values())),
)
def test_every_choice_keeps_the_contract(choice):
    """Counts (the loop checks them), per-sample bits, types, noise drawn as declared, extreme levels."""
    path, solver = {"steps": 4, "schedule": "vp"}, seedsbench.solver(choice)
    whole = run(choice, **path)
    parts = [run(choice, latents=START[i], indices=i, **path).x for i in torch.arange(6).split(4)]
    assert torch.equal(torch.cat(parts), whole.x)
    assert whole.nfe.max() <= solver.total_nfe(4)
    assert torch.equal(run(choice, noise=Silent(START.shape), **path).x, whole.x) != solver.stochastic
    assert run(choice, dtype=torch.float32, final="euler", **path).x.dtype == torch.float32
    for steps in (1, 20):
        assert run(choice, sigmas=log_levels(steps, 20000.0, 1e-3)).x.isfinite().all()


@pytest.mark.parametrize("name", PC)
def test_norms_of_langevin(name):
    """per_sample is what batch does to a batch of one; a larger batch shares its norms."""
    choices = [{"name": name, "corrector": "langevin", "norms": norms} for norms in ("per_sample", "batch")]
    for latents, same in ((START[3:4], True), (START, False)):
        assert torch.equal(*(run(c, latents=latents, steps=4, schedule="vp").x for c in choices)) == same


@pytest.mark.parametrize("predictor", PREDICTORS[:-1])
@pytest.mark.parametrize("name", ["pc_ve", *(pytest.param(name, marks=pytest.mark.slow) for name in PC[1:])])
def test_probability_flow_is_the_ode_at_order_one(name, predictor):
    choice = {"name": name, "predictor": predictor, "corrector": "none", "probability_flow": True}
    solver = seedsbench.solver(choice)
    assert not solver.stochastic
    assert drift_order(solver, "vp", (64, 128, 256), high=5.0, low=0.1) == pytest.approx(1, abs=0.3)
    path = {"sigmas": log_levels(200, 5.0, 0.1), "schedule": "vp", "final": "stop"}
    exact = run({"name": "rk45", "rtol": 1e-8, "atol": 1e-8}, **path).x
    assert float((run(choice, **path).x - exact).abs().max()) < 0.05
