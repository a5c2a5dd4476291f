"""Guided evaluations under a budget, of every conf/solver/*.yaml: two where guidance acts, one elsewhere."""

import pytest
import torch

import seedsbench
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.prediction import Guided
from seedsbench.diffusion.noise import Philox, latents
from seedsbench.diffusion.process import expand
from seedsbench.solvers.base import BudgetError
from tests.support.elsewhere import ELSEWHERE, SecondDevice

LABELS = torch.eye(2, dtype=torch.float64)
LATENTS = latents(torch.arange(2), (2, 1, 1), seed=0)
INTERVAL = (0.3, 5.0)


class Scaled(Denoiser):
    """Gaussian data whose width is the class's."""

    img_channels, img_resolution, label_dim, image_shape = 2, 1, 2, (2, 1, 1)
    sigma_min, sigma_max = 0.002, 80.0

    def __call__(self, x, sigma, labels=None):
        assert labels is not None
        variance = expand((0.5 + 0.3 * labels[:, 0] - 0.2 * labels[:, 1]) ** 2, x)
        return x * variance / (variance + expand(sigma, x) ** 2)


class Counted(Scaled):
    """Notes the levels of its evaluations, with a class (True) and without."""

    def __init__(self):
        self.levels = {True: [], False: []}

    def __call__(self, x, sigma, labels=None):
        self.levels[bool(labels.any())] += sigma.expand(len(x)).tolist()
        return super().__call__(x, sigma, labels)


def drawn(solver, interval=INTERVAL, scale=1.2, **amount):
    network = Counted()
    guided = Guided(network, scale, interval=interval)
    return seedsbench.sample(guided, LATENTS, solver=solver, labels=LABELS, **amount), network


@pytest.mark.one_of_each_family
def test_the_count_is_of_the_evaluations_made_and_one_more_step_would_not_fit(solver_name):
    solver, budget = seedsbench.solver(solver_name), 20
    result, network = drawn(solver, nfe=budget)
    made = [level for levels in network.levels.values() for level in levels]
    assert int(result.nfe.sum()) == len(made)
    assert int(result.nfe.max()) <= budget
    within = [level for level in network.levels[True] if INTERVAL[0] < level <= INTERVAL[1]]
    assert sorted(network.levels[False]) == sorted(within)
    if not solver.adaptive:
        assert result.nfe[0] == result.nfe[1]
        assert int(drawn(solver, steps=len(result.sigmas))[0].nfe[0]) > budget


@pytest.mark.slow
def test_no_larger_number_of_steps_fits(solver_name):
    solver = seedsbench.solver(solver_name)
    for budget in (20, 33, 60):
        found = len(drawn(solver, nfe=budget)[0].sigmas) - 1
        costs = [int(drawn(solver, steps=n)[0].nfe.max()) for n in range(found + 1, found + 8)]
        assert solver.adaptive or min(costs) > budget


@pytest.mark.parametrize("interval", [None, INTERVAL])
def test_a_budget_for_no_step_names_the_smallest(interval):
    with pytest.raises(BudgetError, match=r"nfe=2 fits no step of Heun .*that works is \d+$") as refused:
        drawn("heun", interval, nfe=2)
    smallest = int(str(refused.value).split()[-1])
    assert drawn("heun", interval, nfe=smallest)[0].nfe.tolist() == [smallest] * 2
    with pytest.raises(BudgetError, match=f"works is {smallest}$"):
        drawn("heun", interval, nfe=smallest - 1)


def test_levels_of_ones_own_are_refused_where_they_cost_more():
    grid = {"name": "explicit", "sigmas": [80.0, 2.0, 1.0, 0.1]}
    result, _ = drawn("euler", nfe=6, grid=grid)
    assert result.nfe.tolist() == [6] * 2, "two at 2 and 1"
    said = r"nfe=5 fits not the 3 steps of the explicit grid .*that works is 6$"
    with pytest.raises(BudgetError, match=said):
        drawn("euler", nfe=5, grid=grid)


@pytest.mark.parametrize("final", ["denoise", "euler", "stop"])
def test_the_end_and_a_free_start_are_counted(final):
    for interval, afs in ((None, True), ((0.001, 90.0), True), ((50.0, 90.0), True), ((0.001, 0.1), False)):
        result, network = drawn("heun", interval, nfe=20, final=final, afs=afs)
        assert result.nfe.tolist() == [sum(map(len, network.levels.values())) / 2] * 2
        assert int(result.nfe[0]) <= 20


@pytest.mark.parametrize("interval", [None, INTERVAL])
@pytest.mark.parametrize("solver", ["heun", "seeds3", "rk45", "adaptive_sde"])
def test_on_a_second_device_it_gives_the_same_samples_and_waits_no_more(solver, interval):
    def run(device):
        guided = Guided(Scaled(), 1.2, 0.5, interval=interval)
        noise = Philox(torch.arange(2), (2, 1, 1), seed=0, device=device)
        start, labels = LATENTS.to(device), LABELS.to(device)
        return seedsbench.sample(guided, start, solver=solver, nfe=20, labels=labels, noise=noise).x

    with SecondDevice() as device:
        there = run(ELSEWHERE)
        assert device.waits == 1 or seedsbench.solver(solver).adaptive
        there = there.cpu()
    assert torch.equal(there, run("cpu"))
