"""The shipped networks: same samples for any batch, right features, unconditional use, recorded origin."""

import pytest
import torch

from scripts.training.targets import provenance
from seedsbench.bench.labels import classes_of
from seedsbench.bench.problems.digits import digits_problem
from seedsbench.bench.problems.glyphs import glyphs_problem
from seedsbench.bench.sampling import generate, plan_of
from seedsbench.bench.scoring import Scorer, fid_floor
from seedsbench.data.digits import DIGITS, digits
from seedsbench.data.glyphs import FLOOR, GLYPHS, glyphs
from seedsbench.data.uint8 import to_uint8
from seedsbench.denoisers import embedded
from seedsbench.denoisers.embedded import model_id
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS, GlyphUNet
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, EDMPreconditioner
from seedsbench.metrics.glyph_features import GlyphFeatures, load_glyph_features, load_glyph_reference
from tests.support.cells import compose, model_files

REGIMES = ("edm", "flow", "iddpm", "ve", "vp")
TRAININGS = [
    (data, regime, training)
    for data in (GLYPHS, DIGITS)
    for regime, count in model_files()[data.name]["trainings"].items()
    for training in range(count)
]
NAMED = [f"{data.name}-{regime}-{training}" for data, regime, training in TRAININGS]


def draw(regime, indices, *overrides, batch_size=64, problem=None):
    """Samples of the regime's glyphs, (B, 3, 16, 16), or of the problem's images."""
    problem = problem or glyphs_problem(regime)
    plan = plan_of(compose(f"regime={regime}", "solver=seeds3", "nfe=16", *overrides), problem)
    batches = generate(problem.denoiser, plan, indices, batch_size=batch_size)
    return torch.cat([batch.x for batch in batches])


@pytest.mark.parametrize(("data", "regime", "training"), TRAININGS, ids=NAMED)
def test_every_network_draws_the_class_it_is_asked_for(data, regime, training):
    problem = {"glyphs": glyphs_problem, "digits": digits_problem}[data.name](regime, training=training)
    indices = torch.arange(60)
    _, logits = problem.features.padded(to_uint8(draw(regime, indices, problem=problem)))
    asked = classes_of(indices, "balanced", 10, 0, problem.denoiser.class_weights)
    assert float((logits.argmax(1) == asked).double().mean()) > 0.85


@pytest.mark.parametrize("data", [GLYPHS, DIGITS], ids=lambda data: data.name)
def test_a_models_file_says_which_networks_are_there(data):
    held = {path.name for path in data.assets.glob("*.safetensors")} - {data.features.name}
    assert held == {data.weights(regime, training).name for one, regime, training in TRAININGS if one is data}
    assert len({model_id(data.assets / name) for name in held}) == len(held), "each is another network"


def test_digits_are_drawn_in_the_shares_of_the_data_and_a_perfect_sampler_scores_the_floor():
    problem, labels = digits_problem("edm"), digits()[1]
    indices = torch.arange(1797)
    asked = classes_of(indices, "balanced", 10, 0, problem.denoiser.class_weights)
    assert (asked.bincount() - labels.bincount()).abs().max() <= 2
    real = problem.real(indices, asked, 7)
    known = {picture.numpy().tobytes(): int(label) for picture, label in zip(*digits(), strict=True)}
    drawn = [picture.numpy().tobytes() for picture in real.float()]
    assert [known[picture] for picture in drawn] == asked.tolist(), "of the class asked for"
    assert 1000 < len(set(drawn)) < 1300, "drawn with replacement: 1 - 1/e of them"
    scorer = Scorer(problem, 1797, splits=10)
    scorer.update(indices, to_uint8(digits()[0]))
    assert scorer.compute()["fid"] < 0.01 < fid_floor(problem, 1797, "balanced", 2)["fid_floor"], (
        "the reference itself"
    )


def test_unconditional_sampling_works_with_the_same_network():
    _, logits = load_glyph_features()(to_uint8(draw("edm", torch.arange(60), "labels=none")))
    assert float(logits.softmax(1).max(1).values.mean()) > 0.8  # recognisable shapes
    assert len(logits.argmax(1).unique()) >= 7  # of many classes


def test_features_know_real_from_damaged():
    problem = glyphs_problem("edm")
    real = fid_floor(problem, 500, "balanced", 2)["fid_floor"]
    indices = torch.arange(500)
    images = glyphs(indices, indices % 10, seed=9, stream=FLOOR)
    distances = []
    for amount in (0.1, 0.2):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        scorer = Scorer(problem, 500, splits=10)
        scorer.update(indices, to_uint8(images + amount * noise))
        distances.append(scorer.compute()["fid"])
    assert real < distances[0] < distances[1]


@pytest.mark.parametrize(("data", "regime", "training"), TRAININGS, ids=NAMED)
def test_weights_say_how_they_were_trained_and_stay_small(data, regime, training):
    path = data.weights(regime, training)
    origin = provenance(path)
    assert "EMA weights at the last iteration" in str(origin["selection"])
    assert origin["target"] == regime
    assert not training or origin["seed"] == 100 + training
    assert path.stat().st_size <= 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "regime", "times"),
    [
        (glyphs_problem, "edm", 1.5),
        (glyphs_problem, "vp", 2),
        (glyphs_problem, "iddpm", 2),
        (glyphs_problem, "flow", 2),
        (glyphs_problem, "ve", 5),
        (digits_problem, "edm", 1.75),
        (digits_problem, "vp", 2),
    ],
)
def test_networks_reach_the_floor(build, regime, times):
    problem = build(regime)
    real, found = fid_floor(problem, 2000, "balanced", 4)["fid_floor"], []
    for name in ("heun", "dpmpp_2m", "seeds3"):
        scorer = Scorer(problem, 2000, splits=10)
        indices = torch.arange(2000)
        images = draw(regime, indices, f"solver={name}", "nfe=50", batch_size=256, problem=problem)
        scorer.update(indices, to_uint8(images))
        found.append(scorer.compute()["fid"])
    assert min(found) <= times * real, (found, real)


# The networks before training, and what was shipped

each_regime = pytest.mark.parametrize("regime", GLYPH_UNETS)


@each_regime
def test_a_zero_label_row_is_the_unconditional_model_and_noise_levels_may_be_shared(regime):
    denoiser, x, sigma = embedded.load_glyphs(regime), torch.randn(4, 3, 16, 16), torch.tensor(0.7)
    torch.testing.assert_close(denoiser(x, sigma, torch.zeros(4, 10)), denoiser(x, sigma))
    assert not torch.allclose(denoiser(x, sigma, torch.eye(10)[:4]), denoiser(x, sigma))
    torch.testing.assert_close(denoiser(x, sigma), denoiser(x, torch.full((4,), 0.7)))


@each_regime
def test_before_training_every_regime_is_the_best_linear_denoiser(regime):
    denoiser = embedded.as_denoiser(GlyphUNet(GLYPH_UNETS[regime]).eval())
    for sigma in torch.tensor([0.03, 0.5, 4.0, 80.0], dtype=torch.float64):
        level = PRECONDITIONERS[regime].round_sigma(sigma)
        x = torch.randn(2, 3, 16, 16, dtype=torch.float64) * (sigma**2 + 0.25) ** 0.5
        expected = EDMPreconditioner().c_skip(level) * x
        torch.testing.assert_close(denoiser(x, level), expected, rtol=1e-3, atol=2e-6 * max(float(sigma), 10))


def test_an_unknown_regime_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="model=glyphs has no weights for regime=edn: use regime=vp or"):
        embedded.load_glyphs("edn")
    with pytest.raises(
        ValueError, match="model=digits has no weights for regime=ve: use regime=vp or regime=edm"
    ):
        digits_problem("ve")
    with pytest.raises(FileNotFoundError, match="data=glyphs target=ve training=7 seed=107` to make it"):
        glyphs_problem("ve", training=7)


def test_features_are_standardised_and_demand_uint8():
    network = GlyphFeatures().eval()
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    features, logits = network(images)
    assert (features.shape, logits.shape) == ((5, 64), (5, 10))
    real = torch.randn(1000, 64) * torch.linspace(0.1, 3, 64) + 1  # its spread differs by feature
    network.standardise(real)
    scale = real.var(dim=0).mean().sqrt()  # one scale for all
    torch.testing.assert_close(network(images)[0], (features - real.mean(dim=0)) / scale)
    with pytest.raises(ValueError, match="need uint8"):
        network(images.float())


def test_shipped_features_know_every_class_and_match_the_reference():
    indices = torch.arange(2000)
    images = to_uint8(glyphs(indices, indices % 10, seed=1, stream=FLOOR))
    features, logits = load_glyph_features()(images)
    reference = load_glyph_reference()
    assert (logits.argmax(dim=1) == indices % 10).double().mean() > 0.998
    assert reference.n == 50_000
    assert abs(features.mean(dim=0).double() - torch.from_numpy(reference.mu)).max() < 0.15
    assert reference.sigma.diagonal().mean() == pytest.approx(1.0, rel=1e-3)
