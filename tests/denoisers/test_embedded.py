"""The shipped networks: same samples for any batch, right features, unconditional use, recorded origin."""

import pytest
import torch

from scripts.training.targets import provenance
from seedsbench import registry
from seedsbench.api import noise_levels, solver
from seedsbench.bench.problems.glyphs import glyphs_problem
from seedsbench.bench.sampling import SamplingPlan, generate
from seedsbench.bench.scoring import Scorer, fid_floor
from seedsbench.data.glyphs import ASSETS, FLOOR, glyphs
from seedsbench.data.uint8 import to_uint8

REGIMES = ("edm", "iddpm", "ve", "vp")
SCHEDULES = {"vp": "vp", "ve": "ve", "iddpm": "linear", "edm": "linear"}


def plan(problem, regime, name="seeds3", nfe=8, **options):
    schedule = registry.build(registry.configured("schedule", SCHEDULES[regime]))
    grid = registry.build(registry.configured("grid", regime))
    method = solver(name)
    sigmas, fitted = noise_levels(problem.denoiser, schedule, grid, method.steps_for(nfe))
    return SamplingPlan(method, fitted, sigmas, **options)


def draw(problem, chosen, indices, batch_size=64):
    batches = list(generate(problem.denoiser, chosen, indices, batch_size=batch_size))
    return torch.cat([b.x for b in batches])


@pytest.mark.parametrize("name", ["seeds3", "heun", "dpmpp_2m", "karras_sde"])
def test_samples_are_bitwise_the_same_for_any_batch_and_order(name):
    problem = glyphs_problem("edm")
    chosen = plan(problem, "edm", name, nfe=8, seed=4)
    indices = torch.arange(70)
    whole = draw(problem, chosen, indices, 64)
    assert torch.equal(draw(problem, chosen, indices[:9], 1), whole[:9])
    assert torch.equal(draw(problem, chosen, indices[:21], 7), whole[:21])
    shuffled = torch.tensor([66, 3, 41, 0, 69, 12])
    assert torch.equal(draw(problem, chosen, shuffled, 4), whole[shuffled])


@pytest.mark.parametrize("regime", REGIMES)
def test_each_regime_draws_the_class_it_is_asked_for(regime):
    problem = glyphs_problem(regime)
    indices = torch.arange(60)
    images = to_uint8(draw(problem, plan(problem, regime, nfe=16), indices))
    _, logits = problem.features.extract(images)
    assert float((logits.argmax(1) == indices % 10).double().mean()) > 0.85


def test_unconditional_sampling_works_with_the_same_network():
    problem = glyphs_problem("edm")
    images = to_uint8(draw(problem, plan(problem, "edm", nfe=16, labels="none"), torch.arange(60)))
    _, logits = problem.features.extract(images)
    assert float(logits.softmax(1).max(1).values.mean()) > 0.8  # recognisable shapes
    assert len(logits.argmax(1).unique()) >= 7  # of many classes


def test_scores_do_not_depend_on_the_order_of_arrival():
    problem = glyphs_problem("edm")
    indices = torch.arange(300)
    images = to_uint8(glyphs(indices, indices % 10, seed=1, stream=FLOOR))
    scores = []
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    for order in (indices, indices.flip(0), shuffled):
        for size in (300, 37):
            scorer = Scorer(problem, 300, splits=10)
            for part in order.split(size):
                scorer.update(part, images[part])
            scores.append(scorer.compute())
    assert all(score == scores[0] for score in scores)


def test_features_know_real_from_damaged():
    problem = glyphs_problem("edm")
    real = fid_floor(problem, 500, "balanced", 2)
    indices = torch.arange(500)
    images = glyphs(indices, indices % 10, seed=9, stream=FLOOR)
    distances = []
    for amount in (0.1, 0.2):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        scorer = Scorer(problem, 500, splits=10)
        scorer.update(indices, to_uint8(images + amount * noise))
        distances.append(scorer.compute()["fid"])
    assert real < distances[0] < distances[1]


@pytest.mark.parametrize("name", [*REGIMES, "features"])
def test_weights_say_how_they_were_trained_and_stay_small(name):
    path = ASSETS / f"{name}.safetensors"
    origin = provenance(path) if name != "features" else {"selection": "EMA weights at the last iteration"}
    assert "EMA weights at the last iteration" in str(origin["selection"])
    assert path.stat().st_size <= 2**20


@pytest.mark.slow
@pytest.mark.parametrize(("regime", "times"), [("edm", 1.5), ("vp", 2), ("iddpm", 2), ("ve", 5)])
def test_networks_reach_the_floor(regime, times):
    problem = glyphs_problem(regime)
    real, found = fid_floor(problem, 2000, "balanced", 4), []
    for name in ("heun", "dpmpp_2m", "seeds3"):
        scorer = Scorer(problem, 2000, splits=10)
        indices = torch.arange(2000)
        scorer.update(indices, to_uint8(draw(problem, plan(problem, regime, name, nfe=50), indices, 256)))
        found.append(scorer.compute()["fid"])
    assert min(found) <= times * real, (found, real)
